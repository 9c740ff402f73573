"""A step taken again in the pieces in which it took its batch, with the very random keys.

Pieces are microbatches; the devices of pmap are a mapped axis here (`jax.vmap`), so that one device will do.
Shape letters: D devices, B rows of a device's piece.
Usage: ``for part in pieces.parts(state, batch): ...``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core import rng
from jaxlab.core.mesh import DATA
from jaxlab.core.types import Array, Batch, HostBatch, Outputs, PyTree, TrainState, TrainStep
from jaxlab.run.assemble import Experiment
from jaxlab.train.apply import Bound
from jaxlab.train.precision import compute_dtype
from jaxlab.train.step import augmented, blank_padding, microbatches

Total = tuple[Array, tuple[Array, Outputs, PyTree]]  # of the loss, with weight, results and new model state


class Part(NamedTuple):
    """A piece of a batch before augmentation, [D, B, ...] under pmap; its keys; where its rows stood; its name."""

    batch: Batch
    key: Array
    rows: np.ndarray
    name: str


@dataclasses.dataclass(frozen=True)
class Pieces:
    """An experiment's step, to be taken again on one device."""

    experiment: Experiment
    devices: int | None  # under pmap

    @property
    def axis(self) -> str | None:
        """The mapped axis."""
        return None if self.devices is None else DATA

    def over(self, function: Callable[..., Any], *axes: int | None) -> Callable[..., Any]:
        """Return `function` over the devices; `axes` say which arguments have one each."""
        return function if self.devices is None else jax.vmap(function, in_axes=axes, axis_name=DATA)

    def share(self, tree: PyTree) -> PyTree:
        """Return [D, B, ...] of [D * B, ...] under pmap, else the tree itself."""
        if self.devices is None:
            return tree
        return jax.tree.map(lambda x: x.reshape(self.devices, -1, *x.shape[1:]), tree)

    def each(self, tree: PyTree) -> PyTree:
        """Return a copy for each device under pmap, else the tree itself."""
        if self.devices is None:
            return tree
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.devices, *jnp.shape(x))), tree)

    def parts(self, state: TrainState, batch: HostBatch) -> Iterator[Part]:
        """Yield the parts of a step's batch, in the order in which they are taken."""
        key = rng.key(self.experiment.config.seed, "train", state.step)
        keys = key
        if self.devices is not None:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(self.devices))
        count = self.experiment.config.train.grad_accumulation
        shared = self.share({name: jnp.asarray(value) for name, value in batch.items()})
        rows = self.share(np.arange(len(batch["id"])))
        if count == 1:
            yield Part(shared, keys, rows, "")
            return
        cut = self.over(lambda tree: microbatches(tree, count), 0)
        pieces, places = cut(shared), np.asarray(cut(jnp.asarray(rows)))
        split = self.over(lambda key: jax.random.split(key, count), 0)(keys)
        for place in range(count):
            at = place if self.devices is None else (slice(None), place)
            name = f", in microbatch {place} of {count}"
            yield Part({n: x[at] for n, x in pieces.items()}, split[at], places[at], name)

    def augmented(self, part: Part, transforms: int) -> Batch:
        """Return the part's batch as the objective sees it after so many of the device's transforms."""
        chosen = self.experiment.device_augment[:transforms]
        one = self.over(lambda batch, key: augmented(blank_padding(batch), chosen, key), 0, 0)
        return jax.jit(one)(part.batch, part.key)

    def total(self, params: PyTree, model_state: PyTree, batch: Batch, key: Array) -> Total:
        """Return the loss of one device's augmented rows."""
        model, precision = self.experiment.make_model(self.axis), self.experiment.config.train.precision
        apply = Bound(model, params, model_state, key, compute_dtype(precision), train=True)
        found = self.experiment.objective(apply, batch)
        return found.total, (found.weight, found.outputs, found.model_state)

    def totals(self) -> Callable[..., Any]:
        """Return `total` over the devices."""
        return self.over(self.total, None, 0, 0, 0)

    def gradients(self) -> Callable[..., Any]:
        """Return `total` and its gradient over the devices."""
        return self.over(jax.value_and_grad(self.total, has_aux=True), None, 0, 0, 0)

    def step(self) -> TrainStep:
        """Return the whole step, with the gradient's norm among its statistics; nothing is left out."""
        config = self.experiment.config.copy_and_resolve_references()
        with config.unlocked():
            config.train.grad_norm, config.train.non_finite = True, "abort"
        one = self.over(self.experiment._replace(config=config).train_step(self.axis), None, 0)

        def step(state: TrainState, batch: Batch) -> Any:
            results = one(state, self.share(batch))
            return results if self.devices is None else jax.tree.map(lambda x: x[0], results)

        return step
