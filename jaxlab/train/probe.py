"""Looks at every module call of a model, forward and backward, for the first tensor that is not finite.

Un-jitted, so that operations happen in the order in which they are written; where a lifted transform traces its body
all the same (`nn.remat`), callbacks report from inside it. Knows no run and no objective.
Shape letters: B rows of a batch.
Usage: ``with watching() as sightings: apply(...)``; the first of `sightings` that is bad is the culprit.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxlab.core.tree import named_leaves
from jaxlab.core.types import Array, PyTree

FORWARD, BACKWARD = "forward", "backward"


class Sighting(NamedTuple):
    """A tensor as it came by: of which module call, and what it holds."""

    kind: str  # forward: what the module returned; backward: the gradient that arrived there
    module: str  # path, and the method where it is not __call__
    class_name: str
    call: int  # the how-manieth of this module: the layer, in a scan
    leaf: str
    shape: tuple[int, ...]
    dtype: str
    nan: int
    infinite: int
    largest: float  # of the finite numbers, by magnitude
    rows: np.ndarray  # [B], whether anything of the row is not finite; empty for a scalar
    inputs_finite: bool

    @property
    def bad(self) -> bool:
        """Whether anything in it is not finite."""
        return self.nan + self.infinite > 0


@contextlib.contextmanager
def watching() -> Iterator[list[Sighting]]:
    """Collect sightings, in order, of all Linen modules that are called inside; un-jitted."""
    sightings: list[Sighting] = []
    calls: dict[tuple[str, str, str], int] = {}

    def note(kind: str, module: str, class_name: str, leaf: str, dtype: str, found: Any) -> None:
        shape, nan, infinite, largest, rows, inputs_finite = (np.asarray(x) for x in found)
        place = (kind, module, leaf)
        calls[place] = calls.get(place, -1) + 1
        sightings.append(
            Sighting(
                kind, module, class_name, calls[place], leaf, tuple(shape.tolist()), dtype, int(nan), int(infinite),
                float(largest), rows, bool(inputs_finite),
            )
        )  # fmt: skip

    def intercept(
        next_function: Callable[..., Any], arguments: Any, keywords: Any, context: nn.module.InterceptorContext
    ) -> Any:
        outputs = next_function(*arguments, **keywords)
        if context.method_name == "setup":
            return outputs
        method = "" if context.method_name == "__call__" else f".{context.method_name}"
        module = "/".join(context.module.path) + method or "the model"
        inputs_finite = all_finite((arguments, keywords))
        class_name = type(context.module).__name__

        def look(path: Any, x: Any) -> Any:
            if not _is_floating(x):
                return x
            leaf = jax.tree_util.keystr(path, simple=True, separator="/")
            return _looked_at(
                functools.partial(note, module=module, class_name=class_name, leaf=leaf), x, inputs_finite
            )

        return jax.tree_util.tree_map_with_path(look, outputs)

    with jax.disable_jit(), nn.intercept_methods(intercept):
        yield sightings
        jax.effects_barrier()


def all_finite(tree: PyTree) -> Array:
    """Return whether every floating-point number in `tree` is finite."""
    checks = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree) if _is_floating(x)]
    return jnp.stack([jnp.asarray(True), *checks]).all()


def not_finite(tree: PyTree) -> dict[str, int]:
    """Return how many numbers of each leaf, by name, are not finite, where any is."""
    floating = {name: np.asarray(x, np.float32) for name, x in named_leaves(tree).items() if _is_floating(x)}
    counts = {name: int((~np.isfinite(x)).sum()) for name, x in floating.items()}
    return {name: count for name, count in counts.items() if count}


def _looked_at(note: Callable[..., None], x: Array, inputs_finite: Array) -> Array:
    """Return `x`, noted now, and its gradient when that comes by."""

    @jax.custom_vjp
    def identity(x: Array) -> Array:
        return x

    def backward(_: None, gradient: Array) -> tuple[Array]:
        _report(functools.partial(note, BACKWARD), gradient, jnp.asarray(True))
        return (gradient,)

    identity.defvjp(lambda x: (x, None), backward)
    _report(functools.partial(note, FORWARD), x, inputs_finite)
    return identity(x)


def _report(note: Callable[..., None], x: Array, inputs_finite: Array) -> None:
    finite = jnp.isfinite(x)
    largest = jnp.max(jnp.where(finite, jnp.abs(x), 0), initial=0.0).astype(jnp.float32)
    rows_B = ~finite.reshape(x.shape[0], -1).all(axis=1) if x.ndim else jnp.zeros(0, bool)
    shape, dtype = np.asarray(x.shape, np.int32), str(x.dtype)
    jax.debug.callback(
        lambda *found: note(dtype=dtype, found=found), shape, jnp.isnan(x).sum(), jnp.isinf(x).sum(), largest, rows_B,
        inputs_finite,
    )  # fmt: skip


def _is_floating(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
