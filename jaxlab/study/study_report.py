"""The report of a study: question, what was learnt, arms, curves, published numbers, cost, failures, how to redo it.

Usage: ``write(Path("studies/NAME"))``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.study import page, svg, tables
from jaxlab.study.analysis import RESULTS, analyse
from jaxlab.study.arms_report import arms_parts, as_row
from jaxlab.study.attempts import ATTEMPTS
from jaxlab.study.learning import learning_curves
from jaxlab.study.page import Folded, Grid, Part, Picture, Text
from jaxlab.study.runner import STUDY
from jaxlab.study.sharing import short_name
from jaxlab.study.surroundings import surroundings
from jaxlab.study.tasks import EVALUATION
from jaxlab.study.words import number

_MOST_CURVES = 8
_MOST_PICTURES = 6
_COST = (
    "## Cost\n\n◎ marks the arms that no other beats at the same or less of that cost (the Pareto set). Seconds are as "
    "they were measured, with whatever else the machine did."
)


def write(folder: Path) -> list[str]:
    """Write the report and return its sentences."""
    results = analyse(folder)
    title = Path(results["file"]).parent.name.replace("_", " ") if results["file"] else folder.name
    parts = [
        *_question(results, title), *_learnt(results), *arms_parts(results), *_curves(folder, results),
        *_pictures(folder, results), *_published(results), *_costs(results), *_seeds(results),
        *_failures(results), *_reading(results), *surroundings(_first_run(folder, results)), *_again(folder, results),
    ]  # fmt: skip
    page.write(folder, title, parts)
    tables.write(folder, results)
    return results["sentences"]


def _question(results: Mapping[str, Any], title: str) -> list[Part]:
    readme = Path(results["file"]).with_name("README.md") if results["file"] else None
    if readme is not None and readme.is_file():
        text = readme.read_text()
        return [Text(text if text.startswith("# ") else f"# {title}\n\n{text}")]
    asked = f"Which of {len(results['arms'])} arms has the best {results['metric']}?"
    return [Text(f"# {title}\n\n{asked} (The study has no README.md beside its file that asks more.)")]


def _learnt(results: Mapping[str, Any]) -> list[Part]:
    better = "higher" if results["direction"] == "max" else "lower"
    what = (
        f"`{results['metric']}` ({better} is better) of the {results['at']} checkpoint, over {len(results['seeds'])} "
        "seeds. Brackets are 95 % intervals of the mean over seeds, p-values Student's paired test with Holm's "
        "correction."
    )
    return [Text("## What was learnt\n\n" + "\n".join(f"- {s}" for s in results["sentences"]) + f"\n\n{what}")]


def _curves(folder: Path, results: Mapping[str, Any]) -> list[Part]:
    shown = [arm for arm in results["arms"] if arm["runs"]][:_MOST_CURVES]
    parts: list[Part] = [Text("## Learning curves")]
    names = dict.fromkeys(["train/loss", results["metric"].replace("test/", "valid/")])
    for name in names:
        found = [learning_curves(folder, arm, name, place) for place, arm in enumerate(shown)]
        curves = [curve for curve in found if curve is not None]
        if curves:
            caption = "Mean over seeds with the range of its 95 % interval; click a name to hide or show it."
            parts.append(Picture(f"curve-{name.replace('/', '-')}", svg.curves(curves, name), None, caption))
    return parts if len(parts) > 1 else []


def _pictures(folder: Path, results: Mapping[str, Any]) -> list[Part]:
    """Return the evaluation's curves of the baseline's and the best arm's first seeds."""
    rated = [arm for arm in results["arms"] if arm["spread"]]
    choose = max if results["direction"] == "max" else min
    best = choose(rated, key=lambda arm: arm["spread"]["mean"])
    parts: list[Part] = []
    for arm in {arm["key"]: arm for arm in (best, *(arm for arm in rated if arm["baseline"]))}.values():
        run = folder / next(iter(arm["runs"].values()))
        files = sorted(file for file in (run / record.PLOTS).glob("*.png") if file.stem != "learning_curve")
        for file in files[:_MOST_PICTURES]:
            caption = f"`{arm['label']}`, {run.name}: {file.stem.replace('-', ' ')}"
            parts.append(Picture(file.stem, "", file, caption))
    return [Text("## Evaluation"), *parts] if parts else []


def _published(results: Mapping[str, Any]) -> list[Part]:
    if not results["published"]:
        return []
    rows = []
    for other in results["published"]:
        bounds = "not given" if other["low"] is None else f"{number(other['low'])} … {number(other['high'])}"
        rows.append([other["name"], number(other["value"]), bounds, other["citation"]])
    text = (
        "## Published beside ours\n\nOthers' numbers, as they state them; they need not be of the same split or budget."
    )
    return [Text(text), Grid(("result", "value:", "interval:", "source"), rows)]


def _costs(results: Mapping[str, Any]) -> list[Part]:
    arms = [arm for arm in results["arms"] if arm["cost"] and arm["spread"]]
    rows = [[f"`{arm['label']}`", number(arm["spread"]["mean"]), *_cost(arm["cost"])] for arm in arms]
    parts: list[Part] = [
        Text(_COST),
        Grid(("arm", f"{results['metric']}:", "parameters:", "operations to train:", "seconds to train:"), rows),
    ]
    if len({arm["cost"]["flops"] for arm in arms}) > 1:
        shown = [as_row(arm, place) for place, arm in enumerate(arms)]
        costs, best = [arm["cost"]["flops"] for arm in arms], [arm["cost"]["pareto"]["flops"] for arm in arms]
        picture = svg.scatter(shown, costs, best, "operations to train", results["metric"])
        parts.append(Picture("cost", picture, None, "Ringed: the Pareto set."))
    return parts


def _cost(cost: Mapping[str, Any]) -> list[str]:
    measures = ("parameters", "flops", "seconds")
    return [f"{_large(cost[what])}{' ◎' if cost['pareto'][what] else ''}" for what in measures]


def _seeds(results: Mapping[str, Any]) -> list[Part]:
    rows = [[f"`{arm['label']}`", *(_run(arm, str(seed)) for seed in results["seeds"])] for arm in results["arms"]]
    text = (
        f"## Every run\n\n`{results['metric']}` by seed; each number leads to its run. "
        f"All numbers: [{RESULTS}]({RESULTS}), [{tables.RUNS}]({tables.RUNS}), [{tables.ARMS}]({tables.ARMS}), "
        f"[{tables.LATEX}]({tables.LATEX})."
    )
    changes = "\n".join(f"- `{arm['label']}`: `{json.dumps(_changes(arm))}`" for arm in results["arms"])
    header = ("arm", *(f"seed {seed}:" for seed in results["seeds"]))
    return [Text(text), Grid(header, rows), Folded("What each arm changes in the base config", changes)]


def _changes(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an arm changes, without the parts of what it replaces as a whole."""
    whole = arm["changes"]
    return {path: value for path, value in whole.items() if path.partition("[")[0] not in set(whole) - {path}}


def _run(arm: Mapping[str, Any], seed: str) -> str:
    if seed not in arm["values"]:
        return "missing"
    file = EVALUATION if arm["evaluated"] else record.SUMMARY
    return f"[{number(arm['values'][seed])}]({arm['runs'][seed]}/{file})"


def _failures(results: Mapping[str, Any]) -> list[Part]:
    if not results["failures"]:
        return [Text(f"## Failures\n\nNone: every run is finished ([{ATTEMPTS}]({ATTEMPTS}) has all attempts).")]
    rows = [
        [f"[{f['run']}]({f['run']})" if f["begun"] else f["run"], f["status"], f["problem"]]
        for f in results["failures"]
    ]
    return [Text("## Failures\n\nNo number above is of these runs."), Grid(("run", "status", "problem"), rows)]


def _reading(results: Mapping[str, Any]) -> list[Part]:
    reads = results["test_reads"]
    said = (
        f"The labels of the test split were read {reads} times, by all runs together."
        if reads
        else ("The test split was not read.")
    )
    warning = (
        " Choosing an arm by it and reporting its number flatters." if results["metric"].startswith("test/") else ""
    )
    return [Text(f"## Test set\n\n{said}{warning}")]


def _again(folder: Path, results: Mapping[str, Any]) -> list[Part]:
    name = short_name(Path(results["file"])) if results["file"] else "STUDY.py"
    commands = [
        f"jaxlab study --study={name} --workdir=NEW",
        f"jaxlab reproduce {_first_run(folder, results).relative_to(folder)}",
    ]
    text = "## Reproduce\n\n```\n" + "\n".join(commands) + f"\n```\n\nThe study as it was run: [{STUDY}]({STUDY})."
    return [Text(text)]


def _first_run(folder: Path, results: Mapping[str, Any]) -> Path:
    return folder / next(run for arm in results["arms"] for run in arm["runs"].values())


def _large(value: float) -> str:
    for size, sign in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {sign}"
    return f"{value:.3g}"
