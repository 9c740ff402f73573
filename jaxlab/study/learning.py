"""Learning curves over seeds: the mean at each step and its interval.

Usage: ``learning_curves(folder, arm, "valid/accuracy")``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core import record
from jaxlab.study.statistics import half_width
from jaxlab.study.svg import Curve

_MOST_POINTS = 200


def learning_curves(folder: Path, arm: Mapping[str, Any], name: str, colour: int = 0) -> Curve | None:
    """Return a metric over the steps that all seeds of an arm have logged; None where there are none.

    Args:
      folder: the study's.
      arm: with its runs.
      name: of the metric.
      colour: of the curve.
    """
    logged = []
    for run in arm["runs"].values():
        rows = record.read_metrics(folder / run)
        logged.append({row["step"]: row[name] for row in rows if name in row and math.isfinite(row[name])})
    steps = sorted(set.intersection(*map(set, logged))) if logged else []
    steps = steps[:: math.ceil(len(steps) / _MOST_POINTS)] if steps else []
    if len(steps) < 2:
        return None
    values_NS = np.array([[each[step] for step in steps] for each in logged])
    means = values_NS.mean(0)
    halves = np.zeros(len(steps))
    if len(logged) > 1:
        halves = np.array([half_width(float(d), len(logged)) for d in values_NS.std(0, ddof=1)])
    return Curve(arm["label"], steps, means.tolist(), (means - halves).tolist(), (means + halves).tolist(), colour)
