"""A report holds the numbers of its runs, leads to them, and is one file that needs nothing else."""

import csv
import io
import json
import re
import shutil
import xml.dom.minidom
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import small_study

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import DataError, UsageError
from jaxlab.run.store import read_arrays
from jaxlab.study import page, statistics, svg, tables, words
from jaxlab.study.analysis import analyse
from jaxlab.study.description import plan
from jaxlab.study.grid import two_way
from jaxlab.study.runner import write_description

NASTY = "<script>alert('x')</script> & | $\\"


def fake_run(folder: Path, config, accuracy: float) -> None:
    """Write a finished run whose best validation accuracy is given, with a checkpoint's list of leaves."""
    record.open_run(folder, config, {})
    log = record.MetricsLog(folder, 0)
    for step in (10, 20, 30):
        log.write(step, {"train/loss": 3.0 / step, "valid/accuracy": accuracy - (30 - step) / 1000, "wall": step / 10})
    log.close()
    leaves = {"state/params/kernel": [[64, 8], "float32"], "state/step": [[], "int32"]}
    from jaxlab.train.manifest import Manifest, write

    place = folder / record.CHECKPOINTS / "30"
    place.mkdir(parents=True)
    write(place, Manifest(30, {}, leaves, {}))
    best = {"metric": "valid/accuracy", "value": accuracy, "step": 30}
    record.finish(
        folder, {"status": "finished", "step": 30, "wall": 3.0, "metrics": {"valid/accuracy": accuracy}, "best": best}
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Make a study's directory of made-up numbers, with one run missing, and report on it."""
    folder = tmp_path_factory.mktemp("study")
    base = small_study.base()
    arms = two_way({"train.batch_size": 16}, {"optimizer.weight_decay": 0.5})
    published = (jaxlab.Published(NASTY, 0.7, "a book", 0.6, 0.8), jaxlab.Published("other", 0.65, "a letter"))
    study = jaxlab.Study(base, arms, range(6), "valid/accuracy", smallest=0.01, published=published)
    (folder / "source").mkdir()
    (folder / "source" / "README.md").write_text("# Does it matter?\n\nA prediction: <b>yes</b>.\n")
    planned = plan(study)
    write_description(folder, study, planned, str(folder / "source" / "study.py"))
    described = record.read_json(folder / "study.json")
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 0.01, 6)
    for place, (arm, listed) in enumerate(zip(planned, described["arms"], strict=True)):
        for seed in range(6):
            if (place, seed) != (3, 5):
                value = 0.6 + 0.05 * place + shared[seed] + generator.normal(0, 0.004)
                fake_run(folder / listed["folder"] / f"seed-{seed}", jaxlab.override(arm.config, {"seed": seed}), value)
    jaxlab.report(folder)
    return folder


class Page(HTMLParser):
    """Collects what a page refers to, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.tags, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_data(self, data):
        self.words.append(data)


def test_every_number_of_a_run_stands_there_and_leads_to_it(written):
    html, markdown = (written / "report.html").read_text(), (written / "REPORT.md").read_text()
    found = Page(html)
    for run in written.glob("runs/*/seed-*"):
        value = words.number(record.read_json(run / record.SUMMARY)["best"]["value"])
        place = f"{run.relative_to(written)}/{record.SUMMARY}"
        assert f"[{value}]({place})" in markdown
        assert place in found.links
    local = [link for link in found.links if not link.startswith("data:")]
    assert local
    assert all((written / link).exists() for link in local)
    assert "missing" in markdown
    assert "1 run is missing or failed" in markdown


def test_a_copy_to_send_has_all_that_it_leads_to_and_no_more(written, tmp_path):
    jaxlab.report(written, tmp_path / "copy")
    found = Page((tmp_path / "copy" / "report.html").read_text())
    local = [link for link in found.links if not link.startswith("data:")]
    markdown = re.findall(r"\]\(([^)]+)\)", (tmp_path / "copy" / "REPORT.md").read_text())
    assert len({*local, *markdown}) > 23
    assert all((tmp_path / "copy" / link).exists() for link in (*local, *markdown))
    for name in ("study.json", "results.json"):
        assert str(written.parent) not in (tmp_path / "copy" / name).read_text()
    assert not list((tmp_path / "copy").rglob(record.CHECKPOINTS))
    for inside in (written, written / "copy", written / "REPORT.md"):
        with pytest.raises(UsageError, match="expected a directory outside"):
            jaxlab.report(written, inside)


def test_the_page_is_one_file_that_asks_for_nothing(written):
    html = (written / "report.html").read_text()
    found = Page(html)
    assert not [link for link in found.links if "://" in link and not link.startswith("data:")]
    assert found.tags.count("script") == 1  # ours: that of the label stayed text
    assert not {"link", "iframe", "b"} & set(found.tags)
    assert "alert('x')" in "".join(found.words)
    without = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "valid/accuracy" in without
    assert 'name="viewport"' in html
    for file in (written / "plots").glob("*.svg"):
        xml.dom.minidom.parse(str(file))


def test_statistics_are_of_the_numbers_beside_them(written):
    results = analyse(written)
    rows = list(csv.DictReader(io.StringIO((written / tables.RUNS).read_text())))
    values = {}
    for row in rows:
        values.setdefault(row["arm"], {})[row["seed"]] = float(row["valid/accuracy"])
    assert sum(map(len, values.values())) == 23
    base = values["base"]
    for arm in results["arms"]:
        own = values[arm["label"]]
        assert arm["spread"] == statistics.spread(np.array(list(own.values())), "max")._asdict()
        if not arm["baseline"]:
            both = [seed for seed in own if seed in base]
            wanted = statistics.compare(np.array([own[s] for s in both]), np.array([base[s] for s in both]))
            assert arm["comparison"]["difference"] == pytest.approx(wanted.difference)
            assert arm["comparison"]["verdict"] == "better"
        assert arm["cost"]["parameters"] == 64 * 8
    assert [round(each["difference"], 2) for each in results["interactions"]] == [0.0]
    assert "are not seen to interact" in " ".join(results["sentences"])
    assert results["sentences"] == jaxlab.report(written)["sentences"]


def test_a_readme_and_published_numbers_open_and_stand_beside(written):
    markdown = (written / "REPORT.md").read_text()
    assert markdown.startswith("# Does it matter?")
    assert "| other | 0.6500 | not given | a letter |" in markdown
    assert "0.6000 … 0.8000" in markdown


@pytest.mark.slow
def test_what_other_examples_would_change_is_of_pairs_scored_on_the_same_ones(tmp_path):
    study = small_study.get_study()
    study = jaxlab.Study(study.base, study.arms, study.seeds, "test/accuracy")
    jaxlab.run_study(study, tmp_path)
    arms = analyse(tmp_path)["arms"]
    other = next(arm for arm in arms if not arm["baseline"])
    baseline = next(arm for arm in arms if arm["baseline"])
    widths = []
    for seed, run in other["runs"].items():
        pair = [tmp_path / baseline["runs"][seed], tmp_path / run]
        step = [record.read_json(folder / record.SUMMARY)["best"]["step"] for folder in pair]
        stored = [read_arrays(folder, "test", each) for folder, each in zip(pair, step, strict=True)]
        right = [(each["logits"].argmax(1) == each["target"]).astype(float) for each in stored]
        widths.append(np.std(right[1] - right[0]) / len(right[0]) ** 0.5)
    assert other["comparison"]["sample_deviation"] == pytest.approx(np.mean(widths), rel=0.1)


def test_latex_has_every_sign_escaped_and_as_many_columns_as_it_says(written):
    text = (written / tables.LATEX).read_text()
    body = text[text.index("\\midrule") + 8 : text.index("\\bottomrule")].strip().splitlines()
    assert len(body) == 4
    assert all(len(re.findall(r"(?<!\\)&", line)) == 3 for line in body)
    assert (
        tables.escaped("a_b & 5% $#{}~^\\")
        == r"a\_b \& 5\% \$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_a_verdict_is_by_direction_and_never_without_evidence():
    sure = {"difference": 0.1, "holm_p": 0.001}
    assert words.verdict(sure, "max") == words.verdict({**sure, "difference": -0.1}, "min") == "better"
    assert words.verdict(sure, "min") == "worse"
    for p in (0.05, 0.5, float("nan")):
        assert words.verdict({**sure, "holm_p": p}, "max") == "not separable"


@pytest.mark.parametrize(
    ("shift", "noise", "said"),
    [
        (0.0, 0.001, "holds no difference worth knowing, which begins at 0.0100"),
        (0.009, 0.005, "the interval does not rule out one of 0.0100"),
        (0.02, 0.2, "seeds would be needed for a difference of 0.0100, the one worth knowing"),
    ],
)
def test_what_was_not_seen_is_told_apart_from_what_could_not_be_seen(shift, noise, said):
    ours = shift + noise * np.array([-1.0, 1.0, -0.5, 0.5, -1.5, 1.5])
    found = statistics.compare(ours, np.zeros(6))._asdict()
    found["minimum_detectable"] = statistics.minimum_detectable(found["deviation"], 6)
    found["seeds_needed"] = statistics.seeds_needed(0.01, found["deviation"])
    found |= {"holm_p": 0.5, "verdict": words.OPEN, "wanted": 0.01}
    base = {"label": "base", "baseline": True, "spread": None}
    arm = {"label": "x", "baseline": False, "comparison": found, "seeds": range(6)}
    results = {"arms": [base, arm], "metric": "m", "smallest": 0.01, "interactions": [], "failures": []}
    assert said in words.sentences(results)[0]


def test_a_directory_without_anything_to_report_says_so(tmp_path):
    with pytest.raises(DataError, match="neither a study"):
        jaxlab.report(tmp_path)
    study = small_study.get_study()
    write_description(tmp_path, study, plan(study), "")
    with pytest.raises(DataError, match="no run is finished yet"):
        jaxlab.report(tmp_path)


def test_a_run_has_a_report_too(written):
    run = next(iter(written.glob("runs/*/seed-0")))
    folder = written.parent / "alone"
    shutil.copytree(run, folder)
    jaxlab.report(folder)
    text = (folder / "REPORT.md").read_text()
    assert "Finished at step 30" in text
    assert (folder / "plots" / "curve-accuracy.svg").is_file()
    assert json.dumps("jaxlab.models.mlp:make") in text


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.12, 0.1201), (-3e6, 5e7), (1e-9, 1.1e-9)])
def test_ticks_are_round_and_within(low, high):
    ticks = svg.Scale(low, high, 0, 100).ticks()
    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-9 * abs(low) <= tick <= high + 1e-9 * abs(high) for tick in ticks)
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])
    assert float(f"{steps[0]:.6e}".split("e")[0]) in (1.0, 2.0, 5.0)


def test_markdown_cells_cannot_break_a_table(tmp_path):
    page.write(tmp_path, "t", [page.Grid(("a", "b:"), [["x | y", "line\nbreak"]])])
    lines = (tmp_path / "REPORT.md").read_text().strip().splitlines()
    assert lines == ["| a | b |", "| --- | ---: |", "| x \\| y | line break |"]
