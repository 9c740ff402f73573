"""A small network trained by real steps with a given optimizer, for tests of what optimizers do to it."""

from __future__ import annotations

import jax
import numpy as np
import optax

from jaxlab.core.types import DataSpec, HostBatch, PyTree, TrainState
from jaxlab.models import mlp
from jaxlab.objectives import classify
from jaxlab.train.step import init_state, make_train_step

DATA = DataSpec(
    {"image": jax.ShapeDtypeStruct((4,), np.float32), "label": jax.ShapeDtypeStruct((), np.int32)},
    8,
    {"classes": tuple("abc")},
)
MODEL, OBJECTIVE = mlp.make(DATA, None, hidden=(5,)), classify.make(DATA)


def make_batch(seed: int) -> HostBatch:
    """Return eight rows of noise."""
    random = np.random.default_rng(seed)
    image = random.normal(size=(8, 4)).astype(np.float32)
    return {"image": image, "label": random.integers(0, 3, 8), "mask": np.ones(8, np.float32), "id": np.arange(8)}


def states(optimizer: optax.GradientTransformation, steps: int, ema: float | None = None) -> list[TrainState]:
    """Return the states before and after each of some steps under jit; batch n is that of step n."""
    step = jax.jit(make_train_step(MODEL, OBJECTIVE, {}, optimizer, seed=0, ema=ema))
    state = init_state(MODEL, OBJECTIVE, optimizer, make_batch(0), 0, ema is not None)
    kernel = state.params["Dense_0"]["kernel"].at[0].set(-0.0)  # a zero whose sign bit the sum with 0.0 would lose
    params = {**state.params, "Dense_0": {**state.params["Dense_0"], "kernel": kernel}}
    found = [state.replace(params=params, ema=params if ema else None)]
    for number in range(steps):
        found.append(step(found[-1], make_batch(number))[0])
    return found


def trained(optimizer: optax.GradientTransformation, steps: int = 6, ema: float | None = None) -> list[TrainState]:
    """Return the first and the last of `states`."""
    found = states(optimizer, steps, ema)
    return [found[0], found[-1]]


def assert_close(one: PyTree, other: PyTree, rtol: float = 1e-6, atol: float = 1e-8) -> None:
    """Assert that two trees have the same structure and, nearly, the same numbers."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)
