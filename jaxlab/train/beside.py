"""A few seeds at a time on one CPU, each by a call of one seed's compiled step on a thread of its own.

A small step leaves part of two cores idle, as its operations wait for each other; those of two seeds do not. A tree of
all seeds is a tuple with a part for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from jaxlab.core.types import PyTree, TrainState
from jaxlab.train.stacked import Axes, OneByOne
from jaxlab.train.window import Window


class Beside:
    """See `jaxlab.train.stacked.Lift`; functions are compiled ones of one seed."""

    def __init__(self, one: OneByOne, count: int) -> None:
        """Train at most `count` seeds, two or more, each as `one` does."""
        self._one, self._others = one, ThreadPoolExecutor(count - 1, "jaxlab-seed")

    def __call__(self, function: Callable[..., PyTree], axes: Axes) -> Callable[..., PyTree]:
        def all_seeds(*arguments: PyTree) -> tuple[PyTree, ...]:
            parted = list(zip(axes, arguments, strict=True))
            count = next(len(argument) for axis, argument in parted if axis is not None)
            first, *others = ([a if axis is None else a[place] for axis, a in parted] for place in range(count))
            calls = [self._others.submit(function, *given) for given in others]
            return (function(*first), *(call.result() for call in calls))

        return all_seeds

    def placement(self, axis: int | None) -> Sharding:
        return self._one.placement(axis)

    def put(self, tree: PyTree, axis: int | None) -> PyTree:
        if axis is None:
            return self._one.put(tree, None)
        count = np.shape(jax.tree.leaves(tree)[0])[axis]
        return tuple(self._one.put(tree, axis, place) for place in range(count))

    def lane(self, tree: PyTree, place: int) -> PyTree:
        return tree[place]

    def joined(self, lanes: Sequence[PyTree]) -> PyTree:
        return tuple(self._one.put(lane, None) for lane in lanes)


@dataclasses.dataclass(frozen=True)
class StepBeside:
    """The compiled step of one seed as that of several."""

    step: Any
    lift: Beside

    def __call__(self, *arguments: PyTree) -> tuple[tuple[TrainState, ...], tuple[Window, ...]]:
        """Take states, windows, seeds and chunks, and where several steps are taken at once the last one."""
        states, windows = zip(*self.lift(self.step, (0, 0, 0, 0, None)[: len(arguments)])(*arguments), strict=True)
        return states, windows

    def lower(self, *arguments: PyTree) -> Any:
        """Lower it for the first seed's arguments, as `jax.jit` functions do."""
        return self.step.lower(*(argument[0] for argument in arguments[:4]), *arguments[4:])
