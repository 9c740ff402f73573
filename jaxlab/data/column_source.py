"""A source over columns in memory of which some hold texts: numbers as `ArraySource` serves them, texts as objects.

A text is a ``str`` or None (missing) and stays on the host: a transform turns it into numbers before devices see it.
Usage: ``ColumnSource({"size": sizes, "colour": np.array(["red", None], object)}, {"name": "shirts"})``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxlab.core.errors import DataError
from jaxlab.core.types import DataSpec
from jaxlab.data.arrays import ArraySource


class ColumnSource:
    """Serves rows of equally long columns, gathered at once."""

    in_memory = True

    def __init__(self, columns: Mapping[str, np.ndarray], meta: Mapping[str, Any] | None = None) -> None:
        """Hold `columns`, each [N, ...]; those of dtype object are [N] texts.

        Raises:
          DataError: no column, unequal lengths, no rows, or a column that holds neither numbers nor texts.
        """
        texts = {name: value for name, value in columns.items() if value.dtype == object}
        numbers = {name: value for name, value in columns.items() if name not in texts}
        lengths = {name: len(value) for name, value in columns.items()}
        if not columns or len(set(lengths.values())) != 1 or min(lengths.values()) < 1:
            raise DataError(f"columns must be equally long and not empty; lengths by name: {lengths}")
        for name, values in texts.items():
            wrong = next((i for i, value in enumerate(values) if not isinstance(value, str | None)), None)
            if wrong is not None:
                found = type(values[wrong]).__name__
                raise DataError(f"field {name!r}: row {wrong} is a {found}; expected a text or None")
        self._texts = texts
        self._numbers = ArraySource(numbers) if numbers else None
        known = self._numbers.spec.example if self._numbers else {}
        text = jax.ShapeDtypeStruct((), np.dtype(object))
        self._spec = DataSpec({n: known.get(n, text) for n in columns}, next(iter(lengths.values())), dict(meta or {}))

    @property
    def spec(self) -> DataSpec:
        """The fields' shapes and dtypes (a text: object of shape ()), the number of rows and the facts given."""
        return self._spec

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `indices` [n], one array [n, ...] a field."""
        rows = dict(self._numbers.__getitems__(indices)) if self._numbers else {}
        rows |= {name: values.take(indices) for name, values in self._texts.items()}
        return {name: rows[name] for name in self._spec.example}
