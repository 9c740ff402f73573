"""Saved states leaf by leaf: read as arrays on the host, compared bit by bit or by how far they are apart.

Usage: ``reader = Reader(folder)``; ``first_difference(reader.read(one, 100), reader.read(other, 100))``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from jaxlab.core import record
from jaxlab.core.tree import named_leaves
from jaxlab.run.assemble import assemble
from jaxlab.run.restore import open_checkpoints, restore
from jaxlab.train.parallel import make_strategy

Leaves = Mapping[str, np.ndarray]
"""A checkpoint's arrays by path: ``state/params/Dense_0/kernel``, ``state/opt_state/…``, ``window/…``."""


class Reader:
    """Reads checkpoints of runs that have the config of the run at `folder`; its own data are opened for their spec."""

    def __init__(self, folder: Path) -> None:
        """Find the shapes of the state.

        Raises:
          ConfigError, DataError: the run cannot be assembled here.
        """
        experiment = assemble(record.trusted_config(folder), ("train",), record.read_learnt(folder))
        self._shapes = experiment.abstract_step()
        self._strategy = make_strategy("jit", {"data": 1}, jax.devices())

    def steps(self, folder: Path) -> list[int]:
        """Return the steps that the run at `folder` has saved."""
        if not (folder / record.CHECKPOINTS).is_dir():
            return []
        with open_checkpoints(folder) as checkpoints:
            return checkpoints.steps()

    def read(self, folder: Path, step: int) -> Leaves:
        """Return what the run at `folder` saved at `step`."""
        with open_checkpoints(folder) as checkpoints:
            tree = restore(checkpoints, step, self._shapes, self._strategy)
        return {name: np.asarray(leaf) for name, leaf in named_leaves(jax.device_get(tree)).items()}


def digest(leaf: np.ndarray) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes."""
    return hashlib.sha256(f"{leaf.dtype} {leaf.shape} ".encode() + leaf.tobytes()).hexdigest()


def differing(one: Leaves, other: Leaves) -> list[str]:
    """Return the paths of leaves whose bits differ, or that one lacks, in the tree's order."""
    names = [*one, *(name for name in other if name not in one)]
    return [n for n in names if n not in one or n not in other or digest(one[n]) != digest(other[n])]


def distances(one: Leaves, other: Leaves) -> dict[str, float]:
    """Return for each part of the state, and each leaf of integers, how far the second is from the first.

    A part is a collection, such as ``state/params``: the norm of all differences over the norm of all values, since a
    leaf of its own may be nothing but rounding (a bias before a normalisation). Integers are the same, or far: inf.
    """
    squares: dict[str, list[float]] = {}
    found: dict[str, float] = {}
    for name in dict.fromkeys([*one, *other]):
        if name not in one or name not in other or one[name].shape != other[name].shape:
            found[name] = math.inf
        elif one[name].dtype.kind in "biu":
            found[name] = 0.0 if np.array_equal(one[name], other[name]) else math.inf
        else:
            first, second = (np.asarray(leaf[name], np.float64) for leaf in (one, other))
            sums = squares.setdefault("/".join(name.split("/")[:2]), [0.0, 0.0])
            sums[0] += float(np.sum((first - second) ** 2))
            sums[1] += float(np.sum(first**2))
    ratios = {part: relative(math.sqrt(apart), math.sqrt(whole)) for part, (apart, whole) in squares.items()}
    return ratios | found


def relative(apart: float, whole: float) -> float:
    """Return one size over another; no difference is none, whatever the whole, and one that is no number infinite."""
    if apart == 0:
        return 0.0
    return apart / whole if whole > 0 and math.isfinite(apart) else math.inf
