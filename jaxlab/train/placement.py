"""Where each array of a state lies on a mesh, by ordered rules over its parameter's name.

Optimizer state and moving average lie as the parameter that they belong to; all else is whole on every device.
Usage: ``Placement(mesh, rules).of(jax.eval_shape(experiment.init))``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.tree import match, named_leaves
from jaxlab.core.types import PyTree, Rules, TrainState

DEVICE, HOST = "device", "pinned_host"
OFFLOADS = ("", "optimizer")
WHOLE: Rules = ((".*", ()),)


class Placed(NamedTuple):
    """How one array of a state lies on the mesh."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[tuple[str, ...], ...]  # of each dimension
    bytes: int  # on one device
    on_host: bool
    left_whole: tuple[str, ...]  # the axes that a rule asks for, and that do not divide their dimension


class Placement:
    """The rules applied to a mesh."""

    def __init__(self, mesh: Mesh, rules: Rules = WHOLE, offload: str = "") -> None:
        """Check that `rules` name axes of `mesh`.

        Args:
          mesh: of the run.
          rules: (expression, axes of the last dimensions) in order; an axis is a name, several joined by ``+``, or
            empty for none.
          offload: ``optimizer`` keeps the optimizer's arrays in the host's memory between steps.

        Raises:
          ConfigError: an unknown axis or part.
        """
        if offload not in OFFLOADS:
            raise ConfigError(f"config.parallel.offload={offload!r}{did_you_mean(offload, OFFLOADS)}")
        self._mesh, self._rules, self._offload = mesh, rules, offload
        self._sizes = dict(mesh.shape)
        for pattern, axes in rules:
            for name in (name for axis in axes for name in axis.split("+") if name):
                if name not in self._sizes:
                    raise ConfigError(f"config.parallel.rules: {pattern!r}: {name!r}{did_you_mean(name, self._sizes)}")

    def of(self, tree: PyTree) -> PyTree:
        """Return the sharding of each array; a `TrainState` anywhere in `tree` follows the rules, the rest is whole."""
        return self._mapped(tree, lambda placed: self._sharding(placed.axes, placed.on_host))

    def on_devices(self, tree: PyTree) -> PyTree:
        """Return the shardings as they are during a step, when nothing lies on the host."""
        return self._mapped(tree, lambda placed: self._sharding(placed.axes, False))

    def describe(self, state: TrainState) -> list[Placed]:
        """Return how each array of a state, or of its shapes, lies.

        Raises:
          ConfigError: a parameter that no rule covers, or a rule with more axes than its parameter has dimensions.
        """
        params = named_leaves(state.params)
        axes = match(self._rules, params)
        found = []
        for name, x in named_leaves(state).items():
            owner = _owner(name, x, params)
            on_host = bool(self._offload) and name.startswith("opt_state/") and x.ndim > 0
            found.append(self._placed(name, x, axes[owner] if owner else (), on_host))
        return found

    def _mapped(self, tree: PyTree, make: Any) -> PyTree:
        def one(node: PyTree) -> PyTree:
            if not isinstance(node, TrainState):
                return self._sharding((), False)
            leaves = [make(placed) for placed in self.describe(node)]
            return jax.tree.unflatten(jax.tree.structure(node), leaves)

        return jax.tree.map(one, tree, is_leaf=lambda node: isinstance(node, TrainState))

    def _placed(self, name: str, x: Any, wanted: tuple[str, ...], on_host: bool) -> Placed:
        if len(wanted) > len(x.shape):
            raise ConfigError(f"config.parallel.rules: {name} [{len(x.shape)} dimensions]: {wanted} are more axes")
        split: list[tuple[str, ...]] = []
        left: list[str] = []
        for length, axis in zip(x.shape, ("",) * (len(x.shape) - len(wanted)) + tuple(wanted), strict=True):
            names = tuple(name for name in axis.split("+") if name and self._sizes[name] > 1)
            divides = length % math.prod(self._sizes[name] for name in names) == 0
            split.append(names if divides else ())
            left += () if divides else [f"{'+'.join(names)} of {length}"]
        parts = math.prod(self._sizes[name] for names in split for name in names)
        size = math.prod(x.shape) * x.dtype.itemsize // parts
        return Placed(name, tuple(x.shape), tuple(split), size, on_host, tuple(left))

    def _sharding(self, axes: tuple[tuple[str, ...], ...], on_host: bool) -> NamedSharding:
        entries = [names[0] if len(names) == 1 else names or None for names in axes]  # as XLA's results have them:
        while entries and entries[-1] is None:  # a spec that is only written otherwise would be compiled for anew
            entries.pop()
        return NamedSharding(self._mesh, P(*entries), memory_kind=HOST if on_host else None)


def _owner(name: str, x: Any, params: Mapping[str, Any]) -> str | None:
    """Return the parameter that an array of a state belongs to: of the same shape, its name ending with that name."""
    parts = name.split("/")
    endings = ("/".join(parts[i:]) for i in range(1, len(parts)))
    return next((end for end in endings if end in params and params[end].shape == x.shape), None)
