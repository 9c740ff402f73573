"""What compiled functions have in common under every strategy: an alarm on recompilation, and when to wait for them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax

from jaxlab.core.tree import named_leaves
from jaxlab.core.types import PyTree


class RecompilationWarning(UserWarning):
    """A step was compiled a second time: its inputs changed, and the time went into XLA."""


def watch_compilations(function: Callable[..., PyTree], expected: int = 1) -> Callable[..., PyTree]:
    """Return `function`, warning with the differing shapes when it is compiled (traced) more often than expected."""
    seen: list[dict[str, str]] = []

    def traced(*arguments: Any) -> PyTree:
        shapes = {name: f"{x.dtype.name}{list(x.shape)}" for name, x in named_leaves(arguments).items()}
        if len(seen) >= expected:
            changed = [f"{n}: {seen[-1].get(n, 'absent')} -> {s}" for n, s in shapes.items() if seen[-1].get(n) != s]
            what = "; ".join(changed[:8]) or "the shapes are the same, so the placement on devices differs"
            warnings.warn(f"{function.__qualname__} is compiled again: {what}", RecompilationWarning, stacklevel=2)
        seen.append(shapes)
        return function(*arguments)

    return traced


@dataclasses.dataclass(frozen=True)
class Blocking:
    """A compiled function that waits for its results."""

    compiled: Any

    def __call__(self, *arguments: PyTree) -> PyTree:
        """Call it and wait."""
        return jax.block_until_ready(self.compiled(*arguments))

    def lower(self, *arguments: PyTree) -> Any:
        """Lower it for such arguments, as `jax.jit` functions do."""
        return self.compiled.lower(*arguments)


def blocking_if_need_be(compiled: Any, devices: list[jax.Device]) -> Any:
    """Return `compiled`, waiting for its results where steps must not be queued.

    Several CPU devices in one process (virtual ones) deadlock on jax 0.10 when they are.
    """
    local = sum(device.process_index == jax.process_index() for device in devices)
    return Blocking(compiled) if devices[0].platform == "cpu" and local > 1 else compiled
