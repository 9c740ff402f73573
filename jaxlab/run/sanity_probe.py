"""What the checks of ``sanity`` share: an experiment on small batches, with one compiled step and one evaluation.

Knows no objective and no model by name. Shape letters: R rows of a batch.
Usage: ``probe = make_probe(experiment, steps=200, seconds=60)``; ``probe.see(state, probe.batch(0)).loss``.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxlab.core.types import Array, Batch, Objective, Outputs, PyTree, Statistics, TrainState, TrainStep
from jaxlab.data.pipeline import Batches
from jaxlab.run.assemble import Experiment
from jaxlab.run.sanity_stand_ins import Recorded, mean
from jaxlab.train.apply import Bound
from jaxlab.train.precision import compute_dtype
from jaxlab.train.step import init_state, make_train_step

PASSED, FAILED, WARNING, NOT_APPLICABLE, CUT = "passed", "failed", "warning", "not applicable", "cut"

_MOST_ROWS, _FEWEST_ROWS = 32, 4  # of a batch: few are learnt by heart in few steps
_MOST_NUMBERS = 2**20  # of a batch's results: of a large vocabulary fewer rows are taken
_LOOK_EVERY = 10  # steps between looks at the clock


class Finding(NamedTuple):
    """What a check found: a verdict, one sentence on what it means and where to look, and its numbers."""

    name: str
    verdict: str
    meaning: str
    numbers: Mapping[str, Any] = {}


class Seen(NamedTuple):
    """An evaluation: the mean loss, the objective's results, and what the model was called with and returned."""

    loss: Array
    results: Outputs
    inputs: list[tuple[Array, ...]]
    returned: list[dict[str, Array]]


class See(Protocol):
    """Evaluates a batch; the model is called with inputs `instead` of the objective's, where there are any."""

    def __call__(self, state: TrainState, batch: Batch, instead: Sequence[tuple[Array, ...]] | None = None) -> Seen: ...


@dataclasses.dataclass(frozen=True)
class Probe:
    """An experiment on batches of R rows; `start` is the state before the first step, `deadline` when time is up."""

    experiment: Experiment
    rows: int
    batches: Batches
    start: TrainState
    step: TrainStep
    see: See
    steps: int
    deadline: float

    @property
    def objective(self) -> Objective:
        return self.experiment.objective

    def left(self) -> float:
        """Return the seconds that are left, below 0 once the time is up."""
        return self.deadline - time.monotonic()

    def batch(self, number: int) -> Batch:
        """Return a training batch of R rows: shuffled, not augmented."""
        return on_device(self.batches[number])

    def fresh(self, rate: float) -> TrainState:
        """Return the state before the first step, with the learning rate `rate`."""
        return self.start.replace(opt_state={**self.start.opt_state, "rate": jnp.asarray(rate, jnp.float32)})

    def train(
        self, state: TrainState, batch_of: Callable[[int], Batch], steps: int, deadline: float
    ) -> tuple[TrainState, Statistics | None, int]:
        """Return the state after `steps` steps or as many as time allows, the last one's statistics, and their number.

        Looks at the clock, and so waits for the device, now and then only.
        """
        statistics = None
        for number in range(steps):
            if number % _LOOK_EVERY == 0:
                jax.block_until_ready(state.step)
                if time.monotonic() > deadline:
                    return state, statistics, number
            state, statistics = self.step(state, batch_of(number))
        return state, statistics, steps


def make_probe(experiment: Experiment, steps: int, seconds: float) -> Probe:
    """Return the probe of an experiment, whose time runs from now."""
    deadline = time.monotonic() + seconds
    config, model = experiment.config, experiment.make_model(None)
    optimizer, values = _adam(), {n: jnp.asarray(x) for n, x in experiment.initial_values().items()}
    see = _make_see(model, experiment.objective, compute_dtype(config.train.precision))
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), experiment.abstract_batch(rows=2))
    start = jax.jit(lambda: init_state(model, experiment.objective, optimizer, blank, config.seed, False, values))()
    rows = min(config.train.batch_size, _MOST_ROWS)
    returned = jax.eval_shape(see, start, experiment.abstract_batch(rows)).returned
    numbers = sum(math.prod(x.shape) for x in jax.tree.leaves(returned)) // rows
    rows = max(min(rows, _FEWEST_ROWS), min(rows, _MOST_NUMBERS // max(numbers, 1)))
    step = make_train_step(
        model, experiment.objective, {}, optimizer, seed=config.seed, precision=config.train.precision
    )
    plain = experiment.batches("train", rows)  # of the transforms without the augmentation
    batches = dataclasses.replace(plain, training=True, weights=experiment.weights, rows=slice(None))
    return Probe(experiment, rows, batches, start, jax.jit(step), jax.jit(see), steps, deadline)


def has_labels(results: Outputs) -> bool:
    """Return whether an objective's results have a target that is no text: one that can be exchanged among rows."""
    return "target" in results and "token_weight" not in results


def on_device(batch: Mapping[str, np.ndarray]) -> Batch:
    """Return a host batch as arrays of JAX."""
    return {name: jnp.asarray(value) for name, value in batch.items()}


def _make_see(model: nn.Module, objective: Objective, dtype: jnp.dtype | None) -> See:
    def see(state: TrainState, batch: Batch, instead: Sequence[tuple[Array, ...]] | None = None) -> Seen:
        bound = Bound(model, state.params, state.model_state, None, dtype, train=False)
        apply = Recorded(bound, instead)
        loss = objective(apply, batch)
        return Seen(mean(loss), loss.outputs, apply.inputs, apply.returned)

    return see


def _adam() -> optax.GradientTransformation:
    """Return Adam, whose state says its rate and keeps the last gradient."""
    adam = optax.scale_by_adam()

    def init(params: PyTree) -> PyTree:
        return {"adam": adam.init(params), "rate": jnp.zeros(()), "gradient": jax.tree.map(jnp.zeros_like, params)}

    def update(gradient: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        direction, inner = adam.update(gradient, state["adam"], params)
        state = {"adam": inner, "rate": state["rate"], "gradient": gradient}
        return jax.tree.map(lambda d: -state["rate"] * d, direction), state

    return optax.GradientTransformation(init, update)
