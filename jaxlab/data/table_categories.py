"""Transforms of columns of categories [B], texts or codes, to numbers: one-hot, ordinal, hashed, and crosses.

A missing value (None, NaN) is the category ``""``: known if the training split has one, else unknown like any other
that training never saw. Knows no source and no model.
Usage: ``spec("jaxlab.data.table_categories:one_hot", columns=("colour",), max_categories=20)``.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Fittable, Randomness, Source, Transform
from jaxlab.data.table_columns import checked, choose, chunks, layout_of, take, texts

Fields = Mapping[str, np.ndarray]
Learnt = Mapping[str, Any]

UNKNOWN = "(unknown)"
POLICIES = ("column", "zeros", "error")


def one_hot(columns: tuple[str, ...] = (), max_categories: int = 0, unknown: str = "column") -> Fittable:
    """Return the transform of each column [B] to [B, K] float32: 1 in the place of the row's category.

    The spec's meta gets ``categories:NAME``, the name of each place.

    Args:
      columns: names; () means all columns of texts.
      max_categories: how many categories keep a place, the most frequent; the others are unknown. 0: all.
      unknown: what a category without a place becomes: a 1 in the first ``column``, which is kept for it, ``zeros``, or
        an ``error``.

    Raises:
      ConfigError: no such column or policy, or a negative number of categories.
    """
    names = checked("one_hot", columns)
    if unknown not in POLICIES:
        raise ConfigError(f"one_hot: unknown={unknown!r}{did_you_mean(unknown, POLICIES)}")
    if max_categories < 0:
        raise ConfigError(f"one_hot: max_categories={max_categories}: expected 0 (all) or more")

    def fit(source: Source) -> Learnt:
        return {"unknown": unknown, "columns": _categories("one_hot", source, names, max_categories)}

    def bind(learnt: Learnt) -> Transform:
        def encode(name: str, codes_B: np.ndarray, column_B: np.ndarray) -> np.ndarray:
            if learnt["unknown"] == "error" and not codes_B.all():
                row = int(np.argmin(codes_B))
                raise DataError(
                    f"one_hot: column {name!r}, row {row} of the batch: the training split has no category "
                    f"{texts(name, column_B[row : row + 1])[0]!r}; unknown='column' would accept it"
                )
            first = 0 if learnt["unknown"] == "column" else 1
            places = np.arange(first, len(learnt["columns"][name]) + 1)
            return (codes_B[:, None] == places).astype(np.float32)

        return _coded("one_hot", learnt["columns"], encode)

    def meta(learnt: Learnt) -> Learnt:
        first = (UNKNOWN,) if learnt["unknown"] == "column" else ()
        return {f"categories:{name}": (*first, *known) for name, known in learnt["columns"].items()}

    return Fittable(fit, bind, meta)


def ordinal(columns: tuple[str, ...] = (), max_categories: int = 0) -> Fittable:
    """Return the transform of each column to int32 codes [B]: 0 unknown, then the categories in sorted order from 1.

    The spec's meta gets ``categories:NAME``, the name of each code: an embedding needs as many rows.

    Args:
      columns: names; () means all columns of texts.
      max_categories: how many categories get a code, the most frequent; 0: all.

    Raises:
      ConfigError: no such column, or a negative number of categories.
    """
    names = checked("ordinal", columns)
    if max_categories < 0:
        raise ConfigError(f"ordinal: max_categories={max_categories}: expected 0 (all) or more")

    def fit(source: Source) -> Learnt:
        return {"columns": _categories("ordinal", source, names, max_categories)}

    def bind(learnt: Learnt) -> Transform:
        return _coded("ordinal", learnt["columns"], lambda name, codes_B, column_B: codes_B)

    def meta(learnt: Learnt) -> Learnt:
        return {f"categories:{name}": (UNKNOWN, *known) for name, known in learnt["columns"].items()}

    return Fittable(fit, bind, meta)


def hashed(columns: tuple[str, ...] = (), buckets: int = 1024) -> Fittable:
    """Return the transform of each column to int32 codes [B]: 0 unknown, else a hash of the text, the same everywhere.

    No category is learnt, so what is unknown is a missing value or an empty text; others may share a code. The spec's
    meta gets ``categories:NAME``, the codes 0 to `buckets` - 1, which have no names.

    Args:
      columns: names; () means all columns of texts.
      buckets: number of codes, that of the unknown among them.

    Raises:
      ConfigError: no such column, or fewer than two buckets.
    """
    names = checked("hashed", columns)
    _check_buckets("hashed", buckets, 2)

    def fit(source: Source) -> Learnt:
        return {"buckets": buckets, "columns": list(choose("hashed", names, layout_of(source.spec), text=True))}

    def bind(learnt: Learnt) -> Transform:
        def transform(fields: Fields, _: Randomness) -> Fields:
            values = {name: texts(name, take("hashed", fields, name)) for name in learnt["columns"]}
            return {**fields, **{name: _hashes(column, learnt["buckets"]) for name, column in values.items()}}

        return transform

    def meta(learnt: Learnt) -> Learnt:
        return {f"categories:{name}": range(learnt["buckets"]) for name in learnt["columns"]}

    return Fittable(fit, bind, meta)


def cross(columns: tuple[str, ...], buckets: int = 1024, field: str = "") -> Fittable:
    """Return the transform that adds the cross of columns: int32 codes [B], a hash of the row's values together.

    The spec's meta gets ``categories:FIELD``, the codes 0 to `buckets` - 1.

    Args:
      columns: two names or more; they stay.
      buckets: number of codes.
      field: name of the new column; "" is ``A_x_B``.

    Raises:
      ConfigError: fewer than two columns, one that is not there, or less than one bucket.
    """
    names = checked("cross", columns)
    _check_buckets("cross", buckets, 1)
    if len(names) < 2:
        raise ConfigError(f"cross: columns={columns!r}: expected two names or more")

    def fit(source: Source) -> Learnt:
        choose("cross", names, layout_of(source.spec), text=True)
        return {"buckets": buckets, "columns": list(names), "field": field or "_x_".join(names)}

    def bind(learnt: Learnt) -> Transform:
        def transform(fields: Fields, _: Randomness) -> Fields:
            values = [texts(name, take("cross", fields, name)) for name in learnt["columns"]]
            # with lengths, as ("a", "bc") and ("ab", "c") are not the same pair
            joined = ["".join(f"{len(value)}:{value}" for value in row) for row in zip(*values, strict=True)]
            return {**fields, learnt["field"]: _buckets(joined, learnt["buckets"])}

        return transform

    def meta(learnt: Learnt) -> Learnt:
        return {f"categories:{learnt['field']}": range(learnt["buckets"])}

    return Fittable(fit, bind, meta)


def _hashes(values: Sequence[str], buckets: int) -> np.ndarray:
    known = np.fromiter(map(bool, values), bool, len(values))
    return np.where(known, _buckets(values, buckets - 1) + 1, np.int32(0))


def _buckets(values: Sequence[str], buckets: int) -> np.ndarray:
    return np.fromiter((zlib.crc32(value.encode()) % buckets for value in values), np.int32, len(values))


def _check_buckets(caller: str, buckets: int, fewest: int) -> None:
    if not fewest <= buckets <= 2**31:
        raise ConfigError(f"{caller}: buckets={buckets}: expected {fewest} to 2**31")


def _categories(caller: str, source: Source, columns: tuple[str, ...], most: int) -> dict[str, list[str]]:
    """Return the sorted categories of each column in a source, of which only the `most` frequent if that is not 0."""
    names = choose(caller, columns, layout_of(source.spec), text=True)
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    for piece in chunks(source, names):
        for name, column in piece.items():
            counts[name].update(texts(name, column))
    ranked = {name: sorted(count, key=lambda text, count=count: (-count[text], text)) for name, count in counts.items()}
    return {name: sorted(order[: most or None]) for name, order in ranked.items()}


def _coded(caller: str, columns: Mapping[str, Sequence[str]], encode: Any) -> Transform:
    """Return the transform of each column by ``encode(name, codes_B, column_B)``; code 0 is unknown."""
    codes = {name: {text: code for code, text in enumerate(known, start=1)} for name, known in columns.items()}

    def transform(fields: Fields, _: Randomness) -> Fields:
        changed = {}
        for name, known in codes.items():
            column_B = take(caller, fields, name)
            values = texts(name, column_B)
            codes_B = np.fromiter((known.get(text, 0) for text in values), np.int32, len(values))
            changed[name] = encode(name, codes_B, column_B)
        return {**fields, **changed}

    return transform
