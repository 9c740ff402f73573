"""Transforms of a table's rows: the parts of dates, and all columns assembled to one array of features.

`jaxlab.data.table_numeric` scales, clips and fills in; `jaxlab.data.table_categories` encodes; these come before
`assemble`, which comes last. Knows no source and no model.
Usage: ``data.transforms = (spec("jaxlab.data.table:date_parts", column="day"), spec("jaxlab.data.table:assemble"))``.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Fittable, Randomness, Source, Transform
from jaxlab.data.table_columns import checked, choose, chunks, layout_of, missing, numbers, take

Fields = Mapping[str, np.ndarray]
Learnt = Mapping[str, Any]

PERIODS = {"month": (1, 12), "day": (1, 31), "weekday": (0, 7), "hour": (0, 24), "minute": (0, 60)}
"""The first value and the number of values of each part that comes round again."""

PARTS = ("year", *PERIODS)


def date_parts(
    column: str,
    parts: tuple[str, ...] = ("year", "month", "day", "weekday", "hour"),
    cyclic: bool = False,
    keep: bool = False,
) -> Transform:
    """Return the transform that adds ``COLUMN_PART`` [B] float32 for each part of a date, NaN where it is missing.

    Args:
      column: dates [B], as ISO 8601 texts or as seconds since 1970; a text's offset is taken into account, and one
        without is taken as UTC.
      parts: of year, month (from 1), day (from 1), weekday (0: Monday), hour, minute.
      cyclic: whether a part that comes round again is ``COLUMN_PART_sin`` and ``COLUMN_PART_cos`` instead, such that
        its last value is as near to its first as any two neighbours are.
      keep: whether the column itself stays.

    Raises:
      ConfigError: no such part or column.
      DataError: a text that is no date, naming the row.
    """
    for part in checked("date_parts", parts):
        if part not in PARTS:
            raise ConfigError(f"date_parts: parts: no such part {part!r}{did_you_mean(part, PARTS)}")

    def transform(fields: Fields, _: Randomness) -> Fields:
        (name,) = choose("date_parts", (column,), layout_of(fields), text=True)
        seconds_B, known_B = _seconds(name, np.asarray(fields[name]))
        added = {}
        for part in parts:
            value_B = np.where(known_B, _part(part, seconds_B), np.nan)
            if not cyclic or part not in PERIODS:
                added[f"{column}_{part}"] = value_B.astype(np.float32)
                continue
            first, period = PERIODS[part]
            angle_B = 2 * np.pi * (value_B - first) / period
            added[f"{column}_{part}_sin"] = np.sin(angle_B).astype(np.float32)
            added[f"{column}_{part}_cos"] = np.cos(angle_B).astype(np.float32)
        kept = {other: value for other, value in fields.items() if keep or other != column}
        return {**kept, **added}

    return transform


def _seconds(name: str, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds since 1970 [B] int64 in UTC, 0 where missing, and where they are known [B]."""
    if column.ndim != 1:
        raise DataError(f"column {name!r} has {column.shape[1:]} values a row; expected one date a row")
    known_B = ~missing(column)
    if column.dtype.kind in "biuf":
        x_B = np.floor(np.where(known_B, column.astype(np.float64), 0.0))
        return np.where(np.isfinite(x_B), x_B, 0).astype(np.int64), known_B & np.isfinite(x_B)
    if column.dtype.kind == "M":
        return np.where(known_B, column, np.datetime64(0, "s")).astype("datetime64[s]").astype(np.int64), known_B
    seconds = [_parsed(name, row, column[row]) if known_B[row] else 0 for row in range(len(column))]
    return np.asarray(seconds, np.int64), known_B


def _parsed(name: str, row: int, value: Any) -> int:
    try:
        text = value.decode() if isinstance(value, bytes) else value
        date = datetime.datetime.fromisoformat(text) if isinstance(text, str) else text
        date = date if date.tzinfo else date.replace(tzinfo=datetime.UTC)
        return int(date.timestamp() // 1)
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"date_parts: column {name!r}, row {row} of the batch: {value!r} is not an ISO 8601 date such as "
            "2024-01-31 or 2024-01-31T12:00:00"
        ) from error


def _part(part: str, seconds_B: np.ndarray) -> np.ndarray:
    date_B = seconds_B.astype("datetime64[s]")
    days_B, months_B = date_B.astype("datetime64[D]"), date_B.astype("datetime64[M]")
    if part == "year":
        return date_B.astype("datetime64[Y]").astype(np.int64) + 1970
    if part == "month":
        return months_B.astype(np.int64) % 12 + 1
    if part == "day":
        return (days_B - months_B.astype("datetime64[D]")).astype(np.int64) + 1
    if part == "weekday":
        return (days_B.astype(np.int64) + 3) % 7  # 1970 began on a Thursday
    return seconds_B // (3600 if part == "hour" else 60) % PERIODS[part][1]


def assemble(columns: tuple[str, ...] = (), field: str = "features") -> Fittable:
    """Return the transform that puts numeric columns [B] and [B, K] side by side: `field` [B, F] float32.

    The columns go, the other fields stay. The spec's meta gets ``features``, the names of the F features: the columns'
    own, and for a column [B, K] ``NAME=CATEGORY`` where the meta has ``categories:NAME``, else ``NAME[k]``.

    Args:
      columns: names, in the order wanted; () means all numeric columns but label, target, group, time, id and mask, in
        the data's order.
      field: the new field.

    Raises:
      ConfigError: no such column.
      DataError: missing or infinite values, in the training split already when it is fitted.
    """
    names = checked("assemble", columns)

    def fit(source: Source) -> Learnt:
        chosen = choose("assemble", names, layout_of(source.spec), text=False)
        _check_finite(source, chosen)
        labels: list[str] = []
        widths = {}
        for name in chosen:
            shape = source.spec.example[name].shape
            widths[name] = shape[0] if shape else 0
            known = source.spec.meta.get(f"categories:{name}", ())
            labels += _labels(name, widths[name], known)
        return {"columns": list(chosen), "widths": [widths[name] for name in chosen], "features": labels}

    def bind(learnt: Learnt) -> Transform:
        def transform(fields: Fields, _: Randomness) -> Fields:
            parts = []
            for name, width in zip(learnt["columns"], learnt["widths"], strict=True):
                x = numbers(name, take("assemble", fields, name))
                if x.shape[1:] != ((width,) if width else ()):
                    raise DataError(f"assemble: column {name!r} has {x.shape[1:]} values a row; training had {width}")
                _raise_unless_finite(name, int(missing(x).sum()), int(np.isinf(x).sum()), len(x))
                parts.append(x.reshape(len(x), -1).astype(np.float32))
            kept = {name: value for name, value in fields.items() if name not in learnt["columns"]}
            return {**kept, field: np.concatenate(parts, axis=1)}

        return transform

    return Fittable(fit, bind, lambda learnt: {"features": tuple(learnt["features"])})


def _labels(name: str, width: int, categories: Sequence[str]) -> list[str]:
    if not width:
        return [name]
    if len(categories) == width:
        return [f"{name}={category}" for category in categories]
    return [f"{name}[{place}]" for place in range(width)]


def _check_finite(source: Source, names: Sequence[str]) -> None:
    """Raise DataError for the first column of the training split with a value that is missing or infinite."""
    absent, infinite = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for piece in chunks(source, names):
        for name, column in piece.items():
            x = numbers(name, column)
            absent[name] += int(np.isnan(x).sum())
            infinite[name] += int(np.isinf(x).sum())
    for name in names:
        _raise_unless_finite(name, absent[name], infinite[name], len(source))


def _raise_unless_finite(name: str, absent: int, infinite: int, rows: int) -> None:
    if absent:
        raise DataError(
            f"assemble: column {name!r}: {absent} values in {rows} rows are missing (NaN); before it, add "
            f'spec("jaxlab.data.table_numeric:impute", columns=({name!r},)), or drop the rows with '
            '"jaxlab.data.splits:drop_missing"'
        )
    if infinite:
        raise DataError(
            f"assemble: column {name!r}: {infinite} values in {rows} rows are infinite; before it, add "
            f'spec("jaxlab.data.table_numeric:clip", columns=({name!r},)), or mend the data'
        )
