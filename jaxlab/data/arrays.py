"""A source over arrays in memory: your own NumPy arrays, or anything that fits and has been decoded once.

Usage: ``ArraySource({"image": x, "label": y}, {"classes": ("cat", "dog")})``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxlab.core.errors import DataError
from jaxlab.core.types import DataSpec, Source

DEVICE_DTYPES = {"float64": np.float32, "int64": np.int32, "uint64": np.uint32}  # what JAX holds without x64


def in_memory(source: Source) -> bool:
    """Return whether a source says that its rows are at hand, so that reading them needs no process of its own."""
    return bool(getattr(source, "in_memory", False))


class ArraySource:
    """Serves rows of equally long arrays, gathered at once."""

    in_memory = True

    def __init__(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any] | None = None) -> None:
        """Hold `arrays`, each [N, ...], as C-contiguous arrays of a dtype that JAX has.

        Args:
          arrays: fields by name; numbers or booleans.
          meta: facts about the data, such as ``classes``, a tuple of class names.

        Raises:
          DataError: no field, fields of unequal lengths, no rows, or a field that is not numeric or does not fit
            the dtype that JAX has for it.
        """
        converted = {name: _array(name, value) for name, value in arrays.items()}
        lengths = {name: len(value) if value.ndim else -1 for name, value in converted.items()}
        if not converted or len(set(lengths.values())) != 1 or min(lengths.values()) < 1:
            raise DataError(f"arrays must be equally long and not empty; lengths by field: {lengths}")
        for name, value in converted.items():
            if value.dtype.kind not in "biuf":
                raise DataError(f"field {name!r} has dtype {value.dtype}; expected numbers or booleans")
        self._arrays = {name: _held(name, value) for name, value in converted.items()}
        example = {name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in self._arrays.items()}
        self._spec = DataSpec(example, next(iter(lengths.values())), dict(meta or {}))

    @property
    def spec(self) -> DataSpec:
        """The fields' shapes and dtypes, the number of rows and the facts given."""
        return self._spec

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `indices` [n], one array [n, ...] a field."""
        return {name: value.take(indices, axis=0) for name, value in self._arrays.items()}


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"field {name!r}: {error}; expected rows of one shape") from error


def _held(name: str, value: np.ndarray) -> np.ndarray:
    held = np.ascontiguousarray(value, dtype=DEVICE_DTYPES.get(value.dtype.name, value.dtype))
    if held.dtype.kind in "iu" and held.dtype != value.dtype and not np.array_equal(held, value):
        raise DataError(f"field {name!r}: values from {value.min()} to {value.max()} do not fit {held.dtype}")
    return held
