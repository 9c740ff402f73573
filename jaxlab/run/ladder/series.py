"""Rungs of forecasts from windows of a series: the last value, and the last season, goes on.

Knows windows by their fields and by two facts, the names of ``inputs`` and ``targets``; the past has to be in the
target's units. Shape letters: N windows, L rows of past, H rows of horizon, F input and T target columns.
Usage: ``fits = rungs(problem)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jaxlab.core.types import DataSpec
from jaxlab.run.ladder.problem import NUMBERS, Columns, Fit, Fitted, Problem, cost
from jaxlab.run.ladder.rows import Rows

SEASONS = (7, 24, 48, 96, 168, 336)  # rows; of those that the past holds, validation chooses
PAST = "past"


def rungs(problem: Problem) -> Mapping[str, Fit]:
    """Return the naive forecasts where the past holds what is to be predicted."""
    past, target = problem.train.inputs.get(PAST), problem.train.answers.get("target")
    if problem.kind != NUMBERS or past is None or target is None or past.ndim != 3 or target.ndim != 3:
        return {}
    column_T = _columns(problem.data, past.shape[2], target.shape[2])
    if column_T is None:
        return {}
    seasons = [season for season in SEASONS if season <= past.shape[1]]
    seasonal = {"seasonal naive": lambda: _seasonal(problem, column_T, seasons)} if seasons else {}
    about = "the last value of the past for the whole horizon"
    return {"last value": lambda: Fitted(_naive(1, column_T), len(problem.train), about), **seasonal}


def _columns(data: DataSpec, width: int, count: int) -> np.ndarray | None:
    """Return where the targets' columns are among the past's [T]; None where that is not known."""
    inputs, targets = (tuple(data.meta[fact]) if fact in data.meta else () for fact in ("inputs", "targets"))
    if not targets or not set(targets) <= set(inputs):
        return None
    if width == len(inputs):  # a column a field
        return np.array([inputs.index(field) for field in targets])
    if inputs[: len(targets)] == targets:
        return np.arange(count)
    return np.arange(width - count, width) if inputs[-len(targets) :] == targets else None


def _naive(season: int, column_T: np.ndarray) -> Callable[[Rows], Columns]:
    """Return the forecast that repeats the last `season` rows of the past."""

    def predict(rows: Rows) -> Columns:
        horizon = rows.answers["target"].shape[1]
        repeated_H = np.arange(horizon) % season - season
        return {"prediction": rows.inputs[PAST][:, repeated_H][:, :, column_T].astype(np.float32)}

    return predict


def _seasonal(problem: Problem, column_T: np.ndarray, seasons: list[int]) -> Fitted:
    costs = {season: cost(problem, _naive(season, column_T)(problem.valid), problem.valid) for season in seasons}
    best = min(costs, key=lambda season: costs[season])
    about = f"the last {best} rows of the past again; chosen on valid among {', '.join(map(str, seasons))}"
    return Fitted(_naive(best, column_T), len(problem.train), about)
