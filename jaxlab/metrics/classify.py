"""Additive metrics of classification, exact for any batch size and number of devices.

Each reads the outputs of `jaxlab.objectives.classify`. Shape letters: B batch, C classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlab.core.types import Batch, Metric, Outputs, PyTree


def accuracy() -> Metric:
    """Return the share of examples whose ``prediction`` is their ``target``."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        return _weighted_sum((outputs["prediction"] == outputs["target"]).astype(jnp.float32), batch["mask"])

    return Metric(update, _mean)


def cross_entropy() -> Metric:
    """Return the mean of -log p(target) in nats, without smoothing or class weights."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        log_BC = jax.nn.log_softmax(outputs["logits"])
        picked_B = jnp.take_along_axis(log_BC, outputs["target"][:, None], axis=-1)[:, 0]
        return _weighted_sum(-picked_B, batch["mask"])

    return Metric(update, _mean)


def _weighted_sum(value_B: jax.Array, mask_B: jax.Array) -> PyTree:
    return {"sum": jnp.sum(jnp.where(mask_B > 0, value_B * mask_B, 0.0)), "weight": jnp.sum(mask_B)}


def _mean(statistics: PyTree) -> float:
    weight = float(statistics["weight"])
    return float(statistics["sum"]) / weight if weight else float("nan")
