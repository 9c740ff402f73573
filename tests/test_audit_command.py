"""The ``audit`` command: exit codes, the three files it writes, and that it reads test labels only when told to."""

import json
import re
import sys
from pathlib import Path

import pytest

from jaxlab import cli

ROOT = Path(__file__).parents[1]
DIGITS = str(ROOT / "configs" / "digits_cnn.py")
PLUGIN = """
import numpy as np
from jaxlab.core.config import spec
from jaxlab.core.errors import ConfigError
from jaxlab.data.column_source import ColumnSource
from jaxlab.run.base import base_config

WORDS = ["<b>" + "".join(letters) for letters in np.random.default_rng(0).choice(list("abcdefghij"), (300, 7))]

def source(split: str = "train", label: int = 0, wide: int = 0):
    if split not in ("train", "valid", "test"):
        raise ConfigError(f"no split {split!r}")
    rng = np.random.default_rng(["train", "valid", "test"].index(split))
    labels = rng.integers(0, 2, 200).astype(np.int32)
    texts = [" ".join(rng.choice(WORDS, 30)) for _ in range(200)]
    shared = np.random.default_rng(9)
    copies = [" ".join(shared.choice(WORDS, 40)) for _ in range(5)]
    if split == "train":
        texts[:5] = copies
    if split == "test":
        texts[10:15] = [copy.replace(" ", ", ", 1) for copy in copies]
        texts[20], texts[21] = copies[0], copies[1]
        labels[3] = label
    fields = {"text": np.array(texts, object), "size": rng.normal(size=200).astype(np.float32), "label": labels}
    if split == "train":
        fields["size"][:5] = 0
    if split == "test":
        fields["size"][20:22] = 0
    if wide:
        fields["wide"] = rng.normal(size=(200, wide))
    return ColumnSource(fields, {"classes": ("no", "yes"), "fingerprint": f"rows:{split}"})

def get_config():
    config = base_config()
    for split in ("train", "valid", "test"):
        config.data[split] = spec("plugin_of_audit_test:source", split=split)
    config.train.batch_size = 1000  # more than the data, which is no business of an audit
    config.model = spec("jaxlab.models.mlp:make", hidden=(4,))
    config.objective = spec("jaxlab.objectives.classify:make", inputs=("nothing",))
    config.optimizer = spec("optax:sgd", learning_rate=0.1)
    return config
"""


@pytest.fixture
def audit(capsys, monkeypatch, tmp_path):
    """Run the command in this process, in an empty folder; return its exit code, result and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("plugin_of_audit_test.py").write_text(PLUGIN)

    def run(*arguments, config="plugin_of_audit_test.py"):
        code = cli.main(["audit", f"--config={config}", *arguments])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]) if captured.out else None, captured.err

    yield run
    sys.modules.pop("plugin_of_audit_test", None)


def read(name, folder="audit"):
    return json.loads(Path(folder, name).read_text())


def test_the_result_counts_what_the_report_and_stderr_say_and_findings_fail_only_if_strict(audit, tmp_path):
    code, result, err = audit()
    assert code == 0, err
    findings = read("audit.json")["findings"]
    levels = [finding["level"] for finding in findings]
    assert result == {"output": str(tmp_path / "audit"), "errors": 1, "warnings": 1}
    assert (levels.count("error"), levels.count("warning")) == (1, 1)
    assert {f["code"] for f in findings} == {"overlap", "near_overlap", "unread"}
    assert all(f"{f['level']}: {f['split']}: {f['message']}" in err for f in findings)
    code, strict, _ = audit("--strict")
    assert (code, strict) == (1, result)
    assert audit("--strict", config=DIGITS)[0] == 0


def test_the_filter_lists_the_rows_by_reason_and_of_what_data_they_are(audit):
    audit("--output=elsewhere")
    content = read("filter.json", "elsewhere")
    assert content["train"] == {
        "drop": [0, 1, 2, 3, 4], "reasons": {"overlap_test": [0, 1], "near_overlap_test": [0, 1, 2, 3, 4]},
        "size": 200, "base_fingerprint": "rows:train",
    }  # fmt: skip
    assert content["valid"]["drop"] == content["test"]["drop"] == []


def test_the_page_is_one_file_that_shows_the_pairs_and_escapes_the_data(audit):
    audit()
    page = Path("audit/audit.html").read_text()
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    assert "<b>lorem" not in page
    assert "near duplicates in text" in page
    assert "&lt;b&gt;" in page
    assert all(word in page for word in ("Classes", "Lengths and ranges", "Not shown, as not read: test"))
    assert page.count("data:image/png;base64,") == 2
    assert "<td>train</td><td>near overlap test</td><td>5</td>" in page  # what the filter would leave out


def test_columns_of_one_field_and_a_target_of_numbers_are_on_the_page_in_the_data_s_order(audit):
    audit("--config.data.train.wide=12", "--target=size")
    page = Path("audit/audit.html").read_text()
    ranges = re.findall(r"<td>(wide\[\d+\]|the target)</td><td>train</td>", page)
    assert ranges == ["the target", *(f"wide[{place}]" for place in range(12))]


def test_the_report_has_ranges_lengths_and_classes_of_each_split(audit):
    audit()
    train = read("audit.json")["splits"]["train"]
    assert train["classes"].keys() == {"no", "yes"}
    assert sum(train["classes"].values()) == train["rows"] == train["size"] == 200
    assert train["fields"]["text"]["kind"] == "text"
    assert train["fields"]["text"]["words"]["max"] == 40
    size = train["fields"]["size"]["columns"]["size"]
    assert size["min"] <= size["quantiles"]["0.5"] <= size["max"]


def test_test_labels_are_read_only_when_told_to_and_the_report_counts_it(audit):
    audit("--config.data.test.label=7")
    report = read("audit.json")
    assert [split["target_rows_read"] for split in report["splits"].values()] == [200, 200, 0]
    assert "classes" not in report["splits"]["test"]
    audit("--config.data.test.label=7", "--test_labels")
    report = read("audit.json")
    assert report["splits"]["test"]["target_rows_read"] == 200
    assert [f["count"] for f in report["findings"] if f["code"] == "outside"] == [1]


def test_of_more_rows_than_wanted_a_sample_is_looked_at(audit):
    assert audit("--max_rows=50")[0] == 0
    assert {split["rows"] for split in read("audit.json")["splits"].values()} == {50}


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--target=lable", ("--target=lable", "did you mean 'label'")),
        ("--ignore=size,txt", ("--ignore=txt", "did you mean 'text'")),
        ("--max_rows=1", ("--max_rows=1", "2 or more")),
        ("--outptu=x", ("--outptu", "did you mean '--output'")),
        ("--config.data.train.split=trian", ("trian",)),
    ],
)
def test_wrong_usage_ends_with_2_and_writes_nothing(audit, flag, parts):
    code, result, err = audit(flag)
    assert (code, result) == (2, None)
    assert all(part in err for part in parts)
    assert not Path("audit").exists()


def test_a_folder_that_is_a_file_ends_with_2(audit):
    Path("taken").write_text("")
    code, _, err = audit("--output=taken")
    assert code == 2
    assert "--output=taken" in err


def test_the_digits_are_clean(audit):
    code, result, err = audit(config=DIGITS)
    assert (code, result["errors"], result["warnings"]) == (0, 0, 0), err
    assert read("audit.json")["splits"]["train"]["fields"]["image"]["kind"] == "image"
