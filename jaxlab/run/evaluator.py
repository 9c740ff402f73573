"""What measures checkpoints of one run: built and compiled once, for any number of steps, splits and parameters.

Knows no file but the checkpoints. Usage: ``evaluator = open_evaluator(folder, ("test",))``;
``statistics, table = evaluator.predict("test", evaluator.restore(400, "raw"))``.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.errors import ConfigError, UsageError, did_you_mean
from jaxlab.core.mesh import AXES, DATA
from jaxlab.core.types import Batch, EvalStep, HostBatch, Outputs, PyTree, Statistics, Table, TrainState
from jaxlab.data.feeding import prefetch
from jaxlab.data.table_columns import read
from jaxlab.optim import evaluation
from jaxlab.run.assemble import SPLITS, Experiment, assemble, strategy_of
from jaxlab.run.metrics import fields_read, result_is_read
from jaxlab.run.processes import joined
from jaxlab.run.restore import restore
from jaxlab.run.units import GROUP, START, TIME
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.evaluate import predict
from jaxlab.train.parallel import Measure, Strategy, measure, mesh_sizes

_log = logging.getLogger("jaxlab")
KINDS = ("raw", "ema", "optimizer", "average")
"""Parameters: as trained, their moving average, the optimizer's own point, the mean over all saved checkpoints."""


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """A run's experiment, placed and compiled."""

    folder: Path
    experiment: Experiment
    strategy: Strategy
    batch_size: int | None
    measure: Measure
    shapes: tuple[TrainState, Statistics]
    fields: frozenset[str]  # of the data, that are stored beside the results

    @functools.cached_property
    def validation(self) -> Evaluator:
        """The evaluator of the run's validation split, on which metrics are tuned: made once for all checkpoints."""
        return open_evaluator(self.folder, ("valid",), self.batch_size)

    def checkpoints(self) -> Checkpoints:
        """Return the run's checkpoints, to be read."""
        train = self.experiment.config.train
        folder = self.folder / record.CHECKPOINTS
        return Checkpoints(folder, keep=train.keep, best=train.best, mode=train.best_mode, writable=False)

    def restore(self, checkpoints: Checkpoints, step: int, kind: str) -> tuple[TrainState, str]:
        """Return the state of a step with the parameters of a kind as its ``ema``, and the kind's name.

        Args:
          checkpoints: the run's.
          step: a saved one; its statistics of normalisation are used whatever the kind.
          kind: one of `KINDS`, or empty for what the run means to be used.

        Raises:
          UsageError: no such kind, or the run does not keep it.
        """
        state = restore(checkpoints, step, self.shapes, self.strategy)["state"]
        own = evaluation.kind_of(state)
        if kind not in ("", "raw", "average", own):
            known = [own, *(name for name in ("raw", "average") if name != own)]
            raise UsageError(f"--parameters={kind}: this run has {', '.join(known)}{did_you_mean(kind, known)}")
        if kind == "average":
            return state.replace(ema=self._average(checkpoints)), kind
        chosen = state.params if kind == "raw" else evaluation.parameters(state)
        return state.replace(ema=chosen), kind or own

    def _average(self, checkpoints: Checkpoints) -> PyTree:
        """Return the mean of the parameters of all checkpoints (Izmailov et al. 2018, arXiv 1803.05407)."""
        total, steps = None, checkpoints.steps()
        for step in steps:
            params = evaluation.parameters(restore(checkpoints, step, self.shapes, self.strategy)["state"])
            total = params if total is None else jax.tree.map(jnp.add, total, params)
        return jax.tree.map(lambda x: x / len(steps), total)

    def predict(self, split: str, state: TrainState) -> tuple[Statistics, Table]:
        """Return the sums over a split, and the table of its examples' results and stored fields."""
        statistics, table = predict(state, self._batches(split), self.measure, self.strategy, self.fields)
        source = self.experiment.sources[split]
        lacking = [name for name in sorted(self.fields) if name not in table and name in source.spec.example]
        columns = read(source, lacking) if lacking and len(table["id"]) else {}
        return statistics, {**table, **{name: values[table["id"]] for name, values in columns.items()}}

    def _batches(self, split: str) -> Iterator[tuple[HostBatch, PyTree]]:
        batches = self.experiment.batches(split, self.batch_size, training=False)

        def pair(number: int) -> tuple[HostBatch, PyTree]:
            host = batches.chunk(number, 1)
            return host, self.strategy.put_chunk(host)

        return prefetch(pair(number) for number in range(len(batches)))


def open_evaluator(folder: Path, splits: tuple[str, ...], batch_size: int | None = None) -> Evaluator:
    """Return the evaluator of a run's splits.

    Raises:
      DataError: no run, or no data.
      UsageError: its config names code of a package that is not allowed.
      ConfigError: the config has no such split, or a metric reads what neither results nor data have.
    """
    config = record.trusted_config(folder)
    available = [name for name in SPLITS if name in config.data]
    for split in splits:
        if split not in available:
            raise ConfigError(f"--split={split}: config.data has no such split{did_you_mean(split, available)}")
    config = _on_these_devices(config)
    experiment = assemble(config, splits, record.read_learnt(folder))
    strategy = strategy_of(config, config.train.batch_size if batch_size is None else batch_size)
    shapes = experiment.abstract_step()
    step = _without(experiment.eval_step(strategy.batch_axis, generate=True), unread_results(experiment, shapes[0]))
    fields = stored_fields(experiment, shapes[0])
    if joined():
        step = _with_fields(step, frozenset({"id", "mask"}) | fields)
    return Evaluator(
        folder, experiment, strategy, batch_size, strategy.compile(measure(step), donate=False), shapes, fields
    )


def _on_these_devices(config: ConfigDict) -> ConfigDict:
    """Return the config with a mesh that can be had here: a run on many devices is measured on a laptop as well."""
    try:
        mesh_sizes(config.parallel.mesh.to_dict(), jax.device_count())
    except ConfigError as error:
        _log.info("%s; all %d devices split the batch instead", error, jax.device_count())
        config = config.copy_and_resolve_references()
        with config.unlocked():
            config.parallel.mesh = {axis: -1 if axis == DATA else 1 for axis in AXES}
            config.parallel.offload = ""
    return config


def unread_results(experiment: Experiment, state: TrainState) -> frozenset[str]:
    """Return the results that are not stored: the logits of tokens [B, T, V], which are large, if no metric reads them.

    Their loss and the likeliest token are results of their own, and pictures read no such logits.
    """
    outputs = experiment.abstract_results(state)
    if "token_loss" not in outputs or "logits" not in outputs:
        return frozenset()
    batch = experiment.abstract_batch()
    read = result_is_read("logits", experiment.metrics, experiment.tables, outputs, batch)
    return frozenset() if read else frozenset(["logits"])


def _without(step: EvalStep, names: frozenset[str]) -> EvalStep:
    """Return the step without some of its results."""

    def fewer(state: TrainState, batch: Batch) -> tuple[Statistics, Outputs]:
        statistics, outputs = step(state, batch)
        return statistics, {name: value for name, value in outputs.items() if name not in names}

    return fewer


def _with_fields(step: EvalStep, names: frozenset[str]) -> EvalStep:
    """Return the step with fields of its batch as results, so that they are gathered from all processes."""

    def more(state: TrainState, batch: Batch) -> tuple[Statistics, Outputs]:
        statistics, outputs = step(state, batch)
        return statistics, {**{name: value for name, value in batch.items() if name in names}, **outputs}

    return more


def stored_fields(experiment: Experiment, state: TrainState) -> frozenset[str]:
    """Return the data's fields to store: those that metrics read, and those that say what depends on what."""
    outputs = experiment.abstract_results(state)
    wanted = fields_read(experiment.metrics, outputs, experiment.abstract_batch())
    wanted |= {column for metric in experiment.tables.values() for column in metric.reads}
    wanted |= {name for name in (GROUP, START, TIME) if name in experiment.fields and not experiment.fields[name].shape}
    return frozenset(wanted - set(outputs) - {"id"})
