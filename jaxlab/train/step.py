"""The train step, pure and un-jitted.

Differentiate the sum of the loss, add gradients and statistics over microbatches and devices together, and divide
once by the total weight: then one device, many, and accumulated microbatches give the same step.
Shape letters: B examples, K microbatches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxlab.core import rng
from jaxlab.core.tree import replaced
from jaxlab.core.types import (
    Array,
    Batch,
    DeviceTransform,
    Metric,
    Objective,
    Outputs,
    PyTree,
    Statistics,
    TrainState,
    TrainStep,
)  # fmt: skip
from jaxlab.train.apply import Bound, Initialising
from jaxlab.train.non_finite import is_finite, left_out
from jaxlab.train.precision import compute_dtype

_AUGMENT = 2**31  # keys of the model's calls are folded in from 0 up, those of the augmentations from here

Sums = tuple[PyTree, Statistics, PyTree]  # gradient, statistics, model state
MakeSums = Callable[[PyTree, PyTree, Batch, Array], Sums]  # of parameters, model state, batch and key
Measured = tuple[Array, PyTree, Statistics, PyTree]  # mean loss, its gradient, statistics, model state


def init_state(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    seed: int | Array,
    ema: bool,
    values: Mapping[str, Array] = MappingProxyType({}),
    skip: bool = False,
) -> TrainState:
    """Return the state before the first step; `batch` gives shapes, its values do not matter.

    The objective calls the model, so that it alone decides with which fields. `values` stand in for random ones, by
    name in the model's variables (``params/Dense_0/kernel``).
    """
    apply = Initialising(model, seed)
    objective(apply, batch)
    variables = replaced({"params": {}, **apply.variables}, values)
    params = variables.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.array, params) if ema else None,
        skipped=jnp.zeros((), jnp.int32) if skip else None,
    )


def make_train_step(
    model: nn.Module,
    objective: Objective,
    metrics: Mapping[str, Metric],
    optimizer: optax.GradientTransformation,
    *,
    seed: int | Array,
    grad_accumulation: int = 1,
    precision: str = "float32",
    ema: float | None = None,
    grad_norm: bool = False,
    augment: Sequence[DeviceTransform] = (),
    batch_axis: str | None = None,
    skip: int | None = None,
) -> TrainStep:
    """Return the function from (state, batch) to (next state, statistics).

    Args:
      model: a Linen module that returns a mapping of per-example results.
      objective: what is minimised.
      metrics: additive statistics by name.
      optimizer: an optax transformation of the gradient of the weighted mean; one with extra arguments is offered
        the loss as well, as numbers and as functions of the parameters (see docs/optimisers.md).
      seed: of the random streams, with the step in the state; may be traced.
      grad_accumulation: microbatches K that the batch is scanned in; must divide B.
      precision: ``float32``, or ``bfloat16`` to compute in it with float32 parameters.
      ema: decay of the moving average of the parameters, or None for none.
      grad_norm: whether the statistics hold the gradient's Euclidean norm, a mean over steps.
      augment: transforms of each batch, or microbatch, before the objective sees it.
      batch_axis: the mapped axis to add over (pmap), or None where the batch is one array (jit).
      skip: how many steps in a row are left out where they are not finite; None applies every step as it comes.
    """
    sums = _make_sums(model, objective, metrics, compute_dtype(precision), augment)
    if grad_accumulation > 1:
        sums = _accumulated(sums, grad_accumulation)
    update = optax.with_extra_args_support(optimizer).update

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Statistics]:
        key = rng.key(seed, "train", state.step)
        if batch_axis is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(batch_axis))

        def measure(params: PyTree) -> Measured:
            return _mean(sums(params, state.model_state, batch, key), batch_axis)

        value, gradient, statistics, model_state = measure(state.params)
        extra = {"value": value, "grad": gradient, **_functions(measure)}
        updates, opt_state = update(gradient, state.opt_state, state.params, **extra)
        params = optax.apply_updates(state.params, updates)
        average = None if ema is None else jax.tree.map(lambda p, a: a + (1.0 - ema) * (p - a), params, state.ema)
        if grad_norm:
            statistics = {**statistics, "grad_norm": {"sum": optax.tree.norm(gradient), "weight": jnp.ones(())}}
        after = TrainState(state.step + 1, params, model_state, opt_state, average, state.skipped)
        if skip is None:
            return after, statistics
        return left_out(is_finite(value, gradient, updates), state, after, statistics, skip)

    return train_step


def _mean(sums: Sums, batch_axis: str | None) -> Measured:
    """Add up over devices and divide once, by the weight of the whole batch."""
    gradient, statistics, model_state = sums
    if batch_axis is not None:
        gradient, statistics = jax.lax.psum((gradient, statistics), batch_axis)
    weight = statistics["loss"]["weight"]
    divisor = jnp.where(weight > 0, weight, 1.0)
    gradient = jax.tree.map(lambda g: g / divisor, gradient)
    return statistics["loss"]["sum"] / divisor, gradient, statistics, model_state


def _functions(measure: Callable[[PyTree], Measured]) -> dict[str, Callable[..., PyTree]]:
    """Return the loss and its gradient as functions of the parameters, by the names that optax's updates ask for.

    They are of the whole batch, on every device alike, and of the step's own random numbers. Differentiating the sum
    over devices would count each device again, so that the loss carries its gradient with it.
    """

    @jax.custom_vjp
    def mean(params: PyTree) -> Array:
        return measure(params)[0]

    def backward(gradient: PyTree, cotangent: Array) -> tuple[PyTree]:
        return (jax.tree.map(lambda g: cotangent * g, gradient),)

    def gradient(params: PyTree, *_: Any) -> PyTree:
        return measure(params)[1]

    def loss(params: PyTree, obj_fn: Any = None, grad_fn: Any = None) -> Array:  # line searches pass on the others
        return mean(params)

    mean.defvjp(lambda params: measure(params)[:2], backward)
    return {"value_fn": loss, "obj_fn": loss, "grad_fn": gradient}


def _make_sums(
    model: nn.Module,
    objective: Objective,
    metrics: Mapping[str, Metric],
    dtype: jnp.dtype | None,
    augment: Sequence[DeviceTransform],
) -> MakeSums:
    """Return the function to the gradient of the summed loss, the statistics and the new model state."""

    def sums(params: PyTree, model_state: PyTree, padded: Batch, key: Array) -> Sums:
        batch = augmented(blank_padding(padded), augment, key)

        def loss(params: PyTree) -> tuple[Array, tuple[Statistics, PyTree]]:
            apply = Bound(model, params, model_state, key, dtype, train=True)
            total, weight, outputs, new_state = objective(apply, batch)
            return total, (statistics_of(metrics, outputs, batch, total, weight), new_state)

        gradient, (statistics, new_state) = jax.grad(loss, has_aux=True)(params)
        return gradient, statistics, new_state

    return sums


def _accumulated(sums: MakeSums, count: int) -> MakeSums:
    """Scan over microbatches of every K-th row, which keeps a sharded batch evenly spread over its devices."""

    def accumulated(params: PyTree, model_state: PyTree, batch: Batch, key: Array) -> Sums:
        micro_KB = microbatches(batch, count)

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


def statistics_of(
    metrics: Mapping[str, Metric], outputs: Outputs, batch: Batch, total: Array, weight: Array
) -> Statistics:
    """Return what a batch adds to each metric and to the loss."""
    updates = {name: metric.update(outputs, batch) for name, metric in metrics.items()}
    return {**updates, "loss": {"sum": total, "weight": weight}}


def blank_padding(batch: Batch) -> Batch:
    """Zero the padded rows: a weight of 0 hides what they hold from a sum, but the gradient of 0 * nan is nan."""
    mask = batch["mask"] > 0
    return {n: jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.zeros_like(x)) for n, x in batch.items()}


def augmented(batch: Batch, augment: Sequence[DeviceTransform], key: Array) -> Batch:
    """Return the batch as the transforms on the devices leave it, with the step's `key`."""
    for place, transform in enumerate(augment):
        batch = transform(batch, jax.random.fold_in(key, _AUGMENT + place))
    return batch


def microbatches(batch: Batch, count: int) -> Batch:
    """Return [count, B / count, ...]: each microbatch has every `count`-th row."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0), batch)
