"""Steps as they are compiled: each takes its batch from a chunk and adds what it saw to a window, all on the devices.

A compiled step takes the batch that the state's own step number points at, so that feeding costs the loop nothing; with
several steps a call it goes on to a given step. A window closes with a row, so that the row is exact for its steps.
Usage: ``advance = strategy.compile(single(step, strategy.batch_axis), donate=True)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlab.core.tree import pack, packed_shape
from jaxlab.core.types import PyTree, Statistics, TrainState, TrainStep
from jaxlab.train.seen import roll


class Window(NamedTuple):
    """What has been seen since the last row: packed statistics [N] added up, and the rolling hash of example ids."""

    sums: jax.Array
    ids: jax.Array


Advance = Callable[[TrainState, Window, PyTree], tuple[TrainState, Window]]
AdvanceTo = Callable[[TrainState, Window, PyTree, PyTree], tuple[TrainState, Window]]


def window_shapes(statistics: Statistics) -> Window:
    """Return the shapes of a window over a step's `statistics`, which may be shapes themselves."""
    return jax.eval_shape(lambda: Window(jnp.zeros(packed_shape(statistics).shape), jnp.zeros((), jnp.uint32)))


def open_window(statistics: Statistics) -> Window:
    """Return the window in which nothing has been seen yet."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), window_shapes(statistics))


def single(step: TrainStep, batch_axis: str | None) -> Advance:
    """Return the step on the batch of the chunk that the state's step number points at."""

    def advance(state: TrainState, window: Window, chunk: PyTree) -> tuple[TrainState, Window]:
        length = next(iter(jax.tree.leaves(chunk))).shape[0]
        place = state.step % length
        batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, place, keepdims=False), chunk)
        state, statistics = step(state, batch)
        return state, Window(window.sums + pack(statistics), roll(window.ids, batch["id"], batch_axis))

    return advance


def several(step: TrainStep, batch_axis: str | None) -> AdvanceTo:
    """Return the steps up to a given one on batches of one chunk, in one program whatever their number.

    Like a `lax.scan` over the chunk, but a row or a checkpoint that is due within the chunk ends it early.
    """
    advance = single(step, batch_axis)

    def advance_to(state: TrainState, window: Window, chunk: PyTree, stop: jax.Array) -> tuple[TrainState, Window]:
        return jax.lax.while_loop(
            lambda carry: carry[0].step < stop, lambda carry: advance(*carry, chunk), (state, window)
        )

    return advance_to
