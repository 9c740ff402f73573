"""The ``evaluate`` command: checkpoints on a whole split, with the prediction store, metrics and pictures."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import DataError, UndefinedError
from jaxlab.core.paths import folder_of
from jaxlab.core.types import Statistics, Table, TableMetric, TrainState
from jaxlab.metrics import text
from jaxlab.run import draw
from jaxlab.run.baseline import beside
from jaxlab.run.evaluator import Evaluator, open_evaluator
from jaxlab.run.host_memory import keep_freed_memory
from jaxlab.run.measured import Tuned, check_same, measured
from jaxlab.run.peers import Alone, together
from jaxlab.run.slices import as_json, by_column
from jaxlab.run.stopping import Stop
from jaxlab.run.store import write_store
from jaxlab.run.units import units_of
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.evaluate import summarise

EVALUATION = "evaluation.json"


def evaluate(
    workdir: str | os.PathLike[str],
    split: str = "test",
    step: str = "best",
    batch_size: int | None = None,
    parameters: str = "",
    by: Sequence[str] = (),
    plots: bool = True,
) -> dict[str, Any]:
    """Measure a checkpoint of a run on a split; write the prediction store, ``evaluation.json`` and plots.

    ``reads`` in the result: how often evaluations of this run have read the split's labels. Of ``test``, once is best.

    Args:
      workdir: the run's directory.
      split: train, valid or test; train is measured unshuffled and not augmented.
      step: best, latest or a number; best is chosen on the validation split.
      batch_size: examples a batch, the run's own if None; it does not change the result.
      parameters: raw, ema, optimizer or average; empty for what the run means to be used.
      by: columns of the data whose values tell parts of the split apart, each of which is measured too.
      plots: whether to draw, which takes some seconds.

    Raises:
      DataError: no run, no such checkpoint, column or data; stored predictions that give other numbers.
      ConfigError: the config has no such split, or a metric does not fit.
      UsageError: no such parameters.
    """
    return evaluate_each(workdir, split, (step,), batch_size, (parameters,), by, plots)[0]


def evaluate_each(
    workdir: str | os.PathLike[str],
    split: str = "test",
    steps: Sequence[str] = ("best",),
    batch_size: int | None = None,
    parameters: Sequence[str] = ("",),
    by: Sequence[str] = (),
    plots: bool = True,
) -> list[dict[str, Any]]:
    """Return what `evaluate` does for each of several steps (``all``: every saved one) and kinds of parameters."""
    keep_freed_memory()
    with together(Stop()) as peers:
        evaluator = open_evaluator(folder_of(workdir), (split,), batch_size)
        with evaluator.checkpoints() as checkpoints:
            named = [str(step) for step in checkpoints.steps()] if tuple(steps) == ("all",) else steps
            wanted = dict.fromkeys(checkpoints.resolve(step) for step in named)
            if not wanted:
                raise DataError(f"{evaluator.folder} holds no checkpoint")
            arguments = (evaluator, checkpoints, peers, split)
            return [_one(*arguments, step, kind, by, plots) for step in wanted for kind in parameters]


def watch(
    workdir: str | os.PathLike[str],
    split: str = "valid",
    batch_size: int | None = None,
    parameters: Sequence[str] = ("",),
    by: Sequence[str] = (),
    plots: bool = True,
    wait: float = 5.0,
) -> Iterator[dict[str, Any]]:
    """Yield the evaluation of each checkpoint as a run writes it, until the run has finished.

    A checkpoint that the run replaces before it was read is passed over.

    Args:
      workdir: of a run that another process trains.
      split: as in `evaluate`.
      batch_size: as in `evaluate`.
      parameters: as in `evaluate_each`.
      by: as in `evaluate`.
      plots: as in `evaluate`.
      wait: seconds from one look to the next.
    """
    keep_freed_memory()
    with together(Stop()) as peers:
        yield from _watched(peers, folder_of(workdir), split, batch_size, parameters, by, plots, wait)


def _watched(
    peers: Alone,
    folder: Path,
    split: str,
    batch_size: int | None,
    parameters: Sequence[str],
    by: Sequence[str],
    plots: bool,
    wait: float,
) -> Iterator[dict[str, Any]]:
    evaluator, seen = open_evaluator(folder, (split,), batch_size), set[int]()
    while True:
        finished = peers.told((folder / record.SUMMARY).exists)  # before the steps, so that the last one is not missed
        with evaluator.checkpoints() as checkpoints:
            fresh = [step for step in peers.told(checkpoints.steps) if step not in seen]
            for step in fresh:
                seen.add(step)
                for kind in parameters:
                    if step in peers.told(checkpoints.steps):
                        yield _one(evaluator, checkpoints, peers, split, step, kind, by, plots)
        if finished and not fresh:
            return
        if not fresh:
            time.sleep(wait)


def _one(
    evaluator: Evaluator,
    checkpoints: Checkpoints,
    peers: Alone,
    split: str,
    step: int,
    kind: str,
    by: Sequence[str],
    plots: bool,
) -> dict[str, Any]:
    """Measure one checkpoint and write what was found; process 0 does what needs no devices."""
    state, parameters = evaluator.restore(checkpoints, step, kind)
    statistics, table = evaluator.predict(split, state)
    tuned = _tuned(evaluator, split, state, table)
    at = f"{step}-{kind}" if kind else str(step)
    facts = {"split": split, "step": step, "parameters": parameters, "tuned": tuned}
    return peers.told(lambda: _measured(evaluator, statistics, table, at, facts, by, plots))


def _measured(
    evaluator: Evaluator,
    statistics: Statistics,
    table: Table,
    at: str,
    facts: Mapping[str, Any],
    by: Sequence[str],
    plots: bool,
) -> dict[str, Any]:
    """Return the numbers that the results of a checkpoint amount to, and write them and the results."""
    folder, experiment = evaluator.folder, evaluator.experiment
    split, tuned = facts["split"], facts["tuned"]
    units = units_of(experiment.sources[split], table["id"])
    found = measured(experiment.metrics, experiment.tables, table, split, units, tuned)
    first = summarise(statistics, experiment.metrics, split)
    check_same(first, {name: value for name, value in found.values.items() if name in first})
    metrics = {**found.values, **{name: value for name, value in first.items() if name not in found.undefined}}
    store = write_store(folder, split, at, table)
    evaluations = record.read_json(folder / EVALUATION)
    result = {
        **facts, **as_json(len(table["id"]), found), "metrics": metrics,
        "reads": 1 + max((entry["reads"] for entry in evaluations.values() if entry["split"] == split), default=0),
        "signatures": _signatures(experiment.tables),
        "predictions": str(store.relative_to(folder)),
        "by": {column: by_column(experiment, split, column, table, units, tuned) for column in by},
    }  # fmt: skip
    result["beside"] = beside(folder, split, metrics, result["intervals"])
    record.write_json(folder / EVALUATION, {**evaluations, f"{split}-{at}": result})
    drawn = []
    if plots:
        examples = experiment.sources[split].__getitems__
        drawn = [draw.learning_curve(folder)[1]]
        drawn += draw.evaluation(folder, split, at, table, experiment.data.meta, examples)
    return {"workdir": str(folder), **result, "plots": [str(path.relative_to(folder)) for path in drawn]}


def _tuned(evaluator: Evaluator, split: str, state: TrainState, table: Table) -> Tuned:
    """Return what metrics take from the validation split; nothing where there is none."""
    tuning = {name: metric.tune for name, metric in evaluator.experiment.tables.items() if metric.tune is not None}
    if not tuning or "valid" not in evaluator.experiment.config.data:
        return {}
    if split != "valid":
        _, table = evaluator.validation.predict("valid", state)
    found = {}
    for name, tune in tuning.items():
        with contextlib.suppress(UndefinedError):  # the metric itself says then that it was not tuned
            found[name] = dict(tune(table))
    return found


def _signatures(tables: Mapping[str, TableMetric]) -> dict[str, str]:
    """Return how scores of texts were computed, in the form that papers cite."""
    return {name: signature for name, metric in tables.items() if (signature := text.signature(metric))}
