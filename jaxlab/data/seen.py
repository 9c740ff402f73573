"""What each user has had in the training split, learnt from it: evaluations of recommenders leave that out.

Changes no row. Knows no model. Shape letters: B rows, T places of a row.
Usage: ``data.transforms = (spec("jaxlab.data.seen:items"),)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Fittable, Randomness, Source, Transform
from jaxlab.data.table_columns import chunks

Fields = Mapping[str, np.ndarray]


def items(user: str = "user", item: str = "item", mask: str = "") -> Fittable:
    """Return the transform that changes nothing, and learns which items each user has in the training split.

    The spec's meta gets them as ``seen:ITEM``: for each user's id, from 0, the rising ids of different items.

    Args:
      user: the field of users' ids [B] from 0.
      item: the field of items' ids [B], or [B, T].
      mask: the field, of the shape of `item`, that is 0 where there is none; empty counts all.
    """

    def fit(source: Source) -> Mapping[str, Any]:
        return {"seen": [codes.tolist() for codes in _by_user(source, user, item, mask)]}

    def bind(_: Mapping[str, Any]) -> Transform:
        return _same

    return Fittable(fit, bind, lambda learnt: {f"seen:{item}": tuple(tuple(codes) for codes in learnt["seen"])})


def _same(fields: Fields, randomness: Randomness) -> Fields:
    return fields


def _by_user(source: Source, user: str, item: str, mask: str) -> list[np.ndarray]:
    """Return each user's different items, rising.

    Raises:
      ConfigError: no such field.
      DataError: fields that hold no ids.
    """
    names = (user, item, mask) if mask else (user, item)
    for name in names:
        if name not in source.spec.example:
            raise ConfigError(f"seen: the data has no field {name!r}{did_you_mean(name, source.spec.example)}")
    parts = []
    for piece in chunks(source, names):
        code = piece[item].reshape(len(piece[item]), -1)
        users = np.broadcast_to(piece[user][:, None], code.shape)
        real = piece[mask].reshape(code.shape) > 0 if mask else np.ones(code.shape, bool)
        parts.append(np.stack([users[real], code[real]], axis=1))
    pairs = np.concatenate(parts)
    if pairs.dtype.kind not in "iu" or (len(pairs) and pairs.min() < 0):
        raise DataError(f"seen: the fields {user!r} and {item!r} hold {pairs.dtype}; expected ids from 0")
    pairs = np.unique(pairs, axis=0)
    until = np.searchsorted(pairs[:, 0], np.arange(pairs[:, 0].max(initial=-1) + 2))
    return np.split(pairs[:, 1], until[1:-1]) if len(pairs) else []
