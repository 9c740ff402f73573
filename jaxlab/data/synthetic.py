"""Random tokens, to plan and to time trainings of any size without data: nothing can be learnt from them.

Shape letters: B rows, T tokens.
Usage: ``config.data.train = spec("jaxlab.data.synthetic:tokens", vocabulary_size=128_256, length=8192)``.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # splitmix64: Steele, Lea & Flood 2014


class Tokens:
    """Rows of uniform random tokens, each a function of its number."""

    in_memory = True

    def __init__(self, vocabulary_size: int, length: int, size: int) -> None:
        """Have `size` rows of `length` tokens."""
        example = {"tokens": jax.ShapeDtypeStruct((length,), np.int32)}
        self._length, self._vocabulary_size = length, vocabulary_size
        self._spec = DataSpec(example, size, {"vocabulary_size": vocabulary_size})

    @property
    def spec(self) -> DataSpec:
        """The facts."""
        return self._spec

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return ``tokens`` [B, T] of the rows of `indices` [B]."""
        place_BT = indices.astype(np.uint64)[:, None] * np.uint64(self._length) + np.arange(
            self._length, dtype=np.uint64
        )
        return {"tokens": (_mixed(place_BT) % np.uint64(self._vocabulary_size)).astype(np.int32)}


def tokens(vocabulary_size: int = 50_304, length: int = 1024, size: int = 1_000_000) -> Tokens:
    """Return a source of random tokens.

    Args:
      vocabulary_size: ids are below it.
      length: tokens a row.
      size: rows.

    Raises:
      ConfigError: a number that cannot be.
    """
    for name, value in (("vocabulary_size", vocabulary_size), ("length", length), ("size", size)):
        if value < 1:
            raise ConfigError(f"{name}={value}: expected 1 or more")
    return Tokens(vocabulary_size, length, size)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Return each uint64 with its bits mixed."""
    x = (x + np.uint64(1)) * _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
