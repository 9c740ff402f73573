"""Finds the step at which a run diverged, and keeps its state and batch for the autopsy.

Training looks only at the loss of a window, which costs nothing; the exact step is found afterwards, by taking the
steps since the latest checkpoint once more with the very program that took them, looking after each one.
Usage: ``incident = find(replay, error); keep(folder, incident)``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlab.core import record
from jaxlab.core.errors import DivergedError
from jaxlab.core.types import HostBatch, PyTree, TrainState
from jaxlab.data.pipeline import Batches
from jaxlab.train import across
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.loop import Row
from jaxlab.train.window import Window

_log = logging.getLogger("jaxlab")
INCIDENT, BATCH = "incident.json", "batch.npz"


class Position(NamedTuple):
    """A state, its open window and the steps that it has taken."""

    state: TrainState
    window: Window
    step: int


@dataclasses.dataclass(frozen=True)
class Replay:
    """How to take steps again, one by one."""

    begin: Callable[[], Position]  # from the latest checkpoint
    steps: Callable[[Position], contextlib.AbstractContextManager[Iterator[Position]]]  # the positions after it
    summarise: Callable[[Window], Row]  # of one step alone
    intact: Callable[[TrainState], bool]
    batches: Batches


class Incident(NamedTuple):
    """A step that was not finite: the state before it, its batch, and what the step said."""

    before: Position
    batch: HostBatch
    number: int
    row: Row
    reason: str


def find(replay: Replay, error: DivergedError) -> Incident | None:
    """Return the first step since the latest checkpoint that is not finite; None where none is, this time."""
    began = replay.begin()
    found = _first_bad(replay, began, error.step)
    if found is None:
        return None
    step, row, reason = found
    before = replay.begin()  # again, as the steps have used its memory: two states at once may not fit
    if before.step < step:
        with replay.steps(before) as positions:
            before = next(position for position in positions if position.step == step)
    number = replay.batches.number(step)
    straight = dataclasses.replace(replay.batches, jumps=(), rows=slice(None))  # the other processes' rows as well
    return Incident(before, straight[number], number, row, reason)


def _first_bad(replay: Replay, began: Position, last: int) -> tuple[int, Row, str] | None:
    """Return the steps taken before the first one that is not finite, its row, and what is not."""
    with replay.steps(began) as positions:
        for after in positions:
            row = replay.summarise(after.window)
            if row.get("train/skipped", 0.0) > 0:
                return after.step - 1, row, "the step was left out"
            if not math.isfinite(row["train/loss"]):
                return after.step - 1, row, f"the loss is {row['train/loss']}"
            if not replay.intact(after.state):
                return after.step - 1, row, "the loss is finite, and the parameters after the step are not"
            if after.step >= last:
                return None
    return None


def keep(workdir: Path, incident: Incident, save_form: Callable[[PyTree], PyTree]) -> None:
    """Write what the autopsy reads, instead of an earlier incident."""
    folder, step = workdir / record.AUTOPSY, incident.before.step
    if across.writes_here():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    with Checkpoints(folder / record.CHECKPOINTS, keep=1, best=None, mode="min") as checkpoints:
        tree = {"state": incident.before.state, "window": incident.before.window}
        checkpoints.save(step, save_form(tree), {})
    if not across.writes():
        return
    np.savez(folder / BATCH, **incident.batch)
    facts = {
        "step": step,
        "batch": incident.number,
        "reason": incident.reason,
        "loss": incident.row["train/loss"],
        "grad_norm": incident.row.get("train/grad_norm"),
        "ids": [int(i) for i in np.asarray(incident.batch["id"])[np.asarray(incident.batch["mask"]) > 0]],
    }
    record.write_json(folder / INCIDENT, facts)
    _log.warning("step %d: %s; jaxlab autopsy %s says where it comes from", step, incident.reason, workdir)
