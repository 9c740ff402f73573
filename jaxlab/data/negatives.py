"""Negatives for ranking: items drawn for each row, or for each place of a row, that stand for what was not chosen.

Any item may be drawn, also the chosen one, and twice: so a draw's probability is the same in every row, which the
corrections of `jaxlab.objectives.rank.sampled_softmax` count on. The objectives leave out a negative that is the chosen
item; one that the user chose at another time counts. Knows no objective.
Shape letters: B rows, N negatives, I items; an item's field is [B], or [B, T] for each place of a row.
Usage: ``data.transforms = (spec("jaxlab.data.negatives:uniform", count=8),)``, so that evaluation has them too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Fittable, Randomness, Source, Transform
from jaxlab.data.sampling import code_counts, codes_of
from jaxlab.data.table_columns import take

Fields = Mapping[str, np.ndarray]


def uniform(count: int = 1, item: str = "item", items: int = 0, field: str = "negatives") -> Fittable:
    """Return the transform that adds negatives [B, ..., N] int32, each of the I items alike.

    Args:
      count: negatives of each item, N.
      item: the field of chosen items' codes.
      items: their number, I; 0 takes it from the data's fact ``categories:ITEM``.
      field: name of the new field.

    Raises:
      ConfigError: a count below 1, or no number of items.
    """
    _check("uniform", count, items)

    def fit(source: Source) -> Mapping[str, Any]:
        return {"items": codes_of(source, item, items, "items")}

    def bind(learnt: Mapping[str, Any]) -> Transform:
        return _transform("uniform", item, field, count, learnt["items"], lambda drawn: drawn)

    return Fittable(fit, bind)


def popularity(
    count: int = 1, item: str = "item", mask: str = "", items: int = 0, field: str = "negatives"
) -> Fittable:
    """Return the transform that adds negatives [B, ..., N] int32, drawn as often as training has them.

    One that training never has is drawn as if it had it once. The spec's meta gets ``counts:ITEM``, the counts.

    Args:
      count: negatives of each item, N.
      item: the field of chosen items' codes.
      mask: the field, of the shape of `item`, that is 0 where there is none, such as ``target_mask``; empty counts all.
      items: their number, I; 0 takes it from the data's fact ``categories:ITEM``.
      field: name of the new field.

    Raises:
      ConfigError: a count below 1, or no number of items.
    """
    _check("popularity", count, items)

    def fit(source: Source) -> Mapping[str, Any]:
        return {"counts": code_counts(source, item, mask, items).tolist()}

    def bind(learnt: Mapping[str, Any]) -> Transform:
        until_I = np.cumsum(np.maximum(learnt["counts"], 1))  # whole numbers, so that no item's share is rounded
        return _transform(
            "popularity", item, field, count, int(until_I[-1]), lambda drawn: np.searchsorted(until_I, drawn, "right")
        )

    return Fittable(fit, bind, lambda learnt: {f"counts:{item}": tuple(learnt["counts"])})


def _transform(
    caller: str, item: str, field: str, count: int, high: int, item_of: Callable[[np.ndarray], np.ndarray]
) -> Transform:
    def transform(fields: Fields, randomness: Randomness) -> Fields:
        places = take(caller, fields, item).shape[1:]
        return {**fields, field: item_of(randomness.integers(0, high, (*places, count))).astype(np.int32)}

    return transform


def _check(caller: str, count: int, items: int) -> None:
    if count < 1:
        raise ConfigError(f"{caller}: count={count!r}: expected a whole number of at least 1")
    if items < 0:
        raise ConfigError(f"{caller}: items={items!r}: expected 0 (as the data states) or more")
