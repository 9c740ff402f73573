"""Columns of a table: reading them from a source, choosing them by name, and what counts as missing.

A column is a field of shape [B] or, of several numbers a row, [B, K]. Knows no transform and no split.
Usage: ``numbers("age", read(source, ("age",))["age"])``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import DataSpec, Source

RESERVED = ("label", "target", "group", "time", "id", "mask")  # never meant by "all columns"
CHUNK = 1024  # rows that are read at once: few enough for images on disk

Layout = Mapping[str, tuple[np.dtype[Any], int]]
"""The dtype and the number of axes a row of each field."""


def chunks(source: Source, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
    """Yield the fields `names` of consecutive rows, from the first row to the last."""
    for start in range(0, len(source), CHUNK):
        fields = source.__getitems__(np.arange(start, min(start + CHUNK, len(source))))
        yield {name: np.asarray(fields[name]) for name in names}


def read(source: Source, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return whole fields [N, ...] of a source; DataError for a name that it does not have."""
    for name in names:
        if name not in source.spec.example:
            raise DataError(f"the data has no field {name!r}{did_you_mean(name, source.spec.example)}")
    pieces = list(chunks(source, names))
    if not pieces:
        raise DataError("the data has no rows")
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}


def layout_of(data: DataSpec | Mapping[str, np.ndarray]) -> Layout:
    """Return the layout of a source's spec, or of a batch."""
    if isinstance(data, DataSpec):
        return {name: (np.dtype(x.dtype), len(x.shape)) for name, x in data.example.items()}
    return {name: (value.dtype, value.ndim - 1) for name, value in data.items()}


def is_text(dtype: np.dtype[Any]) -> bool:
    """Return whether a column of `dtype` holds texts (or, as objects, anything that is not plain numbers)."""
    return dtype.kind in "OUS"


def checked(caller: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Return `columns` as a tuple; ConfigError unless it is a sequence of different names."""
    if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
        raise ConfigError(f"{caller}: columns={columns!r}: expected a tuple of names, such as ('age',)")
    if len(set(columns)) != len(columns):
        twice = next(name for name in columns if list(columns).count(name) > 1)
        raise ConfigError(f"{caller}: columns name {twice!r} twice")
    return tuple(columns)


def choose(caller: str, columns: Sequence[str], layout: Layout, *, text: bool, axes: int = 1) -> tuple[str, ...]:
    """Return `columns`, or if it is empty all columns of the kind but those of `RESERVED`.

    Args:
      caller: the transform's name, for messages.
      columns: names; () means all.
      layout: of the data.
      text: whether () means the texts or the numbers; those of at most one axis a row.
      axes: how many axes a row of a named column may have.

    Raises:
      ConfigError: a column that is not there or has more axes, or no column of the kind.
    """
    for name in columns:
        if name not in layout:
            raise ConfigError(f"{caller}: the data has no column {name!r}{did_you_mean(name, layout)}")
        if layout[name][1] > axes:
            raise ConfigError(f"{caller}: {name!r} has {layout[name][1]} axes a row; expected at most {axes}")
    if columns:
        return tuple(columns)
    free = {name: dtype for name, (dtype, own) in layout.items() if name not in RESERVED and own <= 1}
    found = tuple(name for name, dtype in free.items() if (is_text(dtype) if text else dtype.kind in "biuf"))
    if not found:
        kind = "text" if text else "numeric"
        raise ConfigError(f"{caller}: the data has no {kind} column; its fields: {', '.join(layout)}")
    return found


def take(caller: str, fields: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Return a column of a batch; DataError if this split does not have it."""
    if name not in fields:
        raise DataError(f"{caller}: the data has no column {name!r}{did_you_mean(name, fields)}")
    return np.asarray(fields[name])


def missing(column: np.ndarray) -> np.ndarray:
    """Return where a column has no value, as bool of its shape: NaN, None, NaT or an empty text."""
    if column.dtype.kind == "f":
        return np.isnan(column)
    if column.dtype.kind in "mM":
        return np.isnat(column)
    if not is_text(column.dtype):
        return np.zeros(column.shape, bool)
    absent = np.fromiter((_is_absent(value) for value in column.ravel()), bool, column.size)
    return absent.reshape(column.shape)


def numbers(name: str, column: np.ndarray) -> np.ndarray:
    """Return a column as float64, NaN where it is missing; DataError for a text, naming it."""
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    if column.dtype == object:
        plain = [np.nan if _is_absent(value) else value for value in column.ravel()]
        if all(isinstance(value, int | float | np.number | np.bool_) for value in plain):
            return np.asarray(plain, np.float64).reshape(column.shape)
    example = next((value for value in column.ravel().tolist() if isinstance(value, str | bytes) and value), None)
    found = f"such as {example!r}" if example is not None else f"of dtype {column.dtype}"
    raise DataError(f"column {name!r} holds values {found}; expected numbers")


def texts(name: str, column: np.ndarray) -> list[str]:
    """Return a column [B] as texts, the missing as ''; a number is written as briefly as it is exact."""
    if column.ndim != 1:
        raise DataError(
            f"column {name!r} has {column.shape[1:]} values a row; expected one category a row, not yet encoded"
        )
    return [_as_text(name, row, value) for row, value in enumerate(column.tolist())]


def _is_absent(value: Any) -> bool:
    if value is None or isinstance(value, str | bytes):
        return not value
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return str(value) in ("NaT", "<NA>")  # NumPy's and pandas's own, which compare to nothing


def _as_text(name: str, row: int, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"column {name!r}, row {row}, byte {error.start}: not UTF-8") from error
    if _is_absent(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
