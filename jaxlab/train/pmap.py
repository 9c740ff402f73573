"""The `pmap` strategy: the same program on each device, rows split by hand.

Shape letters: C batches of a chunk, B global batch, D devices.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from jaxlab.core.mesh import DATA
from jaxlab.core.types import HostBatch, PyTree, TrainState
from jaxlab.train.across import spread
from jaxlab.train.compilation import blocking_if_need_be, options_of_init, watch_compilations
from jaxlab.train.placement import Placed


class Pmap:
    """Each device has the whole state; gradients and statistics are added by ``psum``."""

    batch_axis: str | None = DATA

    def __init__(self, devices: list[jax.Device]) -> None:
        """Use `devices`, in order; of several processes, arrays hold what is on this one's."""
        self._devices, self.batch_parts = devices, len(devices)
        self._local = [device for device in devices if device.process_index == jax.process_index()]
        self._split = NamedSharding(_mesh(self._local), P(DATA))
        self._saved: Sharding = NamedSharding(_mesh(devices), P())
        if len(self._local) == len(devices):
            self._saved = SingleDeviceSharding(devices[0])

    def rows(self, batch_size: int) -> slice:
        share, first = batch_size // len(self._devices), self._devices.index(self._local[0])
        return slice(first * share, (first + len(self._local)) * share)

    def init(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        options = options_of_init(jax.eval_shape(function, *arguments))
        return self.replicate(jax.jit(function, compiler_options=options)(*arguments))

    def placed(self, state: TrainState) -> list[Placed]:
        return []

    def put_chunk(self, chunk: HostBatch) -> PyTree:
        count = len(self._local)
        return jax.device_put({name: _split_rows(x_CB, count) for name, x_CB in chunk.items()}, self._split)

    def compile(self, function: Callable[..., PyTree], *, donate: bool, shapes: int = 1) -> Callable[..., PyTree]:
        watched = watch_compilations(function, shapes)
        compiled = jax.pmap(watched, axis_name=DATA, devices=self._devices, donate_argnums=(0,) if donate else ())
        return blocking_if_need_be(compiled, self._devices)

    def save_form(self, tree: PyTree) -> PyTree:
        return spread(self.fetch(tree), self._saved)

    def saved_shapes(self, shapes: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._saved), shapes)

    def replicate(self, tree: PyTree) -> PyTree:
        count = len(self._local)
        stacked = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (count, *np.shape(x))), jax.device_get(tree))
        return jax.device_put(stacked, self._split)

    def fetch(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x_1: x_1[0], jax.device_get(jax.tree.map(lambda x_D: x_D.addressable_data(0), tree)))

    def fetch_rows(self, tree: PyTree) -> PyTree:
        rows = jax.tree.map(lambda x_DB: x_DB.reshape(-1, *x_DB.shape[2:]), jax.device_get(tree))
        return rows if len(self._local) == len(self._devices) else multihost_utils.process_allgather(rows, tiled=True)


def _mesh(devices: list[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), (DATA,), axis_types=(AxisType.Auto,))


def _split_rows(x_CB: np.ndarray, count: int) -> np.ndarray:
    """Return [D, C, B / D, ...]: the rows of each batch side by side, as a mesh would split them."""
    steps, rows = x_CB.shape[:2]
    return np.moveaxis(x_CB.reshape(steps, count, rows // count, *x_CB.shape[2:]), 1, 0)
