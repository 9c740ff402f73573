"""What `evaluate` asks of a recommender for each example: where the right item stands among the whole catalogue.

For models that score pairs of a user and an item, whose objective leaves no scores of all items. A model of any class
takes part by a method ``scores``, from the batch's fields to ``scores`` [B, V] of all items, V in the order of their
ids. Every item is ranked, never a sample of negatives. `jaxlab.metrics.ranked` makes numbers of the ranks.
Knows no objective and no metric. Shape letters: B rows, T places of a history, V items, N choices of training.
Usage: ``config.generate = spec("jaxlab.models.catalogue:rank", inputs=("user",), user="user")``.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Array, Batch, DataSpec, Generate, Outputs, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """Ranks each row's item among the whole catalogue; a `jaxlab.core.types.Generate`."""

    inputs: tuple[str, ...]
    item: str
    item_mask: str
    user: str
    seen: str
    seen_mask: str
    begin: np.ndarray  # [users + 1], where a user's items are in `bought`
    bought: np.ndarray  # [N], of the training split, by user

    @property
    def fields(self) -> tuple[str, ...]:
        """The batch's fields that `rank` reads, besides the mask."""
        return tuple(name for name in (self.item, self.item_mask, self.user, self.seen, self.seen_mask) if name)

    def __call__(self, module: Any, variables: PyTree, batch: Batch) -> Outputs:
        """Return what `rank` does of the model's scores."""
        return self.rank(scores_of(module, variables, tuple(batch[field] for field in self.inputs)), batch)

    def rank(self, score_BV: Array, batch: Batch) -> Outputs:
        """Return ``rank`` [B] int32: how many items stand before the row's own, and it; 0 where a row has none."""
        item_B, there_B = self._judged(batch)
        item_B = jnp.where(there_B, item_B, 0)
        items_V = jnp.arange(score_BV.shape[1])
        before_BV = ~(score_BV < jnp.take_along_axis(score_BV, item_B[:, None], axis=1))  # ties and nan are
        ranked_BV = (items_V != item_B[:, None]) & ~self._had(batch, score_BV.shape)
        rank_B = 1 + jnp.sum(before_BV & ranked_BV, axis=1)
        return {"rank": jnp.where(there_B, rank_B, 0).astype(jnp.int32)}

    def _judged(self, batch: Batch) -> tuple[Array, Array]:
        """Return each row's item [B], of a history that of its last place to be judged, and whether it has one."""
        item, there_B = batch[self.item], batch["mask"] > 0
        if item.ndim == 1:
            return item, there_B
        there_BT = batch[self.item_mask] > 0 if self.item_mask else jnp.ones(item.shape, bool)
        last_B = jnp.max(jnp.where(there_BT, jnp.arange(item.shape[1]), 0), axis=1)
        return jnp.take_along_axis(item, last_B[:, None], axis=1)[:, 0], there_B & there_BT.any(axis=1)

    def _had(self, batch: Batch, shape: tuple[int, ...]) -> Array:
        """Return which items [B, V] are not ranked, as the user has had them."""
        had_BV, row_B1 = jnp.zeros(shape, bool), jnp.arange(shape[0])[:, None]
        if self.seen:
            real_BT = batch[self.seen_mask] > 0 if self.seen_mask else jnp.ones(batch[self.seen].shape, bool)
            had_BV = had_BV.at[row_B1, batch[self.seen]].max(real_BT, mode="drop")
        if self.user and len(self.bought):
            begin_U, bought_N = jnp.asarray(self.begin), jnp.asarray(self.bought)
            user_B = jnp.clip(batch[self.user], 0, len(self.begin) - 2)
            most = int(np.diff(self.begin).max())
            place_BT = begin_U[user_B][:, None] + jnp.arange(most)
            real_BT = place_BT < begin_U[user_B + 1][:, None]
            had_BV = had_BV.at[row_B1, bought_N[jnp.minimum(place_BT, len(self.bought) - 1)]].max(real_BT, mode="drop")
        return had_BV


def rank(
    data: DataSpec,
    inputs: tuple[str, ...] = ("user",),
    item: str = "item",
    item_mask: str = "",
    user: str = "",
    seen: str = "",
    seen_mask: str = "",
) -> Generate:
    """Return what ranks each row's item among all items by the model's scores: the result ``rank`` [B] int32, from 1.

    Items that score the same as the row's own, or nan, stand before it: a model that tells nothing apart finds nothing.
    A row is a question of its own: a user's other rows of the split are ranked like any item. The row's item always is
    ranked, and what `user` or `seen` name is not.

    Args:
      data: has the fields.
      inputs: what the model's ``scores`` is called with: ``("user",)`` of a factorisation, the query's fields of two
        towers, ``("items", "item_mask")`` of SASRec.
      item: the field of the ids that are to be found, [B]; or [B, T], of which the last place is judged.
      item_mask: the field that is 1 where `item` [B, T] is to be predicted, such as ``target_mask``; empty is always.
      user: the field of users' ids [B], whose items of the training split are not ranked, as evaluations of
        recommenders usually have it; it needs the data's fact ``seen:ITEM``, which `jaxlab.data.seen:items` learns.
        Empty ranks them too.
      seen: the field of items that a row says itself its user has had [B, T], which are not ranked; empty for none.
      seen_mask: the field that is 1 where `seen` holds an item; empty if it does everywhere.

    Raises:
      ConfigError: a field or fact that the data does not have; once the model is known, one without scores of all
        items.
    """
    for name in (*inputs, item, *(name for name in (item_mask, user, seen, seen_mask) if name)):
        if name not in data.example:
            raise ConfigError(f"config.generate: the data has no field {name!r}{did_you_mean(name, data.example)}")
    if not inputs:
        raise ConfigError("config.generate.inputs=(): expected the fields that the model's scores are of")
    if seen_mask and not seen:
        raise ConfigError(f"config.generate.seen_mask={seen_mask!r}: expected its field of items as seen")
    for name in (item, *(name for name in (user, seen) if name)):
        if np.dtype(data.example[name].dtype).kind not in "iu":
            raise ConfigError(f"config.generate: {name!r} holds {data.example[name].dtype}; expected ids from 0")
    begin, bought = _training(data, item) if user else (np.zeros(2, np.int32), np.zeros(0, np.int32))
    return Ranking(tuple(inputs), item, item_mask, user, seen, seen_mask, begin, bought)


def scores_of(module: Any, variables: PyTree, inputs: tuple[Array, ...]) -> Array:
    """Return the model's scores of all items [B, V] in float32.

    Raises:
      ConfigError: it has none.
    """
    kind = type(module)
    if not isinstance(module, nn.Module) or not hasattr(kind, "scores"):
        raise ConfigError(
            f"config.generate: config.model is a {kind.__module__}.{kind.__qualname__}, which has no method `scores` "
            "of all items [B, V] from the batch's fields; expected one, as jaxlab.models.factorisation, "
            "jaxlab.models.two_tower and jaxlab.models.sasrec have"
        )
    flag: dict[str, Any] = {"train": False} if "train" in inspect.signature(kind.scores).parameters else {}
    results: Any = module.apply(variables, *inputs, method=kind.scores, **flag)
    scores = results["scores"]
    if scores.ndim != 2:
        raise ConfigError(f"config.generate: the model's scores have the shape {scores.shape}; expected one [B, V]")
    return scores.astype(jnp.float32)


def _training(data: DataSpec, item: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where each user's items of the training split begin, and all of them."""
    fact = f"seen:{item}"
    if fact not in data.meta:
        raise ConfigError(
            f"config.generate.user: what users had in training is the data's fact {fact!r}, which the data lacks (it "
            f"has {', '.join(data.meta) or 'no facts'}); add "
            f'spec("jaxlab.data.seen:items", item={item!r}) to config.data.transforms'
        )
    by_user = data.meta[fact]
    begin = np.cumsum([0, *map(len, by_user)]).astype(np.int32)
    return begin, np.fromiter((code for row in by_user for code in row), np.int32, int(begin[-1]))
