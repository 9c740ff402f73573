"""From stored results to what each example adds to an additive metric's sums, a user's own metric's too.

Shape letters: N examples, S sums.
Usage: ``sums = per_example(metric, table)``; ``metric.compute(sums.tree(sums.rows.sum(axis=0)))``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Metric, PyTree, Table

_CHUNK = 4096  # examples at once


class Sums(NamedTuple):
    """What each example adds to a metric's statistics, as a row of numbers."""

    rows: np.ndarray  # [N, S]
    tree: Callable[[np.ndarray], PyTree]  # from such numbers [S] to the statistics

    @property
    def successes(self) -> np.ndarray | None:
        """Which examples succeed [N], 0 or 1, where each has the weight 1 and does or does not; None of other sums."""
        places = self.tree(np.arange(self.rows.shape[1], dtype=np.float64))
        if not isinstance(places, Mapping) or set(places) != {"sum", "weight"} or self.rows.shape[1] != 2:
            return None
        sum_N, weight_N = (self.rows[:, int(places[name])] for name in ("sum", "weight"))
        return sum_N if (weight_N == 1).all() and np.isin(sum_N, (0, 1)).all() else None


def per_example(metric: Metric, table: Table) -> Sums | None:
    """Return what each row of `table` adds to the metric; None where it reads what the table does not have."""
    outputs = {name: value for name, value in table.items() if value.dtype.kind not in "OSUMm"}  # texts and times

    def one(row: Mapping[str, jax.Array]) -> PyTree:
        results = {name: value[None] for name, value in row.items()}
        return metric.update(results, {**results, "mask": jnp.ones(1)})

    row = {name: np.zeros(value.shape[1:], value.dtype) for name, value in outputs.items()}
    try:
        shapes = jax.eval_shape(one, row)
    except (KeyError, ConfigError):
        return None
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    compiled = jax.jit(jax.vmap(lambda row: ravel_pytree(one(row))[0]))
    count = len(table["id"])
    rows = [
        np.asarray(compiled({name: value[start : start + _CHUNK] for name, value in outputs.items()}), np.float64)
        for start in range(0, count, _CHUNK)
    ]
    return Sums(np.concatenate(rows) if rows else np.zeros((0, size)), _unravel(shapes))


def _unravel(shapes: PyTree) -> Callable[[np.ndarray], PyTree]:
    """Return the way back from numbers in the order of the leaves, in float64, which JAX's own would round."""
    leaves, structure = jax.tree.flatten(shapes)
    ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])

    def tree(flat_S: np.ndarray) -> PyTree:
        parts = np.split(flat_S, ends[:-1])
        return structure.unflatten([part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])

    return tree
