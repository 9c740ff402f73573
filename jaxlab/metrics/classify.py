"""Additive metrics of classification, exact for any batch size and number of devices.

Each reads the outputs of `jaxlab.objectives.classify`. Shape letters: B batch, C classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlab.core.types import Batch, Metric, Outputs, PyTree
from jaxlab.metrics.sums import mean, weighted_sum


def accuracy() -> Metric:
    """Return the share of examples whose ``prediction`` is their ``target``."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        return weighted_sum((outputs["prediction"] == outputs["target"]).astype(jnp.float32), batch["mask"])

    return Metric(update, mean)


def cross_entropy() -> Metric:
    """Return the mean of -log p(target) in nats, without smoothing or class weights."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        log_BC = jax.nn.log_softmax(outputs["logits"])
        picked_B = jnp.take_along_axis(log_BC, outputs["target"][:, None], axis=-1)[:, 0]
        return weighted_sum(-picked_B, batch["mask"])

    return Metric(update, mean)
