"""Histories: what each user chose, in the order of time, as a row; for models that say what comes next, as SASRec.

A place of a row holds an item as input and the next one as its target. A part of the data differs from the one before
it by its last places: ``valid`` reads what ``train`` has, and is judged by what comes after that alone. Knows no model.
Shape letters: N choices, B rows, T places.
Usage: ``spec("jaxlab.data.histories:make", source=spec("..."), part="valid", length=50)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import DataSpec, Source
from jaxlab.data.split_rules import assign
from jaxlab.data.subset import Origin, fingerprint
from jaxlab.data.table_columns import is_text, missing, read, texts

PARTS = ("train", "valid", "test")
RULES = ("last", "time")
SIDES = ("right", "left")


class Choices(NamedTuple):
    """All choices, sorted by user, then time; those of one time stay in the source's order."""

    rows: np.ndarray  # [N], as the others: in the source
    users: np.ndarray
    items: np.ndarray
    parts: np.ndarray  # by number, rising within a user


def make(
    source: Source,
    part: str = "train",
    length: int = 50,
    user: str = "user",
    item: str = "item",
    time: str = "time",
    by: str = "last",
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    padding: str = "right",
) -> Histories:
    """Return a row for each user with something to predict: ``items`` and ``targets`` [T] int32, masks, and ``user``.

    ``item_mask`` [T] float32 is 1 where there is an item, ``target_mask`` where the item after it is one of this part.
    Ids become codes: whole numbers that the source states names of, as ``categories:FIELD``, are codes already; other
    ids are numbered in sorted order over the whole source, the same for all parts. The names are the facts
    ``categories:user``, ``categories:items`` and ``categories:targets``.

    Args:
      source: the choices, one a row, in any order, of all parts: each part is given the same source.
      part: ``train``, ``valid``, ``test``, or ``all`` for no split.
      length: places of a row, T: the last so many choices before the last one.
      user: the field of users' ids.
      item: the field of items' ids.
      time: the field of numbers to order a user's choices by; equal ones stay in the source's order.
      by: ``last``: a user's last choice is for test, the one before for valid, the rest for training, all of it if a
        user has fewer than three (Kang & McAuley 2018, arXiv 1808.09781, section 4.1). Then training sees choices that
        others made later than those it is tested by; not so with ``time``: all choices before a time are for training,
        those before a second one for valid, the rest for test.
      shares: of all choices in train, valid and test, for a split by time; choices of one time stay together.
      padding: the side of a row that is filled with zeros: ``right`` or ``left``.

    Raises:
      ConfigError: no such part, rule, side or field, a length below 1, shares that are none, or a source that is split
        at random, which tears histories.
      DataError: values that are missing or no ids, or a part in which no user has anything to predict.
    """
    _check(source, {"part": part, "by": by, "padding": padding}, {"user": user, "item": item, "time": time})
    if length < 1:
        raise ConfigError(f"histories: length={length!r}: expected a whole number of at least 1")
    if len(shares) != len(PARTS) or min(shares) <= 0 or sum(shares) > 1 + 1e-9:
        raise ConfigError(f"histories: shares={shares!r}: expected three positive shares of at most 1 in all")
    fields = read(source, (user, item, time))
    (user_N, users), (item_N, items) = (_codes(source, name, fields[name]) for name in (user, item))
    choices = _sorted(user_N, item_N, _times(time, fields[time]), "all" if part == "all" else by, shares)
    settings = (fingerprint(source), part, length, user, item, time, by, tuple(shares), padding)
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()
    meta, split = source.spec.meta, {"part": part, "by": by, "field": time}
    facts = {
        "name": meta.get("name", ""),
        "split": {**split, "within": meta["split"]} if meta.get("split") else split,
        "categories:user": users,
        "categories:items": items,
        "categories:targets": items,
        "fingerprint": f"histories:{digest}",
    }
    return Histories(source, choices, part, length, padding, facts)


class Histories:
    """Serves a user's choices of a part and of those before it, a row each."""

    in_memory = True

    def __init__(
        self, source: Source, choices: Choices, part: str, length: int, padding: str, facts: Mapping[str, object]
    ) -> None:
        """Serve the users with a target in `part`; see `make`."""
        self._source, self._choices, self._length, self._is_left = source, choices, length, padding == "left"
        self._number = 0 if part == "all" else PARTS.index(part)
        user_N, part_N = choices.users, choices.parts
        begins_U = np.flatnonzero(np.r_[True, user_N[1:] != user_N[:-1]])
        until_U, before_U = (
            begins_U + np.add.reduceat((part_N <= number).astype(np.int64), begins_U)
            for number in (self._number, self._number - 1)
        )
        has_target = until_U > np.maximum(before_U, begins_U + 1)  # the first choice has nothing before it
        if not has_target.any():
            raise DataError(
                f"histories: no user has a choice in the part {part!r} with another before it; {len(begins_U)} users "
                f"have {len(user_N)} choices"
            )
        self._stop_R = until_U[has_target]  # after the last choice of a row
        self._begin_R = np.maximum(begins_U[has_target], self._stop_R - 1 - length)  # the first input
        self._target_R = np.maximum(before_U[has_target], self._begin_R + 1)  # the first target of this part
        numbers = {"target_count": int((self._stop_R - self._target_R).sum()), **facts}
        self._spec = DataSpec({}, len(self._stop_R), numbers)
        row = self.__getitems__(np.zeros(1, np.int64))
        example = {name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in row.items()}
        self._spec = self._spec._replace(example=example)

    @property
    def spec(self) -> DataSpec:
        """The shapes and dtypes of a row, the number of users, the names of codes, and of targets the number."""
        return self._spec

    def origins(self, rows: np.ndarray | None = None) -> list[Origin]:
        """Return the source and which of its rows training learns from, or of another part those it is judged by."""
        chosen = slice(None) if rows is None else rows
        first = self._begin_R if self._number == 0 else self._target_R
        size = len(self._choices.rows) + 1
        begun = np.bincount(first[chosen], minlength=size) - np.bincount(self._stop_R[chosen], minlength=size)
        return [(self._source, np.sort(self._choices.rows[np.flatnonzero(np.cumsum(begun)[:-1])]))]

    def __len__(self) -> int:
        """Return the number of users who have something to predict in this part."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows of the users at `indices` [n], users in the order of their codes."""
        begin_B1, stop_B1, target_B1 = (x[indices][:, None] for x in (self._begin_R, self._stop_R, self._target_R))
        first_B1 = stop_B1 - 1 - self._length if self._is_left else begin_B1
        place_BT = first_B1 + np.arange(self._length)
        mask_BT = (place_BT >= begin_B1) & (place_BT < stop_B1 - 1)
        known_BT = np.where(mask_BT, place_BT, 0)
        item_N = self._choices.items
        return {
            "user": self._choices.users[begin_B1[:, 0]],
            "items": np.where(mask_BT, item_N[known_BT], np.int32(0)),
            "item_mask": mask_BT.astype(np.float32),
            "targets": np.where(mask_BT, item_N[known_BT + 1], np.int32(0)),
            "target_mask": (mask_BT & (place_BT + 1 >= target_B1)).astype(np.float32),
        }


def _check(source: Source, words: Mapping[str, str], fields: Mapping[str, str]) -> None:
    """Raise ConfigError for a word or a field that is not there, or a source whose histories are torn."""
    valid = {"part": (*PARTS, "all"), "by": RULES, "padding": SIDES}
    for name, value in words.items():
        if value not in valid[name]:
            raise ConfigError(f"histories: {name}={value!r}{did_you_mean(value, valid[name])}")
    example = source.spec.example
    for name, field in fields.items():
        if field not in example:
            raise ConfigError(f"histories: {name}: the data has no field {field!r}{did_you_mean(field, example)}")
    split = source.spec.meta.get("split")
    if isinstance(split, Mapping) and split.get("by") in ("random", "stratified"):
        raise ConfigError(f"histories: source is split by={split['by']!r}, which tears histories; let `part` split it")


def _sorted(
    user_N: np.ndarray, item_N: np.ndarray, time_N: np.ndarray, by: str, shares: tuple[float, float, float]
) -> Choices:
    """Return the choices [N] in order, with the part of each."""
    row_N = np.lexsort((np.arange(len(time_N)), time_N, user_N))
    if by == "last":
        part_N = _last(user_N[row_N])
    elif by == "time":
        part_N = assign(time_N, "time", shares, len(time_N), 0)[row_N]
        part_N = np.where(part_N < 0, len(PARTS), part_N)  # what the shares leave is of no part, and last
    else:
        part_N = np.zeros(len(row_N), np.int64)
    return Choices(row_N, user_N[row_N], item_N[row_N], part_N)


def _last(user_N: np.ndarray) -> np.ndarray:
    """Return the part of each choice, users' choices lying together: the last for test, the one before for valid."""
    begins = np.r_[True, user_N[1:] != user_N[:-1]]
    sizes_U = np.diff(np.r_[np.flatnonzero(begins), len(user_N)])
    left_N = np.repeat(np.cumsum(sizes_U), sizes_U) - np.arange(len(user_N))  # 1 at a user's last
    return np.where(np.repeat(sizes_U, sizes_U) < len(PARTS), 0, np.maximum(len(PARTS) - left_N, 0))


def _codes(source: Source, field: str, value_N: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return each choice's code [N] int32 and the codes' names."""
    _check_present(field, value_N)
    named = source.spec.meta.get(f"categories:{field}", ())
    if value_N.dtype.kind in "iu" and named:
        wrong = np.flatnonzero((value_N < 0) | (value_N >= len(named)))
        if len(wrong):
            raise DataError(
                f"histories: field {field!r}, row {wrong[0]}: {value_N[wrong[0]]} is outside the {len(named)} codes "
                f"that the data names"
            )
        return value_N.astype(np.int32), tuple(named)
    if value_N.dtype.kind not in "iu" and not is_text(value_N.dtype):
        raise DataError(f"histories: field {field!r} holds {value_N.dtype}; expected ids: whole numbers or texts")
    plain_N = np.asarray(texts(field, value_N)) if is_text(value_N.dtype) else value_N
    values, code_N = np.unique(plain_N, return_inverse=True)
    return code_N.reshape(-1).astype(np.int32), tuple(str(value) for value in values)


def _times(field: str, value_N: np.ndarray) -> np.ndarray:
    _check_present(field, value_N)
    if value_N.dtype.kind not in "iuf":
        raise DataError(f"histories: field {field!r} holds {value_N.dtype}; expected times as numbers, such as seconds")
    return value_N


def _check_present(field: str, value_N: np.ndarray) -> None:
    if value_N.ndim != 1:
        raise DataError(f"histories: field {field!r} has {value_N.shape[1:]} values a row; expected one")
    absent = np.flatnonzero(missing(value_N))
    if len(absent):
        raise DataError(f"histories: field {field!r}: {len(absent)} values are missing, first in row {absent[0]}")
