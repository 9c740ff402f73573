"""The training loop: takes steps and lets others watch. Knows no model, no data set and no metric.

Dispatch runs a bounded number of calls ahead of the devices: a window of statistics is fetched that many calls after
it was closed, when the devices have done it and have more to do. Statistics are added up on the devices, so that a
row is the exact mean over its window.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from jaxlab.core.errors import DivergedError, PreemptedError
from jaxlab.core.types import Periodic, PyTree, TrainState
from jaxlab.train.clock import Clock
from jaxlab.train.window import Advance, AdvanceTo, Window

Row = Mapping[str, float]
Chunks = Iterator[tuple[int, PyTree]]
AHEAD = 8  # calls under way at most: enough to write a row meanwhile, and few enough to stop within seconds


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the loop is to do, as functions and numbers."""

    single: Advance
    several: AdvanceTo | None  # goes on within a chunk; None where steps_per_call is 1
    length: int  # batches in a chunk
    last: int
    batch_size: int
    log_every: int
    checkpoint_every: int
    best: str  # the metric that chooses a checkpoint: a state measured by it is saved
    hooks: Sequence[Periodic]
    zeros: Window
    replicate: Callable[[PyTree], PyTree]  # to the devices
    summarise: Callable[[Window], Row]  # waits for the devices
    write: Callable[[int, Row], None]
    save: Callable[[int, TrainState, Window, Row], None]
    progress: Callable[[int], None]  # told every step that the devices have finished
    stopping: Callable[[int], bool]  # asked after every dispatch, with its step


def run(plan: Plan, state: TrainState, window: Window, step: int, chunks: Chunks) -> TrainState:
    """Train from `step` to the plan's last and return the state.

    Args:
      plan: the functions and numbers.
      state: after `step` steps; its memory is reused.
      window: the statistics since the last row, on the devices.
      step: steps already taken.
      chunks: (first step, device chunk) pairs, from the chunk that holds `step`.

    Raises:
      DivergedError: the loss of a window is not finite.
      PreemptedError: `stopping` became true; the state has been saved.
    """
    clock = Clock(plan.batch_size, step)
    pending, event = _Pending(plan, clock), _next_event(plan, step)
    with jax.transfer_guard("disallow"):
        while step < plan.last:
            with clock.waiting():
                start, chunk = next(chunks)
            end = min(start + plan.length, plan.last)
            while step < end:
                if plan.several is None:
                    step += 1
                    state, window = plan.single(state, window, chunk)
                else:
                    step = min(event, end)
                    state, window = plan.several(state, window, chunk, plan.replicate(np.int32(step)))
                clock.dispatched()
                closed = step % plan.log_every == 0 or step == plan.last
                pending.add(step, window, closed)
                if closed:
                    window = plan.zeros
                if step == event or plan.stopping(step):
                    with clock.paused():
                        _observe(plan, pending, step, state, window)
                    event = _next_event(plan, step)
    return state


def _next_event(plan: Plan, step: int) -> int:
    """Return the next step after which something is due."""
    intervals = (plan.log_every, plan.checkpoint_every, *(hook.every for hook in plan.hooks))
    return min(plan.last, *((step // every + 1) * every for every in intervals))


def _observe(plan: Plan, pending: _Pending, step: int, state: TrainState, window: Window) -> None:
    """Call the hooks that are due, save where that is due, and leave where that was asked for."""
    due = [hook for hook in plan.hooks if step % hook.every == 0 or step == plan.last]
    stopping = plan.stopping(step) and step < plan.last
    saving = stopping or step % plan.checkpoint_every == 0 or step == plan.last
    if not due and not saving:
        return
    pending.flush()
    measured: dict[str, float] = {}
    with jax.transfer_guard("allow"):
        for hook in due:
            measured |= {name: float(value) for name, value in (hook.hook(step, state) or {}).items()}
            plan.progress(step)
    if measured:
        plan.write(step, measured)
    if saving or plan.best in measured:
        if window is not plan.zeros:  # an open window: what has diverged must not push out an earlier checkpoint
            _check_finite(plan.summarise(window), step)
        plan.save(step, state, window, measured)
        plan.progress(step)
    if stopping:
        raise PreemptedError(f"stopped at step {step} of {plan.last} and saved; run the same command to go on")


class _Pending:
    """The windows after the calls that are under way; those that were closed become rows when the devices are done."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._plan, self._clock = plan, clock
        self._windows: collections.deque[tuple[int, Window, bool]] = collections.deque()

    def add(self, step: int, window: Window, closed: bool) -> None:
        """Add the window after the latest call, which ended with `step`; wait for the oldest call if need be."""
        self._windows.append((step, window, closed))
        if len(self._windows) > AHEAD:
            self._take()

    def flush(self) -> None:
        """Wait for all calls."""
        while self._windows:
            self._take()

    def _take(self) -> None:
        step, window, closed = self._windows.popleft()
        jax.block_until_ready(window)
        self._plan.progress(step)
        if closed:
            row = self._plan.summarise(window)
            self._plan.write(step, {**row, **self._clock.lap(step)})  # timed when done, not when dispatched
            _check_finite(row, step)


def _check_finite(row: Row, step: int) -> None:
    """Raise DivergedError for a loss that is not finite, but where every step of the window was left out."""
    if not math.isfinite(row["train/loss"]) and row.get("train/skipped", 0.0) < 1.0:
        raise DivergedError(f"the loss is {row['train/loss']} in the steps up to {step}", step)
