"""The report of a single run: what it was, how it went, what it reached, and how to do it again.

Usage: ``write(Path("runs/first"))``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.study import page, svg
from jaxlab.study.learning import learning_curves
from jaxlab.study.page import Folded, Grid, Part, Picture, Text
from jaxlab.study.surroundings import surroundings
from jaxlab.study.tasks import EVALUATION
from jaxlab.study.words import number

_MOST_CURVES = 6


def write(folder: Path) -> list[str]:
    """Write the report and return what it says first."""
    config, summary = record.read_config(folder), record.read_json(folder / record.SUMMARY)
    evaluations = record.read_json(folder / EVALUATION)
    found = _sentences(config, summary, evaluations)
    parts = [
        Text(f"# Run {folder.name}\n\n" + "\n".join(f"- {sentence}" for sentence in found)),
        *_evaluations(evaluations), *_curves(folder), *_pictures(folder), _config(config), *surroundings(folder),
        *_again(folder),
    ]  # fmt: skip
    page.write(folder, f"Run {folder.name}", parts)
    return found


def _sentences(config: Any, summary: Mapping[str, Any], evaluations: Mapping[str, Any]) -> list[str]:
    if not summary:
        return ["The run is not finished: it goes on, or was killed. What stands here is what it has written so far."]
    found = [f"Finished at step {summary['step']:,} after {summary['wall']:,.0f} s."]
    if summary["best"]:
        best = summary["best"]
        found.append(
            f"Best {best['metric']} {number(best['value'])}, at step {best['step']:,} ({config.train.best_mode})."
        )
    reads = max((entry["reads"] for entry in evaluations.values() if entry["split"] == "test"), default=0)
    found.append(f"The labels of the test split were read {reads} time{'' if reads == 1 else 's'}.")
    return found


def _evaluations(evaluations: Mapping[str, Any]) -> list[Part]:
    parts: list[Part] = []
    for entry in evaluations.values():
        rows = [
            [f"`{name}`", number(value), *_bounds(entry["intervals"], name)] for name, value in entry["metrics"].items()
        ]
        text = f"## {entry['split']}, step {entry['step']}\n\nFrom [{EVALUATION}]({EVALUATION})."
        parts += [Text(text), Grid(("metric", "value:", "95 % interval:", "by"), rows)]
    return parts


def _bounds(intervals: Mapping[str, Any], name: str) -> tuple[str, str]:
    if name not in intervals:
        return "", ""
    return f"{number(intervals[name]['low'])} … {number(intervals[name]['high'])}", str(intervals[name]["method"])


def _curves(folder: Path) -> list[Part]:
    """Return a picture for each quantity that training or validation has logged."""
    names = {
        name.partition("/")[2]
        for row in record.read_metrics(folder)
        for name, value in row.items()
        if name.startswith(("train/", "valid/")) and math.isfinite(value)
    }
    parts: list[Part] = []
    for name in sorted(names, key=lambda name: (name != "loss", name))[:_MOST_CURVES]:
        found = []
        for place, split in enumerate(("train", "valid")):
            curve = learning_curves(folder, {"label": split, "runs": {"0": "."}}, f"{split}/{name}", place)
            found += [curve] if curve is not None else []
        if found:
            parts.append(Picture(f"curve-{name.replace('/', '-')}", svg.curves(found, name)))
    return [Text("## Learning curves"), *parts] if parts else []


def _pictures(folder: Path) -> list[Part]:
    files = sorted(file for file in (folder / record.PLOTS).glob("*.png") if file.stem != "learning_curve")
    return [Text("## Pictures"), *(Picture(f.stem, "", f, f.stem.replace("-", " ")) for f in files)] if files else []


def _config(config: Any) -> Part:
    return Folded("The complete config", f"```json\n{configs.to_json(config)}```")


def _again(folder: Path) -> list[Part]:
    origin = record.read_json(folder / record.OVERRIDES)
    commands = [f"jaxlab reproduce {folder.name}"]
    if isinstance(origin.get("config"), str):
        flags = "".join(f" --config.{path}={value}" for path, value in origin.get("overrides", {}).items())
        commands.insert(0, f"jaxlab train --config={Path(origin['config']).name}{flags} --workdir=NEW")
    return [Text("## Reproduce\n\n```\n" + "\n".join(commands) + "\n```")]
