"""The numbers of a run, from its directory: the metric that decides, and how far other examples would move it.

Usage: ``value_of(folder, "valid/accuracy", "best")``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core import record
from jaxlab.core.errors import DataError, did_you_mean
from jaxlab.run.compare import compare_predictions
from jaxlab.study.tasks import EVALUATION

_NORMAL = 2 * 1.959964  # widths of a deviation in an interval of 95 %


def run_folders(study: Path) -> list[Path]:
    """Return the directories of all runs of a study, begun or finished."""
    return sorted(study.glob("runs/*/seed-*"))


def value_of(folder: Path, metric: str, at: str) -> float:
    """Return a finished run's metric: of its evaluation on the split, or else of the row that it logged.

    Args:
      folder: the run's.
      metric: ``SPLIT/NAME``.
      at: best or latest, which checkpoint counts.

    Raises:
      DataError: the run has no such number, naming the nearest.
    """
    evaluation = evaluation_of(folder, metric.partition("/")[0])
    if metric in evaluation["metrics"]:
        return float(evaluation["metrics"][metric])
    rows = logged(folder, at)
    if metric not in rows:
        names = [*evaluation["metrics"], *(name for name in rows if "/" in name)]
        raise DataError(f"{folder}: it has no {metric}{did_you_mean(metric, names)}")
    return float(rows[metric])


def evaluation_of(folder: Path, split: str) -> dict[str, Any]:
    """Return the latest evaluation on a split, or one without metrics."""
    found = [entry for entry in record.read_json(folder / EVALUATION).values() if entry["split"] == split]
    return found[-1] if found else {"metrics": {}, "intervals": {}, "reads": 0, "predictions": None, "step": None}


def sample_deviation(folders: Sequence[Path], metric: str) -> float | None:
    """Return the deviation of a metric over draws of the split's examples, in the mean over runs; None if unknown."""
    split, _, name = metric.partition("/")
    found = [evaluation_of(folder, split)["intervals"] for folder in folders]
    return _deviation([each.get(name) or each.get(metric) for each in found])


def paired_sample_deviation(pairs: Sequence[tuple[Path, Path]], metric: str) -> float | None:
    """Return the deviation of the difference of two runs over draws of the same examples, in the mean over pairs.

    Both runs of a pair are scored on each draw, so that what is hard for both cancels. None if no pair was evaluated.
    """
    found = []
    for first, second in pairs:
        try:
            differences = compare_predictions([first, second], metric.partition("/")[0])["differences"]
        except DataError:
            continue
        found.append(differences.get(metric))
    return _deviation(found)


def _deviation(intervals: Sequence[Mapping[str, float] | None]) -> float | None:
    widths = [interval["high"] - interval["low"] for interval in intervals if interval]
    return float(np.mean(widths)) / _NORMAL if widths else None


def logged(folder: Path, at: str) -> dict[str, float]:
    """Return the last value of every metric up to the best or the latest step."""
    summary = record.read_json(folder / record.SUMMARY)
    if at == "latest" or not summary["best"]:
        return dict(summary["metrics"])
    until = summary["best"]["step"]
    values: dict[str, float] = {}
    for row in record.read_metrics(folder):
        if row["step"] <= until:
            values |= row
    return values
