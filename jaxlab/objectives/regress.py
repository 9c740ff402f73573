"""Regression of numbers: squared, absolute and Huber errors, quantiles, and a normal distribution's mean and variance.

Each is the mean over all numbers of all examples; numbers that `target_mask` says are missing take no part. Results,
beside the model's: ``target``, ``prediction`` (one number a target) and ``target_weight`` (0 where there is none), all
of the target's shape, so that metrics need not know which loss it was.
Shape letters: B batch, Q quantiles; a target is [B, ...], such as [B, H, C] for C series over a horizon of H steps.
Usage: ``config.objective = spec("jaxlab.objectives.regress:huber", inputs=("past", "future"), delta=1.0)``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxlab.core.types import Apply, Array, Batch, DataSpec, Loss, Objective, Outputs
from jaxlab.objectives.fields import (
    blank,
    check,
    check_inputs,
    check_positive,
    check_shapes,
    element_weights,
    result_of,
    weighted_sum,
)  # fmt: skip

INPUTS, TARGET, OUTPUT = ("past",), "target", "forecast"


def make(
    data: DataSpec,
    inputs: tuple[str, ...] = INPUTS,
    target: str = TARGET,
    output: str = OUTPUT,
    target_mask: str = "",
) -> Objective:
    """Return the objective of the squared error, whose best prediction is the mean.

    Args:
      data: has the fields.
      inputs: batch fields, passed to the model in this order.
      target: the batch field to predict [B, ...].
      output: the model's result of the same shape.
      target_mask: the batch field that is 1 where a target is there and 0 where it is missing, of the target's shape
        or its first axes; empty is none missing.

    Raises:
      ConfigError: a field that the data does not have.
    """
    return _of_differences(data, inputs, target, output, target_mask, jnp.square)


def absolute(
    data: DataSpec,
    inputs: tuple[str, ...] = INPUTS,
    target: str = TARGET,
    output: str = OUTPUT,
    target_mask: str = "",
) -> Objective:
    """Return the objective of the absolute error, whose best prediction is the median; arguments as in `make`."""
    return _of_differences(data, inputs, target, output, target_mask, jnp.abs)


def huber(
    data: DataSpec,
    inputs: tuple[str, ...] = INPUTS,
    target: str = TARGET,
    output: str = OUTPUT,
    target_mask: str = "",
    delta: float = 1.0,
) -> Objective:
    """Return the objective of Huber's error (1964, Annals of Mathematical Statistics 35): d²/2, beyond `delta` linear.

    Args as in `make`; `delta` is in the target's units, and an error d above it counts delta · (d - delta / 2).

    Raises:
      ConfigError: a field that the data does not have, or a `delta` that is not positive.
    """
    check_positive("delta", delta)

    def loss(difference: Array) -> Array:
        near = jnp.clip(difference, -delta, delta)
        return near * (difference - 0.5 * near)

    return _of_differences(data, inputs, target, output, target_mask, loss)


def quantile(
    data: DataSpec,
    inputs: tuple[str, ...] = INPUTS,
    target: str = TARGET,
    output: str = "quantiles",
    target_mask: str = "",
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
) -> Objective:
    """Return the objective of quantiles (Koenker & Bassett 1978, Econometrica 46): the mean of their pinball losses.

    For a quantile q, a target above the prediction costs q times the difference and one below it (1 - q) times. The
    ``prediction`` is the quantile nearest to the median.

    Args:
      data: has the fields.
      inputs: as in `make`.
      target: as in `make`.
      output: the model's result [B, ..., Q], of the target's shape and an axis of quantiles.
      target_mask: as in `make`.
      quantiles: Q shares between 0 and 1, rising.

    Raises:
      ConfigError: a field that the data does not have, or quantiles that are none, not between 0 and 1 or not rising.
    """
    rising = all(low < high for low, high in itertools.pairwise((0.0, *quantiles, 1.0)))
    check("quantiles", quantiles, bool(quantiles) and rising, "rising numbers between 0 and 1")
    q_Q = np.asarray(quantiles, np.float32)
    middle = int(np.argmin(np.abs(q_Q - 0.5)))

    def judge(outputs: Outputs, value: Array, weight: Array) -> tuple[Array, Array]:
        found = result_of(outputs, output)
        check_shapes(f"the model's {output}", found.shape, (*value.shape, len(quantiles)))
        found = blank(found, weight)
        above = value[..., None] - found
        return jnp.maximum(q_Q * above, (q_Q - 1) * above).mean(axis=-1), found[..., middle]

    return _objective(data, inputs, target, target_mask, judge)


def gaussian(
    data: DataSpec,
    inputs: tuple[str, ...] = INPUTS,
    target: str = TARGET,
    mean: str = "mean",
    log_variance: str = "log_variance",
    target_mask: str = "",
) -> Objective:
    """Return the objective of a normal distribution's -log density (Nix & Weigend 1994), log(2π) / 2 included, in nats.

    Args:
      data: has the fields.
      inputs: as in `make`.
      target: as in `make`.
      mean: the model's result of the target's shape, the ``prediction``.
      log_variance: the model's result of the target's shape, the log of the variance.
      target_mask: as in `make`.

    Raises:
      ConfigError: a field that the data does not have.
    """

    def judge(outputs: Outputs, value: Array, weight: Array) -> tuple[Array, Array]:
        mean_found, log_found = (_found(outputs, name, value, weight) for name in (mean, log_variance))
        squared = jnp.square(value - mean_found) * jnp.exp(-log_found)
        return 0.5 * (math.log(2 * math.pi) + log_found + squared), mean_found

    return _objective(data, inputs, target, target_mask, judge)


Judge = Callable[[Outputs, Array, Array], tuple[Array, Array]]  # of results, target and weight: loss and prediction


def _of_differences(
    data: DataSpec, inputs: tuple[str, ...], target: str, output: str, target_mask: str,
    loss: Callable[[Array], Array],
) -> Objective:  # fmt: skip
    def judge(outputs: Outputs, value: Array, weight: Array) -> tuple[Array, Array]:
        found = _found(outputs, output, value, weight)
        return loss(found - value), found

    return _objective(data, inputs, target, target_mask, judge)


def _found(outputs: Outputs, name: str, value: Array, weight: Array) -> Array:
    found = result_of(outputs, name)
    check_shapes(f"the model's {name}", found.shape, value.shape)
    return blank(found, weight)


def _objective(data: DataSpec, inputs: tuple[str, ...], target: str, target_mask: str, judge: Judge) -> Objective:
    check_inputs(data, inputs, target, *((target_mask,) if target_mask else ()))

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        value = batch[target].astype(jnp.float32)
        weight = element_weights(batch, value, target_mask)
        value = blank(value, weight)
        loss, prediction = judge(outputs, value, weight)
        results = {**outputs, "target": value, "prediction": prediction, "target_weight": weight}
        return Loss(weighted_sum(loss, weight), jnp.sum(weight), results, model_state)

    return objective
