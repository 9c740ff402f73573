"""How a step runs on devices: `jit` over a mesh, or `pmap`; one small interface for both.

A chunk is C consecutive batches that travelled together.
Shape letters: C batches of a chunk, B global batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import jax

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.mesh import AXES, DATA
from jaxlab.core.types import EvalStep, HostBatch, Outputs, PyTree, Rules, Statistics, TrainState
from jaxlab.train.jit import Jit
from jaxlab.train.placement import WHOLE, Placed
from jaxlab.train.pmap import Pmap

Measure = Callable[[TrainState, PyTree], tuple[Statistics, Outputs]]


class Strategy(Protocol):
    """What the loop needs to know about devices."""

    batch_axis: str | None  # that the step adds over; None where the batch is one array
    batch_parts: int  # that a batch's rows are split in

    def rows(self, batch_size: int) -> slice:
        """Return which rows of a global batch this process reads."""
        ...

    def init(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        """Return what `function` makes of host arrays, placed as this strategy keeps it."""
        ...

    def placed(self, state: TrainState) -> list[Placed]:
        """Return how each array of a state, or of its shapes, is split; empty where every device has all."""
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
        """Return whole values, or what was restored, as this strategy keeps them."""
        ...

    def fetch(self, tree: PyTree) -> PyTree:
        """Return replicated values on the host."""
        ...

    def fetch_rows(self, tree: PyTree) -> PyTree:
        """Return per-example values [B, ...] on the host."""
        ...


def make_strategy(
    strategy: str, mesh: Mapping[str, int], devices: list[jax.Device], rules: Rules = WHOLE, offload: str = ""
) -> Strategy:
    """Return the strategy that ``config.parallel`` describes.

    Args:
      strategy: ``jit`` or ``pmap``.
      mesh: devices along each axis, 1 where it is not given; -1 means all that the others leave.
      devices: those that may be used; the first ones are taken where `mesh` asks for fewer.
      rules: how parameters are split; see `Placement`.
      offload: what lies on the host between steps; see `Placement`.

    Raises:
      ConfigError: an unknown strategy or axis, more devices than there are, or what pmap cannot do.
    """
    if strategy not in ("jit", "pmap"):
        raise ConfigError(f"config.parallel.strategy={strategy!r}{did_you_mean(strategy, ('jit', 'pmap'))}")
    sizes = mesh_sizes(mesh, len(devices))
    used = devices[: math.prod(sizes.values())]
    idle = {device.process_index for device in devices} - {device.process_index for device in used}
    if idle:
        raise ConfigError(f"config.parallel.mesh: {len(used)} of {len(devices)} devices leave process {min(idle)} none")
    if strategy == "jit":
        return Jit(used, sizes, rules, offload)
    for axis, size in sizes.items():
        if axis != DATA and size != 1:
            raise ConfigError(f"config.parallel.mesh.{axis}={size}: pmap splits batches alone; expected 1, or jit")
    if offload:
        raise ConfigError(f"config.parallel.offload={offload!r}: expected '' with pmap, or jit")
    return Pmap(used)


def mesh_sizes(mesh: Mapping[str, int], count: int) -> dict[str, int]:
    """Return the devices along every axis, of `count` that there are.

    Raises:
      ConfigError: an unknown axis, or sizes that cannot be had.
    """
    for axis, size in mesh.items():
        if axis not in AXES:
            raise ConfigError(f"config.parallel.mesh.{axis}={size}{did_you_mean(axis, AXES)}")
        if size != -1 and not 1 <= size <= count:
            raise ConfigError(
                f"config.parallel.mesh.{axis}={size}: there are {count} devices; expected 1 to that, or -1"
            )
    sizes = {axis: mesh.get(axis, 1) for axis in AXES}
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(open_axes) > 1:
        raise ConfigError(f"config.parallel.mesh.{open_axes[1]}=-1: {open_axes[0]} is -1 already; expected one at most")
    if known > count or (open_axes and count % known):
        shape = " × ".join(f"{axis} {size}" for axis, size in sizes.items() if size != 1)
        raise ConfigError(f"config.parallel.mesh: {shape} does not fit {count} devices")
    return {axis: count // known if size == -1 else size for axis, size in sizes.items()}


def measure(step: EvalStep) -> Measure:
    """Return the evaluation step on a chunk of one batch."""
    return lambda state, chunk: step(state, jax.tree.map(lambda x: x[0], chunk))
