"""Additive metrics of recommenders over the full catalogue, exact for any batch size and number of devices.

Every item of the catalogue is ranked, never a sample of negatives, whose numbers may order models wrongly (Krichene &
Rendle 2020, "On Sampled Metrics for Item Recommendation", KDD). What is to be found is the item of a row's last place
that has something to predict: one a user. Each metric reads ``logits`` [B, T, V] or [B, V], a score of every item, and
``target`` [B, T] or [B] of `jaxlab.objectives.language` or `jaxlab.objectives.classify`. Objectives that score pairs
have no ``logits``: `jaxlab.metrics.ranked` reads the ranks that `jaxlab.models.catalogue` finds for them.

Items that score the same as the target, or nan, stand before it: a model that tells nothing apart finds nothing.
Shape letters: B batch, T places, V items.
Usage: ``config.metrics.ndcg_10 = spec("jaxlab.metrics.ranking:ndcg", k=10)``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Array, Batch, Metric, Outputs, PyTree
from jaxlab.metrics.sums import mean, weighted_sum


def hit_rate(k: int = 10, seen: str = "", seen_mask: str = "") -> Metric:
    """Return the share of users whose next item is among the `k` of the highest scores, of the full catalogue.

    Args:
      k: length of the list that is shown.
      seen: the batch's field of items that a user has had [B, T]; those up to the place that is judged are not ranked,
        but the target itself always is. Empty ranks all, as most published results of SASRec do.
      seen_mask: the field that is 1 where `seen` holds an item [B, T]; empty if it does everywhere.

    Raises:
      ConfigError: `k` is below 1, or a `seen_mask` without `seen`.
    """
    check_k("hit_rate", k)
    return _of_ranks("hit_rate", lambda rank_B: (rank_B <= k).astype(jnp.float32), seen, seen_mask)


def recall(k: int = 10, seen: str = "", seen_mask: str = "") -> Metric:
    """Return the share of users' next items that are among the `k` of the highest scores, of the full catalogue.

    As there is one item to find a user, it is the `hit_rate` by its other name; arguments as there.

    Raises:
      ConfigError: `k` is below 1, or a `seen_mask` without `seen`.
    """
    check_k("recall", k)
    return _of_ranks("recall", lambda rank_B: (rank_B <= k).astype(jnp.float32), seen, seen_mask)


def ndcg(k: int = 10, seen: str = "", seen_mask: str = "") -> Metric:
    """Return the normalised discounted cumulative gain at `k`: the mean of 1 / log2(1 + rank), 0 beyond `k`.

    Järvelin & Kekäläinen 2002 (ACM Transactions on Information Systems 20, 422-446), for one item to find a user, of
    the full catalogue. Arguments as in `hit_rate`.

    Raises:
      ConfigError: `k` is below 1, or a `seen_mask` without `seen`.
    """
    check_k("ndcg", k)
    return _of_ranks("ndcg", lambda rank_B: jnp.where(rank_B <= k, 1 / jnp.log2(1.0 + rank_B), 0.0), seen, seen_mask)


def mrr(seen: str = "", seen_mask: str = "") -> Metric:
    """Return the mean of 1 / rank of users' next items, among the full catalogue; arguments as in `hit_rate`.

    Raises:
      ConfigError: a `seen_mask` without `seen`.
    """
    return _of_ranks("mrr", lambda rank_B: 1.0 / rank_B, seen, seen_mask)


def check_k(name: str, k: int) -> None:
    """Raise ConfigError for a list of nothing."""
    if k < 1:
        raise ConfigError(f"config.metrics: {name} with k={k}; expected at least 1")


def _of_ranks(name: str, gain: Callable[[Array], Array], seen: str, seen_mask: str) -> Metric:
    """Return the mean over users of a function of the target's rank [B], from 1."""
    if seen_mask and not seen:
        raise ConfigError(f"config.metrics: {name} with seen_mask={seen_mask!r}: expected its field of items as seen")

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        score_BV, target_B, weight_B, until_B = _judged(name, outputs, batch)
        before_BV = ~(score_BV < jnp.take_along_axis(score_BV, target_B[:, None], axis=1))  # ties and nan are
        if seen:
            before_BV = before_BV & ~_had(batch, seen, seen_mask, until_B, score_BV.shape[1])
        other_BV = jnp.arange(score_BV.shape[1]) != target_B[:, None]
        rank_B = 1 + jnp.sum(before_BV & other_BV, axis=1)
        return weighted_sum(gain(rank_B), weight_B)

    return Metric(update, mean)


def _judged(name: str, outputs: Outputs, batch: Batch) -> tuple[Array, Array, Array, Array]:
    """Return of each row's last place to predict the scores [B, V], the target [B], its weight, and T' of its past."""
    logits, target, mask_B = outputs["logits"], outputs["target"], batch["mask"]
    if logits.ndim != target.ndim + 1 or target.ndim > 2:
        raise ConfigError(
            f"config.metrics: {name} reads logits [B, T, V] and target [B, T], or [B, V] and [B]; they have the shapes "
            f"{logits.shape} and {target.shape}"
        )
    if target.ndim == 1:
        return logits, jnp.where(mask_B > 0, target, 0), mask_B, jnp.full(target.shape, 2**30)
    there_BT = (outputs["token_weight"] > 0) & (mask_B[:, None] > 0)
    last_B = jnp.max(jnp.where(there_BT, jnp.arange(target.shape[1]), 0), axis=1)
    score_BV = jnp.take_along_axis(logits, last_B[:, None, None], axis=1)[:, 0]
    target_B = jnp.take_along_axis(target, last_B[:, None], axis=1)[:, 0]
    some_B = there_BT.any(axis=1)
    return score_BV, jnp.where(some_B, target_B, 0), jnp.where(some_B, mask_B, 0.0), last_B + 1


def _had(batch: Batch, seen: str, seen_mask: str, until_B: Array, items: int) -> Array:
    """Return which items [B, V] a user has had before the judged one: among the first places of `seen`."""
    item_BT = batch[seen]
    had_BT = jnp.arange(item_BT.shape[1]) < until_B[:, None]
    if seen_mask:
        had_BT = had_BT & (batch[seen_mask] > 0)
    row_B1 = jnp.arange(len(item_BT))[:, None]
    return jnp.zeros((len(item_BT), items), bool).at[row_B1, item_BT].max(had_BT, mode="drop")
