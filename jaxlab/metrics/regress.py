"""Additive metrics of numbers, exact for any batch size and number of devices: means over all numbers that are there.

Each reads ``prediction``, ``target`` and ``target_weight`` [B, ...] of `jaxlab.objectives.regress`.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from jaxlab.core.types import Array, Batch, Metric, Outputs, PyTree
from jaxlab.metrics.sums import mean, weighted_sum


def mse() -> Metric:
    """Return the mean squared error, in the target's units squared."""
    return Metric(_squares, mean)


def rmse() -> Metric:
    """Return the root of the mean squared error, in the target's units."""
    return Metric(_squares, lambda statistics: math.sqrt(mean(statistics)))


def mae() -> Metric:
    """Return the mean absolute error, in the target's units."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        return weighted_sum(jnp.abs(outputs["prediction"] - outputs["target"]), _weight(outputs, batch))

    return Metric(update, mean)


def _squares(outputs: Outputs, batch: Batch) -> PyTree:
    return weighted_sum(jnp.square(outputs["prediction"] - outputs["target"]), _weight(outputs, batch))


def _weight(outputs: Outputs, batch: Batch) -> Array:
    """Return weights [B, ...], 0 in padded rows whatever they hold."""
    weight = outputs["target_weight"]
    mask = batch["mask"].reshape(-1, *(1,) * (weight.ndim - 1))
    return jnp.where(mask > 0, weight * mask, 0.0)
