"""The numbers of a run, from its directory: the metric that decides, its interval over examples, what it cost.

Usage: ``value_of(folder, "valid/accuracy", "best")``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import DataError, did_you_mean
from jaxlab.study.tasks import EVALUATION


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
