"""Whether a saved tree is the one that is wanted: Orbax would cast a dtype without a word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxlab.core.errors import DataError, did_you_mean
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import PyTree


def check_like(folder: Path, saved: Mapping[str, tuple[list[int], str]], like: PyTree) -> None:
    """Raise DataError for a leaf of `like` that was not `saved` (shape and dtype by name), or otherwise."""
    for name, leaf in named_leaves(like).items():
        if name not in saved:
            raise DataError(f"{folder} holds no {name!r}{did_you_mean(name, saved)}")
        shape, dtype = saved[name]
        if tuple(shape) != tuple(leaf.shape) or dtype != str(leaf.dtype):
            raise DataError(f"{folder}: {name} is {dtype}{list(shape)}; expected {leaf.dtype}{list(leaf.shape)}")
