"""From stored outputs to intervals: what each example adds to a metric's sums, drawn again with replacement.

Whatever is additive has an interval so, a user's own metric too; the same sums check the evaluation's numbers.
Shape letters: N examples, S sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxlab.core.errors import DataError
from jaxlab.core.types import Interval, Metric, PyTree
from jaxlab.metrics.intervals import bootstrap_each, wilson
from jaxlab.train.evaluate import named

_CHUNK = 4096  # examples at once
_TOLERANCE = 1e-4  # relative, between sums of float32 in another order


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


def per_example(metric: Metric, table: Mapping[str, np.ndarray]) -> Sums | None:
    """Return what each row of `table` adds to the metric; None where it reads fields that the table does not have."""
    outputs = {name: value for name, value in table.items() if value.dtype.kind not in "OSUMm"}  # texts and times

    def one(row: Mapping[str, jax.Array]) -> PyTree:
        return metric.update({name: value[None] for name, value in row.items()}, {"mask": jnp.ones(1)})

    row = {name: np.zeros(value.shape[1:], value.dtype) for name, value in outputs.items()}
    try:
        shapes = jax.eval_shape(one, row)
    except KeyError:
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


def intervals(
    metrics: Mapping[str, Metric], table: Mapping[str, np.ndarray], split: str, measured: Mapping[str, float]
) -> dict[str, Interval]:
    """Return by ``split/name`` the interval of each metric that the stored outputs suffice for.

    Args:
      metrics: additive ones.
      table: the outputs of real examples, each [N, ...], and their ``id``.
      split: what was measured.
      measured: the evaluation's own numbers, which the stored outputs must give again.

    Raises:
      DataError: they do not.
    """
    found: dict[str, Interval] = {}
    for name, metric in metrics.items():
        sums = per_example(metric, table)
        if sums is None or not len(sums.rows):
            continue
        numbers = numbers_of(metric, sums, f"{split}/{name}")
        again = numbers(sums.rows.sum(axis=0))
        for path, point in again.items():
            _check_same(path, measured[path], point)
        share = _share(sums, again)
        found |= bootstrap_each(sums.rows, numbers) if share is None else dict.fromkeys(again, share)
    return found


def numbers_of(metric: Metric, sums: Sums, name: str) -> Callable[[np.ndarray], dict[str, float]]:
    """Return the function from sums [S] to the metric's number, or its several as ``name/part``."""
    return lambda sums_S: named(name, metric.compute(sums.tree(sums_S)))


def _share(sums: Sums, numbers: Mapping[str, float]) -> Interval | None:
    """Return Wilson's interval where the metric's one number is a share of the examples."""
    if sums.successes is None or len(numbers) != 1:
        return None
    (point,), n = numbers.values(), len(sums.rows)
    successes = point * n
    whole = math.isclose(successes, round(successes), abs_tol=1e-6)  # a root of the share, for one, is not
    return wilson(round(successes), n) if whole else None


def _check_same(path: str, measured: float, again: float) -> None:
    undefined = math.isnan(measured) and math.isnan(again)
    same = undefined or math.isclose(measured, again, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    if not same:
        raise DataError(
            f"{path} was {measured:.8g} when measured, and is {again:.8g} from the stored outputs; expected the same: "
            "does the metric's update depend on other rows of its batch?"
        )
