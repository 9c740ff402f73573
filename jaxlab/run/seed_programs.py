"""The compiled programs of seeds that train in one process, and what the loop does with them.

Usage: ``programs = together(experiment, 8)``, then ``loop.run(loop_plan(experiment, programs, lanes, ...), ...)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlab.core.tree import unpack
from jaxlab.core.types import HostBatch, Periodic, PyTree, Statistics, TrainState
from jaxlab.data.feeding import chunk_steps, prefetch
from jaxlab.data.pipeline import Batches
from jaxlab.data.stacking import SeedBatches
from jaxlab.run import lanes as lanes_
from jaxlab.run.assemble import Experiment, make_hooks
from jaxlab.run.batching import data_seed
from jaxlab.run.journal import IDS
from jaxlab.run.lanes import Lane
from jaxlab.run.stopping import Stop
from jaxlab.train import loop
from jaxlab.train.beside import Beside, StepBeside
from jaxlab.train.compilation import blocking_if_need_be, options_of_init, watch_compilations
from jaxlab.train.evaluate import summarise
from jaxlab.train.non_finite import intact
from jaxlab.train.parallel import measure
from jaxlab.train.stacked import Lift, OneByOne, Together, advance, advance_to
from jaxlab.train.window import Window, open_window, window_shapes


class Programs(NamedTuple):
    """What is compiled once for all seeds; every function takes and gives arrays on devices."""

    form: str
    count: int  # seeds that train at once
    shared: bool  # one batch for all seeds
    lift: Lift
    statistics: Statistics  # shapes of one seed's
    state: TrainState  # shapes of one seed's
    init: Callable[..., TrainState]  # of one seed, and values
    step: Any  # of states, windows, seeds, chunk, and where several steps are taken at once the last one
    measure: Callable[..., Statistics]
    intact: Callable[..., jax.Array]
    window: Callable[[], Window]

    def put(self, chunk: HostBatch) -> PyTree:
        """Move a chunk of training batches to the devices."""
        return self.lift.put(chunk, None if self.shared else 1)

    def put_shared(self, chunk: HostBatch) -> PyTree:
        """Move a chunk that all seeds are measured on."""
        return self.lift.put(chunk, None)


def together(experiment: Experiment, count: int) -> Programs:
    """Return the programs of `count` seeds at once; see `jaxlab.train.stacked.Together`."""
    return _programs(experiment, Together(count, jax.devices()), "together", count)


def one_by_one(experiment: Experiment) -> Programs:
    """Return the programs of one seed after another."""
    return _programs(experiment, OneByOne(jax.devices()[0]), "in_turn", 1)


def in_pairs(alone: Programs) -> Programs:
    """Return the programs of two seeds at a time, by those of one; see `jaxlab.train.beside`."""
    lift = Beside(alone.lift, 2)
    return alone._replace(
        form="in_pairs", count=2, lift=lift, step=StepBeside(alone.step, lift), measure=lift(alone.measure, (0, None)),
        intact=lift(alone.intact, (0,)), window=lift(alone.window, (0,)),
    )  # fmt: skip


def _programs(experiment: Experiment, lift: Lift, form: str, count: int) -> Programs:
    shared = experiment.config.data.seed is not None and form == "together"
    state, statistics = experiment.abstract_step()
    step = advance(lambda seed: experiment.train_step(None, seed), lift, shared=shared)
    if experiment.config.train.steps_per_call > 1:
        step = advance_to(step)
    evaluate = measure(experiment.eval_step(None))

    def compiled(function: Callable[..., PyTree], donate: tuple[int, ...] = ()) -> Any:
        return blocking_if_need_be(jax.jit(watch_compilations(function), donate_argnums=donate), jax.devices())

    return Programs(
        form, count, shared, lift, statistics, state,
        # one seed's: mapped over seeds, all that draws random numbers takes three times as long to compile
        init=jax.jit(lambda seed, values: experiment.init(values, seed), compiler_options=options_of_init(state)),
        step=compiled(step, (0,)),
        measure=compiled(lift(lambda state, chunk: evaluate(state, chunk)[0], (0, None))),
        intact=compiled(lift(intact, (0,))),
        window=jax.jit(lift(lambda seed: open_window(statistics), (0,)), out_shardings=lift.placement(0)),
    )  # fmt: skip


def seeds_of(programs: Programs, lanes: Sequence[Lane]) -> jax.Array:
    """Return the seeds of all lanes on the devices."""
    return _put_seeds(programs, [lane.seed for lane in lanes])


def _put_seeds(programs: Programs, seeds: Sequence[int]) -> jax.Array:
    return programs.lift.put(np.array(seeds, np.uint32), 0)


def starting(
    programs: Programs, lanes: Sequence[Lane], values: Mapping[str, Any], step: int
) -> tuple[TrainState, Window]:
    """Return states and windows as saved at `step`, or those of the beginning, which `values` may be part of."""
    if not step:
        return beginning(programs, [lane.seed for lane in lanes], values)
    like = {"state": programs.state, "window": window_shapes(programs.statistics)}
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), like)
    trees = [jax.device_get(lane.checkpoints.restore(step, like)) for lane in lanes]
    states, windows = ([tree[name] for tree in trees] for name in ("state", "window"))
    return programs.lift.joined(states), programs.lift.joined(windows)


def beginning(programs: Programs, seeds: Sequence[int], values: Mapping[str, Any]) -> tuple[TrainState, Window]:
    """Return the states and windows before the first step."""
    states = [jax.device_get(programs.init(np.uint32(seed), dict(values))) for seed in seeds]
    return programs.lift.joined(states), programs.window(_put_seeds(programs, seeds))


def train_batches(experiment: Experiment, programs: Programs, lanes: Sequence[Lane]) -> Batches:
    """Return the training batches of all lanes, or the one that they share."""
    batches = experiment.batches("train", training=True)
    each = [dataclasses.replace(batches, seed=data_seed(lane.config)) for lane in lanes]
    return each[0] if programs.shared else SeedBatches.of(each)


def steps_of(batches: Batches) -> int:
    """Return how many batches travel to the devices at once."""
    return batches.steps if isinstance(batches, SeedBatches) else chunk_steps(batches)


def chunk_length(plan: loop.Plan, batches: Batches) -> int:
    """Return how many batches a chunk has."""
    return plan.length if plan.several is not None else steps_of(batches)


def loop_plan(
    experiment: Experiment, programs: Programs, lanes: Sequence[Lane], progress: Callable[[int], None], stop: Stop
) -> loop.Plan:
    """Return what the loop needs; see `jaxlab.run.plan.make_plan`, which is for one run."""
    train, lift = experiment.config.train, programs.lift
    seeds = seeds_of(programs, lanes)

    def fetched(tree: PyTree) -> list[PyTree]:
        host = jax.device_get(tree)
        return [lift.lane(host, place) for place in range(len(lanes))]

    def summarise_windows(window: Window) -> loop.Row:
        rows = []
        for sums, seen in fetched(window):
            row = summarise(unpack(sums, programs.statistics), experiment.metrics, "train")
            rows.append({**row, IDS: float(seen)})
        return lanes_.merged(rows, lanes, ("train/loss", "train/skipped"))

    def save(at: int, state: TrainState, window: Window, measured: loop.Row) -> None:
        whole = np.atleast_1d(jax.device_get(programs.intact(state)))
        states, windows = fetched(state), fetched(window)
        trees = [{"state": each, "window": seen} for each, seen in zip(states, windows, strict=True)]
        lanes_.save(lanes, at, trees, list(map(bool, whole)), measured)

    several = train.steps_per_call > 1
    return loop.Plan(
        single=lambda state, window, chunk: programs.step(state, window, seeds, chunk),
        several=(lambda state, window, chunk, last: programs.step(state, window, seeds, chunk, last))
        if several
        else None,
        length=train.steps_per_call,
        last=train.steps,
        batch_size=train.batch_size,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        best=train.best,
        hooks=[*_validation(experiment, programs, lanes), *_hooks(experiment, programs, lanes)],
        zeros=programs.window(seeds),
        replicate=programs.put_shared,
        summarise=summarise_windows,
        write=lambda at, row: lanes_.write(lanes, at, row),
        save=save,
        progress=progress,
        stopping=lambda step: stop.asked(),
    )


def _validation(experiment: Experiment, programs: Programs, lanes: Sequence[Lane]) -> list[Periodic]:
    """Return the hook that measures all lanes on the validation split, where there is one."""
    if "valid" not in experiment.sources:
        return []
    batches = experiment.batches("valid")

    def hook(step: int, state: TrainState) -> dict[str, float]:
        chunks = prefetch(programs.put_shared(batches.chunk(i, 1)) for i in range(len(batches)))
        parts = jax.device_get([programs.measure(state, chunk) for chunk in chunks])
        rows = []
        for place in range(len(lanes)):
            own = [programs.lift.lane(part, place) for part in parts]
            total = jax.tree.map(lambda *leaves: np.sum(leaves, axis=0, dtype=np.float64), *own)
            rows.append(summarise(total, experiment.metrics, "valid"))
        return lanes_.merged(rows, lanes, (experiment.config.train.best,))

    return [Periodic(experiment.config.train.eval_every, hook)]


def _hooks(experiment: Experiment, programs: Programs, lanes: Sequence[Lane]) -> list[Periodic]:
    """Return the config's own hooks, each called for every lane with that lane's state."""
    each = [make_hooks(lane.config, data=experiment.data, workdir=lane.folder) for lane in lanes]

    def all_lanes(hooks: Sequence[Periodic]) -> Periodic:
        def hook(step: int, state: TrainState) -> dict[str, float]:
            rows = [dict(own.hook(step, programs.lift.lane(state, i)) or {}) for i, own in enumerate(hooks)]
            return lanes_.merged(rows, lanes, (experiment.config.train.best,))

        return Periodic(hooks[0].every, hook)

    return [all_lanes(hooks) for hooks in zip(*each, strict=True)]
