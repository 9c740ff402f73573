"""What a column of a saved Hugging Face data set holds, and its values as arrays.

Knows one column at a time; which are served, and from where, is for `jaxlab.data.huggingface`.
Usage: ``values_of(table["text"], rows, "text", column_of("text", dataset.features["text"], (), 3))``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxlab.core import limits
from jaxlab.core.errors import DataError
from jaxlab.data.arrays import DEVICE_DTYPES
from jaxlab.data.picture import decode

if TYPE_CHECKING:
    import pyarrow as pa


class Column(NamedTuple):
    """What one column holds: ``number``, ``list``, ``array``, ``text`` or ``image``, and a row's shape and dtype.

    `resize` says that pictures are brought to the shape; else all must have it, or the shape is only (channels,).
    """

    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    classes: tuple[str, ...] = ()
    resize: bool = False


def column_of(where: str, feature: Any, size: tuple[int, ...], channels: int) -> Column:
    """Return how a column of the type `feature` is served; a DataError that begins with `where` if it can't be."""
    import datasets as library

    if isinstance(feature, library.ClassLabel):
        return Column("number", (), np.dtype(np.int32), tuple(feature.names))
    if isinstance(feature, library.Image):
        return Column("image", (*size, channels), np.dtype(np.uint8), resize=bool(size))
    if isinstance(feature, library.Value) and feature.dtype in ("string", "large_string"):
        return Column("text", (), np.dtype(object))
    inner, kind, shape = feature, "number", ()
    if isinstance(feature, library.Array2D | library.Array3D | library.Array4D | library.Array5D):
        inner, kind, shape = library.Value(feature.dtype), "array", feature.shape
    elif getattr(feature, "length", -1) >= 0:
        inner, kind, shape = feature.feature, "list", (feature.length,)
    dtype = getattr(inner, "dtype", "") if isinstance(inner, library.Value) else ""
    if None in shape or not dtype.startswith(("bool", "int", "uint", "float")):
        raise DataError(
            f"{where} is {feature}; expected numbers of a fixed shape, texts or pictures: convert it "
            "before saving (strings to classes: dataset.class_encode_column), or name the others in columns"
        )
    return Column(kind, tuple(shape), np.dtype(DEVICE_DTYPES.get(dtype, dtype)))


def check_values(where: str, column: Column, values: pa.ChunkedArray) -> None:
    """Raise a DataError where values are missing that cannot be, or labels are none of their classes."""
    import pyarrow.compute as pc

    may_miss = column.kind == "text" or (column.kind == "number" and column.dtype.kind == "f")
    if values.null_count and not may_miss:
        row = pc.index(pc.is_null(values), True).as_py()
        raise DataError(f"{where}: row {row} is missing ({values.null_count} are); filter them out")
    if column.classes:
        extremes, classes = pc.min_max(values).as_py(), len(column.classes)
        if extremes["min"] < 0 or extremes["max"] >= classes:
            row = pc.index(pc.or_(pc.less(values, 0), pc.greater_equal(values, classes)), True).as_py()
            raise DataError(f"{where}: row {row} is class {values[row]}, of classes 0 to {classes - 1}")


def values_of(values: pa.ChunkedArray, rows: list[int], name: str, column: Column) -> np.ndarray:
    """Return gathered values as an array [n, *shape]."""
    if column.kind == "image":
        return pictures_of(values, rows, name, column)
    whole = values.combine_chunks()
    if column.kind == "list":
        whole = whole.flatten()
    if whole.null_count and column.dtype.kind in "biu":
        raise DataError(f"column {name!r}: a number is missing in one of the rows {rows[:8]}...")
    found = whole.to_numpy(zero_copy_only=False).reshape(len(rows), *column.shape)
    served = found.astype(column.dtype, copy=False)
    if column.dtype.kind in "iu" and found.dtype != column.dtype and not np.array_equal(served, found):
        raise DataError(f"column {name!r}: values up to {np.abs(found).max()} do not fit {column.dtype}, JAX's default")
    return served


def pictures_of(values: pa.ChunkedArray, rows: list[int], name: str, column: Column) -> np.ndarray:
    """Return pictures decoded, uint8 [n, H, W, C]; a DataError names the row of one that is corrupt or of another size.

    Args:
      values: of an Image column: structs of the file's bytes, or its path.
      rows: their numbers.
      name: the column's.
      column: how it is served.
    """
    pictures: list[np.ndarray] = []
    for row, value in zip(rows, values.to_pylist(), strict=True):
        try:
            content = value["bytes"] if value["bytes"] is not None else limits.read_bytes(Path(value["path"]))
            picture = decode(content, column.shape[:2] if column.resize else None, column.shape[-1])
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # each of Pillow's plug-ins has errors of its own
            raise DataError(f"column {name!r}: row {row} cannot be read as a picture: {error}") from error
        if len(column.shape) == 3 and picture.shape != column.shape:
            sizes = f"{picture.shape[:2]}, the first {column.shape[:2]}"
            raise DataError(f"column {name!r}: row {row} is a picture of size {sizes}; give size=(height, width)")
        pictures.append(picture)
    return np.stack(pictures) if pictures else np.empty((0, *column.shape), np.uint8)
