"""Decodes rows of a prepared TFDS split, keeps them decoded, and says which of them are corrupt.

Knows one split and its fields; which split is wanted, and how it is served, is for `jaxlab.data.tfds_source`.
Usage: ``Rows(builder, "train", fields).stacked([3, 1])``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.arrays import DEVICE_DTYPES
from jaxlab.data.cache import Kept, cached, fingerprint

OBJECT = np.dtype(object)
_DECODE_ROWS = 1024  # decoded Python objects that exist at once

_log = logging.getLogger(__name__)


class Field(NamedTuple):
    """One field of an example and the dtype it is served in.

    `shape` is that of every row; () of dtype object is a text; None is what differs by row, or isn't numbers.
    """

    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]

    @property
    def is_text(self) -> bool:
        """Whether the field is served as `str`."""
        return self.shape == () and self.dtype == OBJECT


def field_of(feature: Any) -> Field:
    """Return how a feature of TFDS is served."""
    shape, dtype = feature.shape, feature.np_dtype
    if isinstance(feature, tfds.features.Text):
        return Field((), OBJECT)
    if not isinstance(shape, tuple) or None in shape or isinstance(dtype, dict) or np.dtype(dtype).kind not in "biuf":
        return Field(None, OBJECT)
    return Field(shape, np.dtype(DEVICE_DTYPES.get(np.dtype(dtype).name, dtype)))


class Rows:
    """A split's rows, decoded when asked; holds open files."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, fields: Mapping[str, Field]) -> None:
        """Open `split` of a prepared data set."""
        self._source = builder.as_data_source(split)
        parts = builder.info.splits[split].file_instructions
        self._files = [(part.filename, sum(p.take for p in parts[: i + 1])) for i, part in enumerate(parts)]
        self._name, self._fields = f"{builder.info.name}, split {split!r}", dict(fields)

    def stacked(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the rows at `indices` stacked, one array [n, ...] a field; a DataError names the first corrupt one."""
        found, corrupt = self.readable(indices)
        if corrupt:
            raise self.error(*next(iter(corrupt.items())))
        return found

    def readable(self, indices: Sequence[int]) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Return the rows at `indices` that can be read, stacked, and for each of the others what is wrong with it."""
        try:
            rows, corrupt = [self._checked(row) for row in self._source.__getitems__(list(indices))], {}
        except (ImportError, MemoryError):  # nothing that the rows could help
            raise
        except Exception:  # one row is corrupt, and none of them comes
            rows, corrupt = self._one_by_one(indices)
        return self._stack(rows), corrupt

    def error(self, index: int, reason: str) -> DataError:
        """Return what tells the user that the row `index` is corrupt, for `reason`, and in which file."""
        file = next(file for file, end in self._files if index < end)
        remedy = "prepare the data set again, or leave such rows out with on_error='skip'"
        return DataError(f"{self._name}: row {index} in {file} is corrupt: {reason}; {remedy}")

    def _one_by_one(self, indices: Sequence[int]) -> tuple[list[Mapping[str, Any]], dict[int, str]]:
        rows, corrupt = [], {}
        for index in indices:
            try:
                rows.append(self._checked(self._source.__getitems__([index])[0]))
            except (ImportError, MemoryError):
                raise
            except Exception as error:  # array_record, protobuf and every decoder have errors of their own
                corrupt[index] = f"{error or type(error).__name__}"
        return rows, corrupt

    def _checked(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the row with texts as `str`; a ValueError where a field is missing or is not UTF-8."""
        texts = {}
        for name, field in self._fields.items():
            value = row[name]
            if value is None:  # what TFDS makes of a record that lacks the field, such as one of a file cut short
                raise ValueError(f"field {name!r} is missing")
            if field.is_text:
                try:
                    texts[name] = value if isinstance(value, str) else bytes(value).decode("utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(f"field {name!r}: byte {error.start} is not UTF-8") from error
        return {**row, **texts} if texts else row

    def _stack(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Return the rows' fields stacked: [n, *shape] in the field's dtype, or [n] objects."""
        stacked = {}
        for name, (shape, dtype) in self._fields.items():
            if dtype == OBJECT or shape is None:
                stacked[name] = np.empty(len(rows), object)
                for i, row in enumerate(rows):
                    stacked[name][i] = row[name]
                continue
            values = np.stack([row[name] for row in rows]) if rows else np.empty((0, *shape), dtype)
            if values.shape[1:] != shape:
                raise DataError(f"field {name!r}: rows of shape {values.shape[1:]}; its features say {shape}")
            stacked[name] = values.astype(dtype, copy=False)
            if dtype.kind in "iu" and values.dtype != dtype and not np.array_equal(stacked[name], values):
                largest = np.abs(values).max()
                raise DataError(f"field {name!r}: values up to {largest} do not fit {dtype}, JAX's default")
        return stacked


def decoded(
    builder: tfds.core.DatasetBuilder, split: str, fields: Mapping[str, Field], cache: Path, on_error: str
) -> Kept:
    """Return the split's arrays, and their fingerprint and the rows skipped, from the folder `cache` or by decoding."""
    return cached(
        [cache],
        lambda: _decode(builder, split, fields, on_error),
        lambda facts: on_error == "skip" or not facts["skipped"],
    )


def _decode(builder: tfds.core.DatasetBuilder, split: str, fields: Mapping[str, Field], on_error: str) -> Kept:
    size = builder.info.splits[split].num_examples
    _log.info("%s: decoding %d rows of %s, once", builder.info.name, size, split)
    rows, kept, corrupt = Rows(builder, split, fields), 0, {}
    arrays = {name: np.empty((size, *(field.shape or ())), field.dtype) for name, field in fields.items()}
    for start in range(0, size, _DECODE_ROWS):
        stacked, bad = rows.readable(range(start, min(start + _DECODE_ROWS, size)))
        corrupt |= bad
        if corrupt and on_error == "raise":
            raise rows.error(*next(iter(corrupt.items())))
        stop = kept + len(next(iter(stacked.values())))
        for name, values in stacked.items():
            arrays[name][kept:stop] = values
        kept = stop
    _report(rows, corrupt, size)
    arrays = {name: values[:kept] for name, values in arrays.items()}
    return arrays, {"fingerprint": fingerprint(arrays), "skipped": list(corrupt)}


def corrupt_rows(
    builder: tfds.core.DatasetBuilder, split: str, fields: Mapping[str, Field], cache: Path
) -> tuple[int, ...]:
    """Return the rows of a split that cannot be read, from the folder `cache` or by reading all of it, once."""

    def look() -> Kept:
        size = builder.info.splits[split].num_examples
        _log.info("%s: looking for corrupt rows in %d of %s, once", builder.info.name, size, split)
        rows, corrupt = Rows(builder, split, fields), {}
        for start in range(0, size, _DECODE_ROWS):
            corrupt |= rows.readable(range(start, min(start + _DECODE_ROWS, size)))[1]
        _report(rows, corrupt, size)
        return {}, {"skipped": list(corrupt)}

    return tuple(cached([cache], look)[1]["skipped"])


def _report(rows: Rows, corrupt: Mapping[int, str], size: int) -> None:
    """Log how many rows are left out; where that is all of them, a DataError."""
    if corrupt:
        first = rows.error(*next(iter(corrupt.items())))
        if len(corrupt) == size:
            raise first
        _log.warning("%d of %d rows are left out, the first: %s", len(corrupt), size, first)
