"""Additive metrics of tokens, exact for any batch size and number of devices: means over tokens, not over rows.

Each reads the outputs of `jaxlab.objectives.language` or `jaxlab.objectives.seq2seq`. Shape letters: B batch, T tokens.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from jaxlab.core.types import Array, Batch, Metric, Outputs, PyTree
from jaxlab.metrics.sums import mean, weighted_sum


def token_accuracy() -> Metric:
    """Return the share of tokens to predict whose ``prediction`` is their ``target``."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        right_BT = (outputs["prediction"] == outputs["target"]).astype(jnp.float32)
        return weighted_sum(right_BT, _weight(outputs, batch))

    return Metric(update, mean)


def cross_entropy() -> Metric:
    """Return the mean of -log p(token) in nats, without smoothing or z-loss."""
    return Metric(_cross_entropy, mean)


def perplexity() -> Metric:
    """Return e to the mean of -log p(token)."""

    def compute(statistics: PyTree) -> float:
        value = mean(statistics)
        return math.exp(value) if value < 700 else value * math.inf  # beyond what a double holds; nan stays nan

    return Metric(_cross_entropy, compute)


def _cross_entropy(outputs: Outputs, batch: Batch) -> PyTree:
    return weighted_sum(outputs["token_loss"], _weight(outputs, batch))


def _weight(outputs: Outputs, batch: Batch) -> Array:
    """Return weights [B, T], 0 in padded rows whatever they hold."""
    mask_B1 = batch["mask"][:, None]
    return jnp.where(mask_B1 > 0, outputs["token_weight"] * mask_B1, 0.0)
