"""What the loop is to do for an experiment: its compiled steps, its evaluation, and steps taken again one by one.

Usage: ``plan = make_plan(experiment, statistics, strategy, journal, checkpoints)``, then ``run_loop(...)``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxlab.core.errors import DivergedError
from jaxlab.core.tree import unpack
from jaxlab.core.types import Periodic, Statistics, TrainState
from jaxlab.data.feeding import chunk_steps, feed, prefetch
from jaxlab.data.pipeline import Batches
from jaxlab.run.assemble import Experiment
from jaxlab.run.incident import Position
from jaxlab.run.journal import IDS, Unwritten
from jaxlab.run.spikes import SpikeAlarm
from jaxlab.train import loop
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.evaluate import evaluate, summarise
from jaxlab.train.non_finite import intact
from jaxlab.train.parallel import Strategy, measure
from jaxlab.train.window import Window, open_window, several, single

_log = logging.getLogger("jaxlab")


def make_plan(
    experiment: Experiment,
    statistics: Statistics,
    strategy: Strategy,
    journal: Unwritten,
    checkpoints: Checkpoints,
    alarm: SpikeAlarm,
) -> loop.Plan:
    """Return what the loop needs, but for hooks and what it tells others; `statistics` are the shapes of a step's."""
    train = experiment.config.train
    step, axis = experiment.train_step(strategy.batch_axis), strategy.batch_axis
    is_intact = strategy.compile(intact, donate=False)

    def summarise_window(window: Window) -> loop.Row:
        sums, ids = strategy.fetch(window)
        return {**summarise(unpack(sums, statistics), experiment.metrics, "train"), IDS: float(ids)}

    def write(at: int, row: loop.Row) -> None:
        journal.write(at, row)
        checkpoints.check()
        warning = alarm.look(at, row["train/loss"]) if "train/loss" in row else None
        if warning is not None:
            _log.warning(warning)

    def save(at: int, state: TrainState, window: Window, measured: loop.Row) -> None:
        if not strategy.fetch(is_intact(state)):
            raise DivergedError(f"the parameters after step {at} are not finite", at)
        journal.sync()
        checkpoints.save(at, strategy.save_form({"state": state, "window": window}), measured)
        _log.info("saving step %d", at)

    shapes = len(experiment.config.data.buckets.lengths) or 1
    return loop.Plan(
        single=strategy.compile(single(step, axis), donate=True, shapes=shapes),
        several=strategy.compile(several(step, axis), donate=True) if train.steps_per_call > 1 else None,
        length=train.steps_per_call,
        last=train.steps,
        batch_size=train.batch_size,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        best=train.best,
        hooks=(),
        zeros=strategy.init(lambda: open_window(statistics)),
        replicate=strategy.replicate,
        summarise=summarise_window,
        write=write,
        save=save,
        progress=lambda step: None,
        stopping=lambda step: False,
    )


def run_loop(
    experiment: Experiment,
    batches: Batches,
    strategy: Strategy,
    plan: loop.Plan,
    begin: Position,
    note: Callable[[int, str], None],
) -> TrainState:
    """Feed the loop from a position on: small batches travel several at a time, or as many as a call takes.

    `note` is told the step and the lowered text of its program, which the first call then finds traced already.
    """
    chunks, length = _chunks(experiment, batches, strategy, plan, begin.step)
    with contextlib.closing(chunks):
        first = list(itertools.islice(chunks, 1))
        for _, chunk in first:
            note(begin.step, _lowered(plan, begin, chunk))
        fed = itertools.chain(first, chunks)
        return loop.run(dataclasses.replace(plan, length=length), begin.state, begin.window, begin.step, fed)


def _lowered(plan: loop.Plan, begin: Position, chunk: Any) -> str:
    compiled: Any = plan.single if plan.several is None else plan.several
    stop = () if plan.several is None else (plan.replicate(np.int32(begin.step)),)
    return compiled.lower(begin.state, begin.window, chunk, *stop).as_text()


@contextlib.contextmanager
def steps_again(
    experiment: Experiment, batches: Batches, strategy: Strategy, plan: loop.Plan, begin: Position
) -> Iterator[Iterator[Position]]:
    """Give the positions after each step from `begin` on, each with a window of that step alone.

    The steps are taken by the loop's own programs, whose bits another program would not give. The memory of each state
    is reused by the next.
    """
    chunks, length = _chunks(experiment, batches, strategy, plan, begin.step)

    def positions() -> Iterator[Position]:
        state, step = begin.state, begin.step
        for start, chunk in chunks:
            while step < min(start + length, plan.last):
                step += 1
                if plan.several is None:
                    state, window = plan.single(state, plan.zeros, chunk)
                else:
                    state, window = plan.several(state, plan.zeros, chunk, plan.replicate(np.int32(step)))
                yield Position(state, window, step)

    with contextlib.closing(chunks):
        yield positions()


def _chunks(
    experiment: Experiment, batches: Batches, strategy: Strategy, plan: loop.Plan, first: int
) -> tuple[Any, int]:
    """Return the chunks on the devices from the step `first` on, and how many batches each holds."""
    length = plan.length if plan.several is not None else chunk_steps(batches)
    workers = experiment.config.data.workers
    return feed(batches, first=first, last=plan.last, chunk=length, put=strategy.put_chunk, workers=workers), length


def validation(experiment: Experiment, strategy: Strategy) -> list[Periodic]:
    """Return the hook that measures the validation split, where there is one."""
    if "valid" not in experiment.sources:
        return []
    batches = experiment.batches("valid")
    compiled = strategy.compile(_statistics_only(measure(experiment.eval_step(strategy.batch_axis))), donate=False)

    def hook(step: int, state: TrainState) -> dict[str, float]:
        chunks = prefetch(strategy.put_chunk(batches.chunk(i, 1)) for i in range(len(batches)))
        return summarise(evaluate(state, chunks, compiled, strategy), experiment.metrics, "valid")

    return [Periodic(experiment.config.train.eval_every, hook)]


def _statistics_only(
    function: Callable[..., tuple[Statistics, Any]],
) -> Callable[..., tuple[Statistics, dict[str, Any]]]:
    """Return the function without its outputs, so that XLA computes none that nobody reads."""
    return lambda state, chunk: (function(state, chunk)[0], {})
