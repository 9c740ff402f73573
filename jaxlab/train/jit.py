"""The `jit` strategy: one program over a mesh. XLA splits it, as the placement of state and batch says.

Shape letters: C batches of a chunk, B global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from jaxlab.core.errors import ConfigError
from jaxlab.core.mesh import BATCH
from jaxlab.core.types import HostBatch, PyTree, Rules, TrainState
from jaxlab.train.across import spread, spread_rows, whole
from jaxlab.train.compilation import blocking_if_need_be, options_of_init, watch_compilations
from jaxlab.train.placement import WHOLE, Placed, Placement


class Jit:
    """One program over a mesh: XLA splits the batch and adds the collectives."""

    batch_axis: str | None = None

    def __init__(
        self, devices: list[jax.Device], sizes: Mapping[str, int], rules: Rules = WHOLE, offload: str = ""
    ) -> None:
        """Span a mesh over `devices`.

        Args:
          devices: as many as the product of `sizes`.
          sizes: devices along each axis.
          rules: how parameters are split; see `Placement`.
          offload: what lies on the host between steps; see `Placement`.
        """
        types = (AxisType.Auto,) * len(sizes)
        self.mesh = Mesh(_in_order(devices, tuple(sizes.values())), tuple(sizes), axis_types=types)
        self.batch_parts = int(np.prod([sizes[name] for name in BATCH]))
        self.placement = Placement(self.mesh, rules, offload)
        self._devices, self._offload = devices, offload
        self._whole: Sharding = NamedSharding(self.mesh, P())
        self._chunks: Sharding = NamedSharding(self.mesh, P(None, BATCH))
        self._alone = len(devices) == 1 and not offload
        if self._alone:  # the same placement, and some microseconds less a dispatch
            self._whole = self._chunks = SingleDeviceSharding(devices[0])
        # on one CPU an identity program takes NumPy arrays in a fifth of the time that `device_put` needs
        self._identity = jax.jit(lambda chunk: chunk) if [d.platform for d in devices] == ["cpu"] else None

    def rows(self, batch_size: int) -> slice:
        places = NamedSharding(self.mesh, P(BATCH)).addressable_devices_indices_map((batch_size,)).values()
        found = np.unique(np.concatenate([np.arange(batch_size)[place] for place in places]))
        if len(found) != found[-1] - found[0] + 1:
            raise ConfigError(
                "config.parallel.mesh: the rows of a process do not lie side by side on this order of axes"
            )
        return slice(int(found[0]), int(found[-1]) + 1)

    def init(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        shapes = jax.eval_shape(function, *arguments)
        make = jax.jit(function, out_shardings=self._on_devices(shapes), compiler_options=options_of_init(shapes))
        return jax.device_put(make(*arguments), self._of(shapes))

    def placed(self, state: TrainState) -> list[Placed]:
        return [] if self._alone else self.placement.describe(state)

    def put_chunk(self, chunk: HostBatch) -> PyTree:
        if self._identity is not None:
            with jax.transfer_guard_host_to_device("allow"):
                return self._identity(chunk)
        return spread_rows(chunk, self._chunks)

    def chunk_shape(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """Return the shape of a chunk's field [C, B, ...] with its placement, to lower a step for."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self._chunks)

    def compile(self, function: Callable[..., PyTree], *, donate: bool, shapes: int = 1) -> Callable[..., PyTree]:
        watched = watch_compilations(function, shapes)
        compiled = jax.jit(watched if self._alone else self._placed(watched), donate_argnums=(0,) if donate else ())
        return blocking_if_need_be(compiled, self._devices)

    def save_form(self, tree: PyTree) -> PyTree:
        return tree

    def saved_shapes(self, shapes: PyTree) -> PyTree:
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, self._of(shapes)
        )

    def replicate(self, tree: PyTree) -> PyTree:
        return spread(tree, self._of(tree))

    def fetch(self, tree: PyTree) -> PyTree:
        return jax.device_get(whole(tree))

    def fetch_rows(self, tree: PyTree) -> PyTree:
        return jax.device_get(whole(tree))

    def _of(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda _: self._whole, tree) if self._alone else self.placement.of(tree)

    def _on_devices(self, tree: PyTree) -> PyTree:
        return self._of(tree) if self._alone else self.placement.on_devices(tree)

    def _placed(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Return `function` with every state that goes in or comes out where it belongs, and the mesh for the model."""

        def placed(*arguments: PyTree) -> PyTree:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                if self._offload:
                    arguments = _each_state(lambda s: jax.device_put(s, self.placement.on_devices(s)), arguments)
                results = function(*arguments)
                if self._offload:
                    return _each_state(lambda s: jax.device_put(s, self.placement.of(s)), results)
                return _each_state(lambda s: jax.lax.with_sharding_constraint(s, self.placement.of(s)), results)

        return placed


def _each_state(change: Callable[[TrainState], TrainState], tree: PyTree) -> Any:
    def one(node: PyTree) -> PyTree:
        return change(node) if isinstance(node, TrainState) else node

    return jax.tree.map(one, tree, is_leaf=lambda node: isinstance(node, TrainState))


def _in_order(devices: list[jax.Device], shape: tuple[int, ...]) -> np.ndarray:
    """Return the devices as a mesh: on TPUs so that neighbours in it are neighbours in the torus."""
    if devices[0].platform == "tpu":
        from jax.experimental import mesh_utils

        return mesh_utils.create_device_mesh(shape, devices)
    return np.array(devices).reshape(shape)
