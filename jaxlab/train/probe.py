"""Looks at every module call of a model, forward and backward, for the first tensor that is not finite.

Un-jitted, so that operations happen in the order in which they are written; where a lifted transform traces its body
all the same (`nn.remat`), callbacks report from inside it. Knows no run and no objective.
Shape letters: B rows of a batch.
Usage: ``with watching() as sightings: apply(...)``; the first of `sightings` that is bad is near the culprit.
"""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxlab.core.tree import named_leaves
from jaxlab.core.types import Array, PyTree

FORWARD = "forward"  # what a module returned
ARRIVING = "arriving"  # the gradient that arrived at what a module returned
LEAVING = "leaving"  # the gradient that a module passed back to one of its inputs


class Numbers(NamedTuple):
    """What an array, or several, held. `negative` counts the infinite ones below zero; the bounds are of the finite."""

    nan: int
    infinite: int
    negative: int
    low: float
    high: float

    @property
    def bad(self) -> bool:
        """Whether anything is not finite."""
        return self.nan + self.infinite > 0

    @property
    def masked(self) -> bool:
        """Whether nothing but minus infinity is not finite: what a mask of scores looks like."""
        return self.bad and self.nan == 0 and self.infinite == self.negative

    @property
    def largest(self) -> float:
        """The largest finite magnitude."""
        return max(abs(self.low), abs(self.high))


class Call(NamedTuple):
    """A module as it is called: its path with the method where that is not ``__call__``, and its class."""

    module: str
    class_name: str


class Sighting(NamedTuple):
    """A tensor as it came by."""

    kind: str
    at: Call
    within: Call | None  # the call whose body made this one; None for whoever called the model
    number: int  # the how-manieth of its kind at this module: of a scan forward, the layer
    device: int  # along the mapped axis
    leaf: str
    shape: tuple[int, ...]
    dtype: str
    numbers: Numbers
    rows: np.ndarray  # [B] or whatever the leading axis is: whether anything of the row is not finite
    inputs: Numbers | None  # forward only: what the module was given

    @property
    def bad(self) -> bool:
        """Whether anything in it is not finite."""
        return self.numbers.bad


@contextlib.contextmanager
def watching(axis: str | None = None, *, jitted: bool = False) -> Iterator[list[Sighting]]:
    """Collect sightings, in order, of all Linen modules that are called inside.

    Args:
      axis: the mapped axis, if the calls stand under one; its index is the sightings' `device`.
      jitted: whether to leave compilation on; the order is then that of the compiled program.
    """
    sightings: list[Sighting] = []
    counts: collections.Counter[tuple[Any, ...]] = collections.Counter()
    calls: list[Call] = []

    def note(kind: str, at: Call, within: Call | None, device: Any, leaves: dict[str, Any], inputs: Any = None) -> None:
        given = None if inputs is None else numbers_of(*inputs)
        for leaf, value in leaves.items():
            x, place = np.asarray(value), (kind, at, leaf, int(device))
            sightings.append(
                Sighting(kind, at, within, counts[place], int(device), leaf, x.shape, str(x.dtype), numbers_of(x),
                         _bad_rows(x), given)
            )  # fmt: skip
            counts[place] += 1

    def intercept(
        function: Callable[..., Any], arguments: Any, keywords: Any, context: nn.module.InterceptorContext
    ) -> Any:
        if context.method_name == "setup":
            return function(*arguments, **keywords)
        method = "" if context.method_name == "__call__" else f".{context.method_name}"
        at = Call(("/".join(context.module.path) or "the model") + method, type(context.module).__name__)
        seen = functools.partial(note, at=at, within=calls[-1] if calls else None)
        arguments, keywords = _tapped((arguments, keywords), functools.partial(seen, LEAVING), axis)
        calls.append(at)
        try:
            outputs = function(*arguments, **keywords)
        finally:
            calls.pop()
        inputs = [x for x in jax.tree.leaves((arguments, keywords)) if _is_floating(x)]
        leaves = {name: x for name, x in named_leaves(outputs).items() if _is_floating(x)}
        if leaves:
            outputs = _reported(functools.partial(seen, FORWARD), outputs, _device(axis), leaves, inputs)
        return _tapped(outputs, functools.partial(seen, ARRIVING), axis)

    with contextlib.nullcontext() if jitted else jax.disable_jit(), nn.intercept_methods(intercept):
        yield sightings
        jax.effects_barrier()


def numbers_of(*arrays: Any) -> Numbers:
    """Return what floating-point arrays hold, all together."""
    found = [_numbers(np.asarray(x).astype(np.float32)) for x in arrays if np.size(x)]
    if not found:
        return Numbers(0, 0, 0, 0.0, 0.0)
    nan, infinite, negative = (sum(each) for each in zip(*(x[:3] for x in found), strict=True))
    return Numbers(nan, infinite, negative, min(x.low for x in found), max(x.high for x in found))


def not_finite(tree: PyTree) -> dict[str, int]:
    """Return how many numbers of each leaf, by name, are not finite, where any is."""
    found = {name: numbers_of(x) for name, x in named_leaves(tree).items() if _is_floating(x)}
    return {name: numbers.nan + numbers.infinite for name, numbers in found.items() if numbers.bad}


def _numbers(x: np.ndarray) -> Numbers:
    finite = np.isfinite(x)
    kept = x[finite] if not finite.all() else x
    low, high = (float(kept.min()), float(kept.max())) if kept.size else (0.0, 0.0)
    return Numbers(int(np.isnan(x).sum()), int(np.isinf(x).sum()), int(np.isneginf(x).sum()), low, high)


def _bad_rows(x: np.ndarray) -> np.ndarray:
    if not x.ndim:
        return np.zeros(0, bool)
    return np.asarray(~np.isfinite(x.astype(np.float32)).all(axis=tuple(range(1, x.ndim))))


def _reported(seen: Callable[..., None], outputs: PyTree, *values: PyTree) -> PyTree:
    """Return `outputs`, which need the report of `values`, so that it is made where they are.

    A callback without a result would be an effect, which Flax's newer `nn.scan` takes for a carried value when it
    looks for what its layers share.
    """

    def report(device: Any, leaves: dict[str, Any], inputs: Any) -> np.ndarray:
        seen(device=device, leaves=leaves, inputs=inputs)
        return np.zeros((), np.int32)

    done = jax.ShapeDtypeStruct((), np.int32)
    token = jax.pure_callback(report, done, *jax.lax.stop_gradient(values), vmap_method="sequential")
    return jax.tree.map(lambda x: jax.numpy.where(token == 0, x, 0) if _is_floating(x) else x, outputs)


def _tapped(tree: PyTree, seen: Callable[..., None], axis: str | None) -> PyTree:
    """Return `tree`, of whose arrays the gradients are seen when they come by."""

    def tap(path: Any, x: Any) -> Any:
        if not isinstance(x, jax.Array) or not _is_floating(x) or x.weak_type:  # a tap would make the type strong
            return x
        leaf = jax.tree_util.keystr(path, simple=True, separator="/")

        @jax.custom_vjp
        def identity(x: Array) -> Array:
            return x

        def backward(_: None, gradient: Array) -> tuple[Array]:
            jax.debug.callback(
                lambda device, gradient: seen(device=device, leaves={leaf: gradient}), _device(axis), gradient
            )
            return (gradient,)

        identity.defvjp(lambda x: (x, None), backward)
        return identity(x)

    return jax.tree_util.tree_map_with_path(tap, tree)


def _device(axis: str | None) -> Any:
    return 0 if axis is None else jax.lax.axis_index(axis)


def _is_floating(x: Any) -> bool:
    return hasattr(x, "dtype") and jax.numpy.issubdtype(x.dtype, jax.numpy.floating)
