"""What compiled functions have in common under every strategy: an alarm on recompilation, and when to wait for them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax

from jaxlab.core.tree import named_leaves
from jaxlab.core.types import PyTree

_SMALL = 8_000_000  # numbers, up to which a CPU makes them in less time than optimising the program would take
_AS_IT_IS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


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


def options_of_init(shapes: PyTree) -> dict[str, Any] | None:
    """Return the compiler options of the program that makes values of such shapes once, before a run.

    On a CPU most of a small run's start goes into optimising what draws its random numbers, so that it is left as it
    is. Its last bits are others than an optimised program's: all that make a run's state use these options.
    """
    small = sum(leaf.size for leaf in jax.tree.leaves(shapes)) < _SMALL
    return _AS_IT_IS if small and jax.default_backend() == "cpu" else None


@dataclasses.dataclass(frozen=True)
class Blocking:
    """A compiled function that waits for its results."""

    compiled: Any

    def __call__(self, *arguments: PyTree) -> PyTree:
        """Call it and wait: for one result, as all are there when the program ends."""
        results = self.compiled(*arguments)
        jax.block_until_ready(jax.tree.leaves(results)[-1:])
        return results

    def lower(self, *arguments: PyTree) -> Any:
        """Lower it for such arguments, as `jax.jit` functions do."""
        return self.compiled.lower(*arguments)


def blocking_if_need_be(compiled: Any, devices: list[jax.Device]) -> Any:
    """Return `compiled`, waiting for its results where steps must not be queued.

    Several CPU devices in one process (virtual ones) deadlock on jax 0.10 when they are.
    """
    local = sum(device.process_index == jax.process_index() for device in devices)
    return Blocking(compiled) if devices[0].platform == "cpu" and local > 1 else compiled
