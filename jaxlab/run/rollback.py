"""The loop, and what is done about a step that is not finite: keep it for the autopsy, and end or roll back.

A rollback goes to the latest checkpoint and leaves out the data from there to the bad batch, itself included (Chowdhery
et al. 2022, PaLM, arXiv 2204.02311, section 5.1). What was left out is written down before the run goes on, so that a
resumed run sees the same data. Usage: ``train_through(folder, experiment, strategy, plan, begin, journal)``.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import DivergedError
from jaxlab.core.types import TrainState
from jaxlab.data.pipeline import Batches
from jaxlab.run.assemble import Experiment
from jaxlab.run.incident import Incident, Position, Replay, find, keep
from jaxlab.run.journal import Unwritten
from jaxlab.run.plan import run_loop, steps_again
from jaxlab.run.program import note
from jaxlab.train import loop
from jaxlab.train.across import new_barrier, wait_at, writes
from jaxlab.train.non_finite import intact
from jaxlab.train.parallel import Strategy

_log = logging.getLogger("jaxlab")


def rollbacks(folder: Path) -> list[dict[str, Any]]:
    """Return a run's rollbacks in order: ``at`` which step, and how ``far`` the data are ahead of the steps since."""
    return record.read_json(folder / record.ROLLBACKS).get("rollbacks", [])


def training_batches(folder: Path, experiment: Experiment) -> Batches:
    """Return a run's training batches, without those that rollbacks have left out."""
    jumps = tuple((each["at"], each["far"]) for each in rollbacks(folder))
    return dataclasses.replace(experiment.batches("train", training=True), jumps=jumps)


def train_through(
    folder: Path,
    experiment: Experiment,
    strategy: Strategy,
    plan: loop.Plan,
    first: Position,
    begin: Callable[[], Position],
    journal: Unwritten,
) -> None:
    """Train to the plan's last step.

    Args:
      folder: the run's.
      experiment: what is trained.
      strategy: on which devices.
      plan: of the loop.
      first: where to begin; its memory is reused.
      begin: reads the latest checkpoint, or makes the initial state.
      journal: of the run.

    Raises:
      DivergedError: and ``config.train.non_finite`` does not say to go on, or this has been too often.
    """
    position: Position | None = first
    while True:
        batches = training_batches(folder, experiment)
        run = functools.partial(run_loop, experiment, batches, strategy, plan, note=functools.partial(note, folder))
        diverged = _diverged(run, position or begin())
        if diverged is None:
            return
        position = None  # its memory has been used
        incident = _look(experiment, batches, strategy, plan, begin, diverged)
        if incident is None:
            _log.warning("taken again, every step is finite: these devices do not give the same bits twice")
        else:
            keep(folder, incident, strategy.save_form)
        train = experiment.config.train
        if train.non_finite != "rollback" or len(rollbacks(folder)) >= train.non_finite_limit:
            raise diverged
        number = incident.number if incident is not None else batches.number(diverged.step)
        _roll_back(folder, begin().step, number, diverged, journal)


def _diverged(run: Callable[[Position], Any], position: Position) -> DivergedError | None:
    """Run, and return the error without the frames that would keep the state's memory."""
    try:
        run(position)
    except DivergedError as error:
        return error.with_traceback(None)
    return None


def _look(
    experiment: Experiment,
    batches: Batches,
    strategy: Strategy,
    plan: loop.Plan,
    begin: Callable[[], Position],
    diverged: DivergedError,
) -> Incident | None:
    _log.warning("%s; taking the steps since the latest checkpoint again to find the first", diverged)
    again = functools.partial(steps_again, experiment, batches, strategy, plan)
    is_intact = strategy.compile(intact, donate=False)

    def looked_intact(state: TrainState) -> bool:
        return bool(strategy.fetch(is_intact(state)))

    return find(Replay(begin, again, plan.summarise, looked_intact, batches), diverged)


def _roll_back(folder: Path, step: int, number: int, diverged: DivergedError, journal: Unwritten) -> None:
    """Write down that the data up to batch `number` are left out from `step` on."""
    entry = {"at": step, "far": number + 1 - step, "noticed": diverged.step, "reason": str(diverged)}
    if writes():
        record.write_json(folder / record.ROLLBACKS, {"rollbacks": [*rollbacks(folder), entry]})
    wait_at(new_barrier("rollback"))
    journal.rewind(step)
    _log.warning("rolled back to step %d; the data go on after batch %d", step, number)
