"""One training step for several seeds: as one program over stacked states, or for one state whose seed is an argument.

The stack is spread over devices whole seeds at a time, so that no step waits for another device. Both forms take the
seed as data: one compilation serves every seed. Shape letters: S seeds, C batches of a chunk, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from jaxlab.core.tree import pack
from jaxlab.core.types import PyTree, TrainState, TrainStep
from jaxlab.train.seen import roll
from jaxlab.train.window import Window

Axes = Sequence[int | None]
Seeded = Callable[[jax.Array], TrainStep]  # from a seed, which may be traced, to the step
_SEEDS = "seeds"


class Lift(Protocol):
    """How a function of one seed becomes one of all that train together."""

    def __call__(self, function: Callable[..., PyTree], axes: Axes) -> Callable[..., PyTree]:
        """Return the function of arguments that have a seed's axis where `axes` says."""
        ...

    def placement(self, axis: int | None) -> Sharding:
        """Return where arrays lie whose seeds lie along `axis`, or which all seeds share."""
        ...

    def put(self, tree: PyTree, axis: int | None) -> PyTree:
        """Move host arrays whose seeds lie along `axis`, or which all seeds share, to the devices."""
        ...

    def lane(self, tree: PyTree, place: int) -> PyTree:
        """Return the part of one seed, of arrays on the host or on devices."""
        ...

    def joined(self, lanes: Sequence[PyTree]) -> PyTree:
        """Move the host trees of all seeds to the devices, as one tree."""
        ...


class Together:
    """All seeds at once: the function mapped over a leading axis, whose parts lie on different devices."""

    def __init__(self, count: int, devices: Sequence[jax.Device]) -> None:
        """Spread `count` seeds over as many of the devices as divide them evenly."""
        used = max(n for n in range(1, min(count, len(devices)) + 1) if count % n == 0)
        self._mesh = Mesh(np.array(devices[:used]), (_SEEDS,), axis_types=(AxisType.Auto,))
        self._spread = used > 1
        self._identity = _identity_of(self._mesh.devices[0]) if not self._spread else None

    def __call__(self, function: Callable[..., PyTree], axes: Axes) -> Callable[..., PyTree]:
        mapped = jax.vmap(function, in_axes=tuple(axes))
        if not self._spread:
            return mapped
        places = tuple(map(_spec, axes))
        # no seed needs another's values: split by hand, XLA has nothing to decide
        return jax.shard_map(mapped, mesh=self._mesh, in_specs=places, out_specs=P(_SEEDS), check_vma=False)

    def placement(self, axis: int | None) -> Sharding:
        return NamedSharding(self._mesh, _spec(axis)) if self._spread else SingleDeviceSharding(self._mesh.devices[0])

    def put(self, tree: PyTree, axis: int | None) -> PyTree:
        return _put(tree, self.placement(axis), self._identity)

    def lane(self, tree: PyTree, place: int) -> PyTree:
        return jax.tree.map(lambda x: x[place] if isinstance(x, jax.Array) else np.asarray(x[place]), tree)

    def joined(self, lanes: Sequence[PyTree]) -> PyTree:
        return self.put(jax.tree.map(lambda *leaves: np.stack(leaves), *lanes), 0)


class OneByOne:
    """One seed at a time: the function as it is, on one device."""

    def __init__(self, device: jax.Device) -> None:
        """Train on `device`."""
        self._device, self._identity = device, _identity_of(device)

    def __call__(self, function: Callable[..., PyTree], axes: Axes) -> Callable[..., PyTree]:
        return function

    def placement(self, axis: int | None) -> Sharding:
        return SingleDeviceSharding(self._device)

    def put(self, tree: PyTree, axis: int | None, place: int = 0) -> PyTree:
        if axis is not None:  # the seeds' axis goes
            tree = jax.tree.map(lambda x: np.take(x, place, axis), tree)
        return _put(tree, self.placement(axis), self._identity)

    def lane(self, tree: PyTree, place: int) -> PyTree:
        return tree

    def joined(self, lanes: Sequence[PyTree]) -> PyTree:
        return self.put(lanes[0], None)


def _identity_of(device: jax.Device) -> Any:
    """Return a program that takes NumPy arrays in a fifth of the time that `device_put` needs, on the first CPU."""
    return jax.jit(lambda tree: tree, out_shardings=SingleDeviceSharding(device)) if device.platform == "cpu" else None


def _put(tree: PyTree, place: Sharding, identity: Any) -> PyTree:
    if identity is None:
        return jax.device_put(tree, place)
    with jax.transfer_guard_host_to_device("allow"):
        return identity(tree)


def _spec(axis: int | None) -> P:
    return P() if axis is None else P(*(None,) * axis, _SEEDS)


def advance(make_step: Seeded, lift: Lift, *, shared: bool) -> Callable[..., tuple[TrainState, Window]]:
    """Return one step of all seeds on the batch of the chunk that the states' step number points at.

    It takes states, windows, seeds [S] and a chunk: fields [C, S, B, ...], or with `shared` [C, B, ...]; with
    `OneByOne` there is no S.
    """

    def one(state: TrainState, window: Window, seed: jax.Array, batch: PyTree) -> tuple[TrainState, Window]:
        state, statistics = make_step(seed)(state, batch)
        return state, Window(window.sums + pack(statistics), roll(window.ids, batch["id"], None))

    lifted = lift(one, (0, 0, 0, None if shared else 0))

    def advanced(state: TrainState, window: Window, seed: jax.Array, chunk: PyTree) -> tuple[TrainState, Window]:
        # all seeds are at the same step: indexed before the map, which would make a gather of it
        place = jnp.ravel(state.step)[0] % next(iter(jax.tree.leaves(chunk))).shape[0]
        batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, place, keepdims=False), chunk)
        return lifted(state, window, seed, batch)

    return advanced


def advance_to(step: Callable[..., tuple[TrainState, Window]]) -> Callable[..., tuple[TrainState, Window]]:
    """Return the steps up to a given one on batches of one chunk; see `jaxlab.train.window.several`."""

    def advanced(state: TrainState, window: Window, seed: jax.Array, chunk: PyTree, stop: jax.Array) -> Any:
        return jax.lax.while_loop(
            lambda carry: jnp.ravel(carry[0].step)[0] < stop, lambda carry: step(*carry, seed, chunk), (state, window)
        )

    return advanced
