"""Metrics of recommenders from the rank of each row's item in the full catalogue, computed by `evaluate` alone.

For models that score pairs: `jaxlab.models.catalogue` finds the ranks. Numbers are those of `jaxlab.metrics.ranking`,
which reads scores of all items where the objective has them, and can choose checkpoints while the model trains.
Each reads ``rank`` [N] int, from 1, 0 where a row has no item to be found. Knows no model. Shape letters: N rows.
Usage: ``config.metrics.ndcg_10 = spec("jaxlab.metrics.ranked:ndcg", k=10)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxlab.core.errors import UndefinedError
from jaxlab.core.types import Interval, Table, TableMetric, Weighted
from jaxlab.metrics.intervals import wilson
from jaxlab.metrics.ranking import check_k

Gain = Callable[[np.ndarray], np.ndarray]


def hit_rate(k: int = 10, rank: str = "rank") -> TableMetric:
    """Return the share of rows whose item is among the first `k` of the full catalogue.

    Args:
      k: length of the list that is shown.
      rank: the column of ranks [N].

    Raises:
      ConfigError: `k` is below 1.
    """
    check_k("hit_rate", k)
    return _hits(k, rank)


def recall(k: int = 10, rank: str = "rank") -> TableMetric:
    """Return the share of rows' items that are among the first `k` of the full catalogue.

    As a row has one item to find, it is the `hit_rate` by its other name; arguments as there.

    Raises:
      ConfigError: `k` is below 1.
    """
    check_k("recall", k)
    return _hits(k, rank)


def ndcg(k: int = 10, rank: str = "rank") -> TableMetric:
    """Return the normalised discounted cumulative gain at `k`: the mean of 1 / log2(1 + rank), 0 beyond `k`.

    Järvelin & Kekäläinen 2002, see `jaxlab.metrics.ranking`. Arguments as in `hit_rate`.

    Raises:
      ConfigError: `k` is below 1.
    """
    check_k("ndcg", k)
    return _of_ranks(rank, lambda rank_N: np.where(rank_N <= k, 1 / np.log2(1.0 + rank_N), 0.0))


def mrr(rank: str = "rank") -> TableMetric:
    """Return the mean of 1 / rank in the full catalogue; argument as in `hit_rate`."""
    return _of_ranks(rank, lambda rank_N: 1.0 / rank_N)


def _hits(k: int, rank: str) -> TableMetric:
    metric = _of_ranks(rank, lambda rank_N: (rank_N <= k).astype(np.float64))

    def interval(table: Table) -> Interval:
        rank_N = table[rank][_there(table, rank)]
        return wilson(float(np.count_nonzero(rank_N <= k)), len(rank_N))

    return metric._replace(interval=interval)


def _of_ranks(rank: str, gain: Gain) -> TableMetric:
    """Return the mean of a function of the rank over rows that have one."""

    def prepare(table: Table, tuned: Mapping[str, Any]) -> Weighted:
        there_N = _there(table, rank)
        gain_N = np.where(there_N, gain(np.where(there_N, table[rank], 1).astype(np.float64)), 0.0)

        def weighted(weight_N: np.ndarray) -> float:
            total = float(weight_N @ there_N)
            if not total:
                raise UndefinedError("no row has an item to be found")
            return float(weight_N @ gain_N) / total

        return weighted

    return TableMetric((rank,), prepare)


def _there(table: Table, rank: str) -> np.ndarray:
    """Return which rows have an item to be found [N]; an UndefinedError where none has."""
    there_N = np.asarray(table[rank] > 0)
    if not there_N.any():
        raise UndefinedError("no row has an item to be found")
    return there_N
