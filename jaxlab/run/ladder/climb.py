"""Fits every rung that there is for an experiment and measures its predictions as a model's.

Usage: ``found = climb(experiment, "valid", seconds=300)``; ``found["rungs"]["majority"]["metrics"]``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, UndefinedError
from jaxlab.run.assemble import Experiment
from jaxlab.run.ladder import constants, estimators, recommended, series, tokens
from jaxlab.run.ladder.problem import TOKENS, Columns, Problem, UnfittedError, kind_of, perfect, time_limit
from jaxlab.run.ladder.rows import Reader, Rows, drawn
from jaxlab.run.measured import Measured, measured
from jaxlab.run.slices import as_json
from jaxlab.run.units import units_of

LADDERS = (constants.rungs, series.rungs, tokens.rungs, recommended.rungs, estimators.rungs)
_MOST_NUMBERS = 2**28  # of a training split: a gigabyte
_COMPARED, _COMPARED_TOKENS = 5000, 200  # rows that tell on which side a metric's best value lies

_log = logging.getLogger("jaxlab")

Predict = Callable[[Rows], Columns]


def climb(experiment: Experiment, split: str, seconds: float) -> dict[str, Any]:
    """Return ``n``, ``rungs``, ``not_fitted``, ``better`` and ``left_out`` as `jaxlab.run.baseline.baseline` does.

    Args:
      experiment: with the sources of train, of the split, and of valid if there is one.
      split: what is measured.
      seconds: that each rung may take to fit.

    Raises:
      ConfigError: results of the objective that no rung has.
    """
    reader = Reader(experiment)
    problem = _problem(reader, seconds)
    judged = problem.valid if split == "valid" else reader.read(split)
    total = len(experiment.rows["train"])
    rungs: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    predictors: list[Predict] = []
    for name, fit in {name: fit for ladder in LADDERS for name, fit in ladder(problem).items()}.items():
        _log.info("fitting: %s", name)
        began = time.monotonic()
        try:
            with time_limit(seconds):
                fitted = fit()
        except UnfittedError as error:
            reasons[name] = str(error)
            continue
        took = round(time.monotonic() - began, 2)
        found = _measured(experiment, problem, judged, split, fitted.predict)
        about = fitted.about + (f"; fitted on {fitted.rows} of {total} rows" if fitted.rows < total else "")
        rungs[name] = {**as_json(len(judged), found), "seconds": took, "rows": fitted.rows, "about": about}
        predictors.append(fitted.predict)
    known = {name for rung in rungs.values() for part in ("metrics", "undefined") for name in rung[part]}
    numbers = {name.split("/")[1] for name in known}
    return {
        "n": len(judged), "rungs": rungs, "not_fitted": reasons,
        "better": _better(experiment, problem, judged, split, predictors[0]) if predictors else {},
        "left_out": [name for name in (*experiment.metrics, *experiment.tables) if name not in numbers],
    }  # fmt: skip


def _problem(reader: Reader, seconds: float) -> Problem:
    """Read what rungs are fitted on and chosen by."""
    experiment, kind = reader.experiment, kind_of(reader.shapes)
    if kind is None:
        raise ConfigError(
            f"config.objective: there is no baseline for its results, {', '.join(reader.shapes)}; expected those of "
            "classes, labels, numbers or tokens, or of a recommender the rank that config.generate finds"
        )
    numbers = sum(math.prod(x.shape) for x in experiment.data.example.values())
    train, seed = reader.read("train", _MOST_NUMBERS // max(1, numbers)), experiment.config.seed
    if "valid" in experiment.sources:
        valid = reader.read("valid")
    else:
        chosen = drawn(len(train), max(1, len(train) // 10), seed)
        train, valid = train.take(np.setdiff1d(np.arange(len(train)), chosen)), train.take(chosen)
    reads = reader.reads_logits
    return Problem(kind, reader.shapes, experiment.data, train, valid, seed, seconds, reads, experiment.generate)


def _measured(experiment: Experiment, problem: Problem, judged: Rows, split: str, predict: Predict) -> Measured:
    """Return the config's metrics of what a rung predicts, those that read what it has not left out."""
    table = _table(judged, predict)
    tables = {name: metric for name, metric in experiment.tables.items() if set(metric.reads) <= set(table)}
    tuned = {}
    if any(metric.tune is not None for metric in tables.values()):
        valid = table if split == "valid" else _table(problem.valid, predict)
        for name, metric in tables.items():
            with contextlib.suppress(UndefinedError):  # the metric itself says then that it was not tuned
                if metric.tune is not None:
                    tuned[name] = dict(metric.tune(valid))
    units = units_of(experiment.sources[split], table["id"])
    return measured(experiment.metrics, tables, table, split, units, tuned)


def _table(rows: Rows, predict: Predict) -> dict[str, np.ndarray]:
    return {**rows.fields, **rows.answers, **predict(rows)}


def _better(experiment: Experiment, problem: Problem, judged: Rows, split: str, constant: Predict) -> dict[str, str]:
    """Return whether a higher or a lower number is better, of each metric that tells the right answers from others.

    No metric says so: it shows in what the right answers have against what the lowest rung has. Of the metric that
    chooses checkpoints the config says it.
    """
    most = _COMPARED_TOKENS if problem.kind == TOKENS else _COMPARED
    some = judged.take(drawn(len(judged), most, problem.seed))
    best, low = (
        _measured(experiment, problem, some, split, predict).values
        for predict in (lambda rows: perfect(problem, rows), constant)
    )
    found = {name: "higher" if best[name] > low[name] else "lower" for name in best if best[name] != low.get(name)}
    found = {name: better for name, better in found.items() if name in low}
    chosen = experiment.config.train.best.replace("valid/", f"{split}/", 1)
    if chosen in low:
        found[chosen] = {"max": "higher", "min": "lower"}[experiment.config.train.best_mode]
    return found
