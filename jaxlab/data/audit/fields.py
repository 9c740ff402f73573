"""The kinds of fields that an audit knows, and what it keeps of a block of rows of each.

A field is an *image* [H, W, C] of at least 8 x 8, *text*, a *category* (short or often repeated texts), *columns* (up
to 1,024 numbers a row), an *array* (more than that), a *sequence* (arrays of unequal shapes) or an *object*. Of an
image or array its range is kept, of a text its length and signature, of columns and categories the values.
Usage: ``keep(kind_of(values_B), values_B)``.

Shape letters: B rows of a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlab.data.audit import images as audit_images
from jaxlab.data.audit import text as audit_text
from jaxlab.data.audit.rows import hash_objects, hash_rows
from jaxlab.data.audit.table import missing

WIDEST = 1024  # numbers a row up to which each is a column of its own
_TEXT_CHARACTERS = 15  # mean length from which mostly different texts are texts, not names of categories

Kept = Mapping[str, np.ndarray]
"""What is kept of one field, each with leading axis B: always ``hash`` and ``missing`` (values missing in the row)."""


def plain(values: Any) -> np.ndarray:
    """Return a field's values as numbers, or as objects that are texts, arrays or None; times become seconds."""
    values = np.asarray(values)
    if values.dtype.kind in "biuf":
        return values
    if values.dtype.kind == "M":
        return np.where(np.isnat(values), np.nan, values.astype("datetime64[s]").astype(np.float64))
    flat = np.empty(len(values), object)
    flat[:] = [_plain_object(value) for value in values]
    present = [value for value in flat if value is not None]
    if present and all(isinstance(value, bool | int | float | np.number) for value in present):
        return np.array([np.nan if value is None else value for value in flat], np.float64)
    return flat


def kind_of(values: np.ndarray) -> str:
    """Return the kind of a field, judged by a block of its values [B, ...]."""
    if values.dtype.kind != "O":
        shape = values.shape[1:]
        if _is_image(shape):
            return "image"
        return "columns" if math.prod(shape) <= WIDEST else "array"
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, str) for value in present):
        long = sum(map(len, present)) >= _TEXT_CHARACTERS * len(present)
        return "text" if long and 2 * len(set(present)) > len(present) else "category"
    if present and all(isinstance(value, np.ndarray) and value.dtype.kind in "biuf" for value in present):
        return "image" if all(_is_image(value.shape) for value in present) else "sequence"
    return "object"


def keep(kind: str, values: np.ndarray) -> Kept:
    """Return what is kept of a block of a field of that kind."""
    match kind:
        case "image":
            kept = _keep_images(values)
        case "text":
            kept = _keep_texts(values)
        case "category":
            kept = {**_keep_objects(values), "values": values}
        case "columns":
            kept = _keep_columns(values if values.dtype.kind != "O" else values.astype(np.float64))
        case "array":
            kept = {**_keep_range(values), "hash": hash_rows(values)}
        case "sequence":
            kept = _keep_sequences(values)
        case _:
            kept = _keep_objects(values)
    return kept


def _keep_objects(values: np.ndarray) -> Kept:
    return {"hash": hash_objects(values), "missing": missing(values).astype(int)}


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and min(shape[:2]) >= audit_images.SMALLEST


def _plain_object(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return np.asarray(value) if isinstance(value, list) else value


def _keep_columns(values: np.ndarray) -> Kept:
    flat = values.reshape(len(values), -1)
    absent = np.isnan(flat).sum(axis=1) if values.dtype.kind == "f" else np.zeros(len(flat), int)
    return {"hash": hash_rows(flat), "missing": absent, "values": flat, "scalar": np.full(len(flat), values.ndim == 1)}


def _keep_texts(values: np.ndarray) -> Kept:
    texts = ["" if value is None else str(value) for value in values]
    return {
        **_keep_objects(values),
        "characters": np.array(list(map(len, texts))), "words": np.array([len(text.split()) for text in texts]),
        "signature": audit_text.signatures(texts),
    }  # fmt: skip


def _keep_range(rows: np.ndarray | list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return what a row's numbers span: lowest, highest, mean, and how many are not finite."""
    if isinstance(rows, np.ndarray):
        flat = rows.reshape(len(rows), -1)
        if flat.dtype.kind != "f" or np.isfinite(flat).all():
            none = np.zeros(len(flat), int)
            parts = (flat.min(axis=1), flat.max(axis=1), flat.mean(axis=1, dtype=np.float64), none)
            return dict(zip(("low", "high", "mean", "missing"), (p.astype(np.float64) for p in parts), strict=True))
        rows = list(flat)
    table = np.array([_range_of(np.asarray(row, np.float64)) for row in rows]).reshape(-1, 4)
    return dict(zip(("low", "high", "mean", "missing"), table.T, strict=True))


def _range_of(row: np.ndarray) -> tuple[float, float, float, float]:
    finite = row[np.isfinite(row)]
    span = (finite.min(), finite.max(), finite.mean()) if finite.size else (np.nan, np.nan, np.nan)
    return (*span, float(row.size - finite.size))


def _keep_images(values: np.ndarray) -> Kept:
    ragged = values.dtype.kind == "O"
    images = [np.zeros((8, 8, 1)) if value is None else value for value in values] if ragged else values
    marks = audit_images.fingerprint(images)
    kept = _keep_range(images)
    if ragged:
        kept["missing"] = kept["missing"] + missing(values)
    hashed = hash_objects(list(values)) if ragged else hash_rows(values)
    return {**kept, "hash": hashed, "near": marks.hashes, "small": marks.small}


def _keep_sequences(values: np.ndarray) -> Kept:
    rows = [np.empty(0) if value is None else value for value in values]
    kept = _keep_range(rows)
    lengths = np.array([len(row) if row.ndim else 1 for row in rows])
    return {**kept, "missing": kept["missing"] + missing(values), "length": lengths, "hash": hash_objects(list(values))}
