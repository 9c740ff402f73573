"""Reads text fields, of a source or of a batch, and pads what becomes of them. Knows no tokenizer.

Usage: ``for text in texts_of(source, ("text",)): ...``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Source

_READ_ROWS = 1024  # texts that are read from the source at once


def texts_of(source: Source, fields: Sequence[str]) -> Iterator[str]:
    """Yield the texts of a source in its order, row by row; only some are in memory at once."""
    for start in range(0, len(source), _READ_ROWS):
        rows = source.__getitems__(np.arange(start, min(start + _READ_ROWS, len(source))))
        columns = [as_texts(text_column(rows, field), field, start) for field in fields]
        for row in zip(*columns, strict=True):
            yield from row


def as_texts(values: np.ndarray, field: str, first: int = 0) -> list[str]:
    """Return texts [n] as a list; bytes are decoded.

    Raises:
      DataError: a value that is no text, or bytes that are not UTF-8; `first` is the number of the first row.
    """
    return [x if type(x) is str else _text(x, field, first + i) for i, x in enumerate(values.tolist())]


def _text(value: Any, field: str, row: int) -> str:
    if isinstance(value, str):
        return str(value)
    if not isinstance(value, bytes):
        raise DataError(f"field {field!r}, row {row}: {value!r} is a {type(value).__name__}; expected a text")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"field {field!r}, row {row}, byte {error.start}: not UTF-8 ({error.reason})") from error


def text_column(rows: Mapping[str, np.ndarray], field: str) -> np.ndarray:
    """Return a field of `rows`; a ConfigError that names the nearest if there is none."""
    if field not in rows:
        raise ConfigError(f"a text field {field!r} is configured, but the data has none{did_you_mean(field, rows)}")
    return rows[field]


def padded(documents: Sequence[np.ndarray], length: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Return documents [T_i] cut and padded to int32 [B, T], and the mask float32 [B, T]."""
    mask_BT = np.arange(length) < np.array([len(ids) for ids in documents], int)[:, None]
    tokens_BT = np.full(mask_BT.shape, pad, np.int32)
    if documents:
        tokens_BT[mask_BT] = np.concatenate([ids[:length] for ids in documents])
    return tokens_BT, mask_BT.astype(np.float32)
