"""The train step and the evaluation step, pure and un-jitted.

Differentiate the sum of the loss, add gradients and statistics over microbatches and devices together, and divide
once by the total weight: then one device, many, and accumulated microbatches give the same step.
Shape letters: B examples, K microbatches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxlab.core import rng
from jaxlab.core.types import (
    Array,
    Batch,
    DeviceTransform,
    EvalStep,
    Metric,
    Objective,
    Outputs,
    PyTree,
    Statistics,
    TrainState,
    TrainStep,
)  # fmt: skip
from jaxlab.train.apply import Bound, Initialising
from jaxlab.train.precision import compute_dtype

_AUGMENT = 2**31  # keys of the model's calls are folded in from 0 up, those of the augmentations from here

Sums = tuple[PyTree, Statistics, PyTree]  # gradient, statistics, model state
MakeSums = Callable[[PyTree, PyTree, Batch, Array], Sums]  # of parameters, model state, batch and key


def init_state(
    model: nn.Module, objective: Objective, optimizer: optax.GradientTransformation, batch: Batch, seed: int, ema: bool
) -> TrainState:
    """Return the state before the first step; `batch` gives shapes, its values do not matter.

    The objective calls the model, so that it alone decides with which fields.
    """
    apply = Initialising(model, seed)
    objective(apply, batch)
    params = apply.params
    model_state = {name: tree for name, tree in apply.variables.items() if name != "params"}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.array, params) if ema else None,
    )


def make_train_step(
    model: nn.Module,
    objective: Objective,
    metrics: Mapping[str, Metric],
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    grad_accumulation: int = 1,
    precision: str = "float32",
    ema: float | None = None,
    grad_norm: bool = False,
    augment: Sequence[DeviceTransform] = (),
    batch_axis: str | None = None,
) -> TrainStep:
    """Return the function from (state, batch) to (next state, statistics).

    Args:
      model: a Linen module that returns a mapping of per-example results.
      objective: what is minimised.
      metrics: additive statistics by name.
      optimizer: an optax transformation of the gradient of the weighted mean.
      seed: of the random streams, with the step in the state.
      grad_accumulation: microbatches K that the batch is scanned in; must divide B.
      precision: ``float32``, or ``bfloat16`` to compute in it with float32 parameters.
      ema: decay of the moving average of the parameters, or None for none.
      grad_norm: whether the statistics hold the gradient's Euclidean norm, a mean over steps.
      augment: transforms of each batch, or microbatch, before the objective sees it.
      batch_axis: the mapped axis to add over (pmap), or None where the batch is one array (jit).
    """
    sums = _make_sums(model, objective, metrics, compute_dtype(precision), augment)
    if grad_accumulation > 1:
        sums = _accumulated(sums, grad_accumulation)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Statistics]:
        key = rng.key(seed, "train", state.step)
        if batch_axis is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(batch_axis))
        gradient, statistics, model_state = sums(state.params, state.model_state, batch, key)
        if batch_axis is not None:
            gradient, statistics = jax.lax.psum((gradient, statistics), batch_axis)
        weight = statistics["loss"]["weight"]
        gradient = jax.tree.map(lambda g: g / jnp.where(weight > 0, weight, 1.0), gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = None if ema is None else optax.incremental_update(params, state.ema, 1.0 - ema)
        if grad_norm:
            statistics = {**statistics, "grad_norm": {"sum": optax.tree.norm(gradient), "weight": jnp.ones(())}}
        state = TrainState(
            step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state, ema=average
        )
        return state, statistics

    return train_step


def _make_sums(
    model: nn.Module,
    objective: Objective,
    metrics: Mapping[str, Metric],
    dtype: jnp.dtype | None,
    augment: Sequence[DeviceTransform],
) -> MakeSums:
    """Return the function to the gradient of the summed loss, the statistics and the new model state."""

    def sums(params: PyTree, model_state: PyTree, padded: Batch, key: Array) -> Sums:
        batch = _blank_padding(padded)
        for place, transform in enumerate(augment):
            batch = transform(batch, jax.random.fold_in(key, _AUGMENT + place))

        def loss(params: PyTree) -> tuple[Array, tuple[Statistics, PyTree]]:
            apply = Bound(model, params, model_state, key, dtype, train=True)
            total, weight, outputs, new_state = objective(apply, batch)
            return total, (_statistics(metrics, outputs, batch, total, weight), new_state)

        gradient, (statistics, new_state) = jax.grad(loss, has_aux=True)(params)
        return gradient, statistics, new_state

    return sums


def _accumulated(sums: MakeSums, count: int) -> MakeSums:
    """Scan over microbatches of every K-th row, which keeps a sharded batch evenly spread over its devices."""

    def accumulated(params: PyTree, model_state: PyTree, batch: Batch, key: Array) -> Sums:
        micro_KB = jax.tree.map(lambda x: _every_kth_row(x, count), batch)

        def body(carry: Sums, item: tuple[Batch, Array]) -> tuple[Sums, None]:
            gradient, statistics, state = carry
            more_gradient, more_statistics, state = sums(params, state, *item)
            added = jax.tree.map(jnp.add, (gradient, statistics), (more_gradient, more_statistics))
            return (*added, state), None

        first = jax.tree.map(lambda x: x[0], micro_KB)
        shapes = jax.eval_shape(sums, params, model_state, first, key)[:2]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(body, (*zeros, model_state), (micro_KB, jax.random.split(key, count)))[0]

    return accumulated


def make_eval_step(
    model: nn.Module,
    objective: Objective,
    metrics: Mapping[str, Metric],
    *,
    precision: str = "float32",
    batch_axis: str | None = None,
) -> EvalStep:
    """Return the function from (state, batch) to (statistics, per-example outputs), of the average if there is one."""
    dtype = compute_dtype(precision)

    def eval_step(state: TrainState, batch: Batch) -> tuple[Statistics, Outputs]:
        params = state.params if state.ema is None else state.ema
        batch = _blank_padding(batch)
        apply = Bound(model, params, state.model_state, None, dtype, train=False)
        total, weight, outputs, _ = objective(apply, batch)
        statistics = _statistics(metrics, outputs, batch, total, weight)
        return (statistics if batch_axis is None else jax.lax.psum(statistics, batch_axis)), outputs

    return eval_step


def _statistics(
    metrics: Mapping[str, Metric], outputs: Outputs, batch: Batch, total: Array, weight: Array
) -> Statistics:
    updates = {name: metric.update(outputs, batch) for name, metric in metrics.items()}
    return {**updates, "loss": {"sum": total, "weight": weight}}


def _blank_padding(batch: Batch) -> Batch:
    """Zero the padded rows: a weight of 0 hides what they hold from a sum, but the gradient of 0 * nan is nan."""
    mask = batch["mask"] > 0
    return {n: jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.zeros_like(x)) for n, x in batch.items()}


def _every_kth_row(x: Array, count: int) -> Array:
    return jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0)
