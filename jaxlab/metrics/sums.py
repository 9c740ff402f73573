"""Sums that padding cannot enter, and their quotient: what means over examples, tokens or numbers are made of.

Usage: ``Metric(lambda outputs, batch: weighted_sum(outputs["score"], batch["mask"]), mean)``.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxlab.core.types import Array, PyTree


def weighted_sum(value: Array, weight: Array) -> PyTree:
    """Return the sums of ``weight * value``, whatever the value is where the weight is 0, and of the weight."""
    return {"sum": jnp.sum(jnp.where(weight > 0, value * weight, 0.0)), "weight": jnp.sum(weight)}


def mean(statistics: PyTree) -> float:
    """Return the weighted mean; nan where nothing had a weight."""
    return quotient(statistics["sum"], statistics["weight"])


def quotient(total: float | Array, weight: float | Array) -> float:
    """Return `total` over `weight`; nan where the weight is 0."""
    return float(total) / float(weight) if weight else float("nan")
