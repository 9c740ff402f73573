"""From a config to the parts of a run: the only caller of `build`. Context flows down as arguments.

Usage: ``experiment = assemble(config)``; nothing here touches a device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxlab.core.config import build
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.tree import replaced
from jaxlab.core.types import (
    Array,
    Batch,
    DataSpec,
    DeviceTransform,
    EvalStep,
    Generate,
    Metric,
    Objective,
    Outputs,
    Periodic,
    Sink,
    Source,
    Statistics,
    TableMetric,
    TrainState,
    TrainStep,
    Transform,
)  # fmt: skip
from jaxlab.data.bucketing import Buckets
from jaxlab.data.fitting import Learnt, check_numeric, fit_all
from jaxlab.data.order import Weights
from jaxlab.data.pipeline import Batches, transformed_spec
from jaxlab.optim import evaluation
from jaxlab.run.batching import data_seed, make_buckets, precomputed, row_weights
from jaxlab.run.fields import explained
from jaxlab.run.metrics import check_reads, make_metrics
from jaxlab.run.optimizer import make_optimizer
from jaxlab.run.sources import SPLITS, check_sources, check_transformed, open_sources
from jaxlab.run.values import check_values
from jaxlab.train.across import writes
from jaxlab.train.eval_step import make_eval_step
from jaxlab.train.parallel import Strategy, make_strategy
from jaxlab.train.step import init_state, make_train_step


class Experiment(NamedTuple):
    """All that a config describes, built."""

    config: ConfigDict
    sources: Mapping[str, Source]
    rows: Mapping[str, Source]  # the sources as the first ``config.data.precomputed`` transforms leave them
    transforms: tuple[Transform, ...]
    learnt: tuple[Learnt | None, ...]
    augment: tuple[Transform, ...]
    device_augment: tuple[DeviceTransform, ...]
    weights: Weights | None
    buckets: Buckets | None
    data: DataSpec
    make_model: Callable[[str | None], nn.Module]
    objective: Objective
    metrics: Mapping[str, Metric]
    tables: Mapping[str, TableMetric]
    generate: Generate | None
    optimizer: optax.GradientTransformation

    def batches(self, split: str, batch_size: int | None = None, *, training: bool = False) -> Batches:
        """Return the batches of a split: in order and once, or with `training` shuffled, augmented and without end."""
        size = batch_size or self.config.train.batch_size
        transforms = self.transforms[self.config.data.precomputed :] + (self.augment if training else ())
        batches = Batches(
            self.rows[split], transforms, size, data_seed(self.config), training, process_rows(self.config, size)
        )
        return dataclasses.replace(batches, weights=self.weights, buckets=self.buckets) if training else batches

    def init(
        self, values: Mapping[str, np.ndarray] = MappingProxyType({}), seed: int | Array | None = None
    ) -> TrainState:
        """Return the state before the first step; `values` are as of `initial_values`, another `seed` may be traced."""
        model, batch = self.make_model(None), jax.tree.map(jnp.zeros_like, self.abstract_batch(rows=2))
        ema, skip = self.config.train.ema is not None, self.skip is not None
        seed = self.config.seed if seed is None else seed
        return init_state(model, self.objective, self.optimizer, batch, seed, ema, values, skip)

    def initial_values(self) -> Mapping[str, np.ndarray]:
        """Return the values that ``config.init`` begins from; they are read now, as a resumed run needs none."""
        if not self.config.init:
            return {}
        initialiser = build(self.config.init, path="config.init", data=self.data)
        state = jax.eval_shape(self.init)
        variables = {"params": state.params, **state.model_state}
        try:
            values = initialiser(variables)
            jax.eval_shape(replaced, variables, values)
        except (ConfigError, DataError) as error:
            raise type(error)(f"config.init: {error}") from error
        return values

    def train_step(self, batch_axis: str | None, seed: int | Array | None = None) -> TrainStep:
        """Return the step; `batch_axis` names the mapped axis under pmap, `seed` is as for `init`."""
        train = self.config.train
        return make_train_step(
            self.make_model(batch_axis), self.objective, self.metrics, self.optimizer,
            seed=self.config.seed if seed is None else seed,
            grad_accumulation=train.grad_accumulation, precision=train.precision, ema=train.ema,
            grad_norm=train.grad_norm, augment=self.device_augment, batch_axis=batch_axis, skip=self.skip,
        )  # fmt: skip

    @property
    def skip(self) -> int | None:
        """How many steps in a row may be left out where they are not finite; None where that is not the policy."""
        return self.config.train.non_finite_limit if self.config.train.non_finite == "skip" else None

    def eval_step(self, batch_axis: str | None, *, generate: bool = False) -> EvalStep:
        """Return the evaluation step, with what ``config.generate`` makes of the model where asked for."""
        model, precision = self.make_model(batch_axis), self.config.train.precision
        return make_eval_step(
            model, self.objective, self.metrics, precision=precision, batch_axis=batch_axis,
            parameters=evaluation.parameters, generate=self.generate if generate else None,
        )  # fmt: skip

    def abstract_batch(self, rows: int | None = None) -> Batch:
        """Return the shapes of a global batch."""
        size = rows or self.config.train.batch_size
        fields = {
            **self.data.example,
            "mask": jax.ShapeDtypeStruct((), np.float32),
            "id": jax.ShapeDtypeStruct((), np.int32),
        }
        return {name: jax.ShapeDtypeStruct((size, *x.shape), x.dtype) for name, x in fields.items()}

    def abstract_step(self) -> tuple[TrainState, Statistics]:
        """Return the shapes of a step's results: a whole step is checked without data or devices."""
        with explained("a step of config.model, config.objective and config.optimizer"):
            state, batch = jax.eval_shape(self.init), self.abstract_batch()
            shapes = jax.eval_shape(self.train_step(None), state, batch)
            if self.tables or self.generate is not None:
                check_reads(self.tables, self.abstract_results(state), {**self.fields, **batch})
        return shapes

    def abstract_results(self, state: TrainState) -> Outputs:
        """Return the shapes of what an evaluation stores of a batch, for the shapes of a state."""
        return jax.eval_shape(self.eval_step(None, generate=True), state, self.abstract_batch())[1]

    @property
    def fields(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        """The fields of the data, before transforms."""
        return next(iter(self.sources.values())).spec.example


def assemble(
    config: ConfigDict, splits: tuple[str, ...] = SPLITS, learnt: Sequence[Learnt | None] | None = None
) -> Experiment:
    """Return the experiment that `config` describes, with the sources of those `splits` that it has.

    Args:
      config: complete.
      splits: names; ``train`` has to be among them where transforms are to learn.
      learnt: what the transforms of the run have learnt before, by place; None lets them learn from ``train``.

    Raises:
      ConfigError: a value that cannot be used, naming its path.
      DataError: data that is not there.
    """
    check_values(config)
    sources = open_sources(config, splits)
    check_sources(sources, config)
    first = next(iter(sources.values()))
    facts = {"data": first.spec}
    fit = fit_all(build(config.data.transforms, path="config.data.transforms", **facts), first, learnt)
    augment = build(config.data.augment, path="config.data.augment", **facts)
    data = transformed_spec(first, fit.transforms)
    data = data._replace(meta={**data.meta, **fit.meta})
    check_numeric(data)
    check_transformed(sources, fit.transforms)
    device_augment = build(config.data.device_augment, path="config.data.device_augment", data=data)
    weights = row_weights(config, sources)
    context = {"data": data, "total_steps": config.train.steps}

    def make_model(batch_axis: str | None) -> nn.Module:
        return build(config.model, path="config.model", batch_axis=batch_axis, **context)

    objective = build(config.objective, path="config.objective", **context)
    metrics, tables = make_metrics(config, **context)
    generate = build(config.generate, path="config.generate", **context) or None
    optimizer = make_optimizer(config.optimizer, **context)
    rows = precomputed(config, sources, fit)
    return Experiment(
        config, sources, rows, fit.transforms, fit.learnt, augment, device_augment, weights,
        make_buckets(config, rows, fit, weights), data, make_model, objective,
        metrics, tables, generate, optimizer,
    )  # fmt: skip


def make_hooks(config: ConfigDict, **context: Any) -> list[Periodic]:
    """Return the hooks that the config names."""
    return list(build(config.hooks, path="config.hooks", **context).values())


def make_sinks(config: ConfigDict, workdir: Path, first_step: int) -> dict[str, Sink]:
    """Return the sinks that the config names, by name; only process 0 has any."""
    if not writes():
        return {}
    context = {"workdir": workdir, "first_step": first_step, "total_steps": config.train.steps}
    return build(config.sinks, path="config.sinks", **context)


def process_rows(config: ConfigDict, batch_size: int) -> slice:
    """Return which rows of a global batch this process reads."""
    return slice(None) if jax.process_count() == 1 else strategy_of(config, batch_size).rows(batch_size)


def strategy_of(config: ConfigDict, batch_size: int | None = None) -> Strategy:
    """Return the strategy of ``config.parallel`` over this machine's devices.

    Args:
      config: the run's.
      batch_size: global, where it is not ``config.train.batch_size`` in microbatches.

    Raises:
      ConfigError: it cannot be had here, or the batch does not split evenly.
    """
    parallel = config.parallel
    mesh, rules = parallel.mesh.to_dict(), parallel.rules
    strategy = make_strategy(parallel.strategy, mesh, jax.devices(), rules, parallel.offload)
    size, pieces = config.train.batch_size, config.train.grad_accumulation
    path = "config.train.batch_size"
    if batch_size is not None:
        size, pieces, path = batch_size, 1, "--batch_size"
    parts = strategy.batch_parts * pieces
    if size < 1 or size % parts:
        nearest = max(1, round(size / parts)) * parts
        raise ConfigError(
            f"{path}={size}: expected a multiple of {parts}, such as {nearest} ({strategy.batch_parts} devices"
            f"{f', config.train.grad_accumulation={pieces}' if pieces > 1 else ''})"
        )
    return strategy
