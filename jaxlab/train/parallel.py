"""How a step runs on devices: `jit` over a mesh, or `pmap`; one small interface for both.

A chunk is C consecutive batches that travelled together.
Shape letters: C batches of a chunk, B global batch, D devices.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import EvalStep, HostBatch, Outputs, PyTree, Statistics, TrainState

AXIS = "data"
Measure = Callable[[TrainState, PyTree], tuple[Statistics, Outputs]]


class RecompilationWarning(UserWarning):
    """A step was compiled a second time: its inputs changed, and the time went into XLA."""


class Strategy(Protocol):
    """What the loop needs to know about devices."""

    batch_axis: str | None
    device_count: int

    def init(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        """Return what `function` makes of host arrays, placed as this strategy keeps it."""
        ...

    def put_chunk(self, chunk: HostBatch) -> PyTree:
        """Move a chunk, each field [C, B of this process, ...], to the devices."""
        ...

    def compile(self, function: Callable[..., PyTree], *, donate: bool, shapes: int = 1) -> Callable[..., PyTree]:
        """Compile ``function(state, ..., chunk)`` for `shapes` shapes; with `donate` the state's memory is reused."""
        ...

    def save_form(self, tree: PyTree) -> PyTree:
        """Return a tree of this strategy as a checkpoint holds it: one global array a leaf."""
        ...

    def saved_shapes(self, shapes: PyTree) -> PyTree:
        """Return the shapes of a saved tree with the placement to restore it to."""
        ...

    def replicate(self, tree: PyTree) -> PyTree:
        """Return a whole value, such as what was restored, as this strategy keeps it."""
        ...

    def fetch(self, tree: PyTree) -> PyTree:
        """Return replicated values on the host."""
        ...

    def fetch_rows(self, tree: PyTree) -> PyTree:
        """Return per-example values [B, ...] on the host."""
        ...


class Jit:
    """One program over a mesh: XLA splits the batch and adds the collectives."""

    batch_axis: str | None = None

    def __init__(self, devices: list[jax.Device]) -> None:
        """Span a mesh with one axis over `devices`."""
        self.device_count = len(devices)
        mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
        self._replicated: Sharding = NamedSharding(mesh, P())
        self._rows: Sharding = NamedSharding(mesh, P(None, AXIS))
        if len(devices) == 1:  # the same placement, and some microseconds less a dispatch
            self._replicated = self._rows = SingleDeviceSharding(devices[0])
        # on one CPU an identity program takes NumPy arrays in a fifth of the time that `device_put` needs
        self._identity = jax.jit(lambda chunk: chunk) if [d.platform for d in devices] == ["cpu"] else None
        self._block = _must_block(devices)

    def init(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        return jax.jit(function, out_shardings=self._replicated)(*arguments)

    def put_chunk(self, chunk: HostBatch) -> PyTree:
        if self._identity is not None:
            with jax.transfer_guard_host_to_device("allow"):
                return self._identity(chunk)
        if jax.process_count() == 1:
            return jax.device_put(chunk, self._rows)
        return {name: jax.make_array_from_process_local_data(self._rows, x) for name, x in chunk.items()}

    def compile(self, function: Callable[..., PyTree], *, donate: bool, shapes: int = 1) -> Callable[..., PyTree]:
        compiled = jax.jit(watch_compilations(function, shapes), donate_argnums=(0,) if donate else ())
        return _blocking(compiled) if self._block else compiled

    def save_form(self, tree: PyTree) -> PyTree:
        return tree

    def saved_shapes(self, shapes: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._replicated), shapes)

    def replicate(self, tree: PyTree) -> PyTree:
        return jax.device_put(tree, self._replicated)

    def fetch(self, tree: PyTree) -> PyTree:
        return jax.device_get(tree)

    def fetch_rows(self, tree: PyTree) -> PyTree:
        return jax.device_get(tree)


class Pmap:
    """The same program on each device, rows split by hand; gradients and statistics are added by ``psum``."""

    batch_axis: str | None = AXIS

    def __init__(self, devices: list[jax.Device]) -> None:
        """Use `devices`, in order."""
        self._devices, self.device_count = devices, len(devices)
        mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
        self._split = NamedSharding(mesh, P(AXIS))
        self._block = _must_block(devices)

    def init(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        return self.replicate(jax.jit(function)(*arguments))

    def put_chunk(self, chunk: HostBatch) -> PyTree:
        count = len(self._devices)
        return jax.device_put({name: _split_rows(x_CB, count) for name, x_CB in chunk.items()}, self._split)

    def compile(self, function: Callable[..., PyTree], *, donate: bool, shapes: int = 1) -> Callable[..., PyTree]:
        watched = watch_compilations(function, shapes)
        compiled = jax.pmap(watched, axis_name=AXIS, devices=self._devices, donate_argnums=(0,) if donate else ())
        return _blocking(compiled) if self._block else compiled

    def save_form(self, tree: PyTree) -> PyTree:
        return jax.device_put(self.fetch(tree), self._devices[0])

    def saved_shapes(self, shapes: PyTree) -> PyTree:
        place = SingleDeviceSharding(self._devices[0])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)

    def replicate(self, tree: PyTree) -> PyTree:
        count = len(self._devices)
        stacked = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (count, *np.shape(x))), jax.device_get(tree))
        return jax.device_put(stacked, self._split)

    def fetch(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x_1: x_1[0], jax.device_get(jax.tree.map(lambda x_D: x_D.addressable_data(0), tree)))

    def fetch_rows(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x_DB: x_DB.reshape(-1, *x_DB.shape[2:]), jax.device_get(tree))


def make_strategy(strategy: str, mesh: Mapping[str, int], devices: list[jax.Device]) -> Strategy:
    """Return the strategy that ``config.parallel`` describes.

    Args:
      strategy: ``jit`` or ``pmap``.
      mesh: devices an axis; ``data`` is the only axis, -1 means all devices.
      devices: those that may be used; the first ones are taken where `mesh` asks for fewer.

    Raises:
      ConfigError: an unknown strategy or axis, or more devices than there are.
    """
    strategies: dict[str, Callable[[list[jax.Device]], Strategy]] = {"jit": Jit, "pmap": Pmap}
    if strategy not in strategies:
        raise ConfigError(f"config.parallel.strategy={strategy!r}{did_you_mean(strategy, strategies)}")
    count = len(devices) if mesh[AXIS] == -1 else mesh[AXIS]
    if not 1 <= count <= len(devices):
        raise ConfigError(
            f"config.parallel.mesh.{AXIS}={count}: there are {len(devices)} devices; expected 1 to that, or -1"
        )
    return strategies[strategy](devices[:count])


def measure(step: EvalStep) -> Measure:
    """Return the evaluation step on a chunk of one batch."""
    return lambda state, chunk: step(state, jax.tree.map(lambda x: x[0], chunk))


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


def _split_rows(x_CB: np.ndarray, count: int) -> np.ndarray:
    """Return [D, C, B / D, ...]: the rows of each batch side by side, as a mesh would split them."""
    steps, rows = x_CB.shape[:2]
    return np.moveaxis(x_CB.reshape(steps, count, rows // count, *x_CB.shape[2:]), 1, 0)


def _must_block(devices: list[jax.Device]) -> bool:
    """Several CPU devices in one process (virtual ones) deadlock on jax 0.10 when steps are queued without waiting."""
    return devices[0].platform == "cpu" and sum(device.process_index == jax.process_index() for device in devices) > 1


def _blocking(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    return lambda *arguments: jax.block_until_ready(function(*arguments))
