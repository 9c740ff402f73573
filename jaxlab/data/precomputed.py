"""A source as transforms without randomness leave it, computed once, kept on disk, and served by array indexing.

Tokenising is the case in point: the second run, and the second epoch of the first, tokenise nothing. What is kept is
found again by the rows' fingerprint, the transforms' config, what they learnt and their modules' code. Knows no
transform. Usage: ``config.data.precomputed = 1`` for the first of ``config.data.transforms``.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec, Source, Transform
from jaxlab.data.cache import Kept, cached, home, key_of
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.pipeline import transformed_spec
from jaxlab.data.subset import fingerprint

_ROWS = 4096  # transformed at once
_one_at_a_time = threading.Lock()

_log = logging.getLogger(__name__)


class Precomputed:
    """Serves the transformed rows of a source; they are computed, or found on disk, when the first is asked for."""

    in_memory = True

    def __init__(self, source: Source, transforms: Sequence[Transform], facts: Sequence[Any]) -> None:
        """Serve `source` through `transforms`; `facts`, plain JSON, change whenever the transforms do."""
        self._source, self._transforms, self._facts = source, tuple(transforms), list(facts)
        self._rows: ColumnSource | None = None
        self._spec = transformed_spec(source, self._transforms)

    @property
    def spec(self) -> DataSpec:
        """The fields as the transforms leave them."""
        return self._spec

    @property
    def row_weights(self) -> np.ndarray | None:
        """The weights of the source's rows, where it has any, as mixtures do."""
        return getattr(self._source, "row_weights", None)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._source)

    def __getitems__(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the transformed rows at `indices` [n], one array [n, ...] a field."""
        if self._rows is None:
            with _one_at_a_time:
                self._rows = self._rows or self._computed()
        return self._rows.__getitems__(indices)

    def _computed(self) -> ColumnSource:
        key = key_of("precomputed", fingerprint(self._source), self._facts)
        arrays, _ = cached([home() / "precomputed" / key], self._compute)
        return ColumnSource(arrays, self._spec.meta)

    def _compute(self) -> Kept:
        name = self._source.spec.meta.get("name", "the data")
        _log.info("%s: applying %d transforms to %d rows, once", name, len(self._transforms), len(self))
        pieces: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(self), _ROWS):
            fields = self._source.__getitems__(np.arange(start, min(start + _ROWS, len(self))))
            for place, transform in enumerate(self._transforms):
                fields = transform(fields, _NoRandomness(place))
            for field, values in fields.items():
                pieces.setdefault(field, []).append(values)
        return {field: np.concatenate(values) for field, values in pieces.items()}, {}


class _NoRandomness:
    """Refuses to draw: what is computed once for all epochs must not be random."""

    def __init__(self, place: int) -> None:
        self._place = place

    def _refuse(self, *_: Any) -> np.ndarray:
        raise ConfigError(
            f"config.data.precomputed: config.data.transforms[{self._place}] draws random numbers, which would be the "
            f"same ones in every epoch; set config.data.precomputed={self._place} or less"
        )

    uniform = integers = normal = _refuse


def code_of(factory: Callable[..., Any]) -> str:
    """Return the text of the module that defines `factory`, so that an edited transform is applied anew."""
    try:
        return inspect.getsource(sys.modules[factory.__module__])
    except (OSError, TypeError):  # defined in an interpreter or a compiled module
        return ""
