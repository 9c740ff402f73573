"""Moments of a run at which it is killed: drawn over its whole life, and in the middle of saves and evaluations.

What a run does is told from its directory alone: rows, checkpoints that are not complete yet, the log.
Usage: ``for aim in draw_aims(5, timeline, evaluates=True, chance=random.Random(0)): came = reach(aim, ...)``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.run.trial import Trial
from jaxlab.train import manifest

KINDS = ("moment", "save", "evaluate", "moment", "row")  # of every five kills, in this order
_REMOVED = ".old-"  # begins the name of a checkpoint that is replaced or removed
PATIENCE = 600.0  # seconds beyond ten lives in which nothing happens
_SHORT = 0.02  # seconds that a save is taken to last where none was seen


class Timeline(NamedTuple):
    """How an undisturbed run went: its life in seconds, when rows came (seconds, step), and how long saves took."""

    life: float
    rows: list[tuple[float, int]]
    evaluation: float
    save: float


class Aim(NamedTuple):
    """What to wait for, from which step on, and how long after it to kill."""

    kind: str
    step: int
    delay: float


class Watch:
    """What one process does to a run's directory, as far as `look` has seen it."""

    def __init__(self, folder: Path, config: ConfigDict) -> None:
        """Begin to watch, before the process is started."""
        self.folder, self._train, self._valid = folder, config.train, "valid" in config.data
        self.last: dict[str, Any] = {}  # row; empty where there is none
        self.opened = False  # whether it has opened the log: rows beyond the state that it begins with are gone by then
        self.saving = False  # whether there is a checkpoint that is not complete
        self.saves: list[float] = []  # seconds that saves lasted
        self._log, self._read, self._since = self._log_size(), (-1, -1), 0.0
        self._kept: dict[str, Any] = {}

    def look(self) -> None:
        """Take note of what has changed; to be called again and again while the process runs."""
        now, saving = time.monotonic(), _is_saving(self.folder)
        if saving and not self.saving:
            self._since = now
        elif self.saving and not saving:
            self.saves.append(now - self._since)
        self.saving = saving
        opened = self.opened or self._log_size() > self._log
        self._read_last()
        if opened and not self.opened:
            self.opened, self._kept = True, self.last

    @property
    def stepping(self) -> bool:
        """Whether the process has written a row."""
        return self.opened and self.last != self._kept

    @property
    def step(self) -> int:
        """The step of the last row, or 0."""
        return int(self.last.get("step", 0))

    @property
    def evaluating(self) -> bool:
        """Whether the last row is of a step after which an evaluation follows at once, whose row is not there yet."""
        due = self.step > 0 and (self.step % self._train.eval_every == 0 or self.step == self._train.steps)
        return self._valid and due and not self.measured

    @property
    def measured(self) -> bool:
        """Whether the last row is of an evaluation."""
        return any(name.startswith("valid/") for name in self.last)

    def _read_last(self) -> None:
        path = self.folder / record.METRICS
        with contextlib.suppress(OSError, ValueError):  # not there yet, or just being written
            stat = path.stat()
            if (stat.st_ino, stat.st_size) != self._read:
                lines = path.read_bytes().split(b"\n")
                self.last = json.loads(lines[-2]) if len(lines) > 1 else {}
                self._read = (stat.st_ino, stat.st_size)

    def _log_size(self) -> int:
        path = self.folder / record.LOG
        return path.stat().st_size if path.is_file() else 0


def complete(folder: Path) -> list[int]:
    """Return the steps of a run's complete checkpoints, as their names say it."""
    return [int(path.name) for path in _entries(folder) if _is_complete(path)]


def _is_saving(folder: Path) -> bool:
    """Return whether a checkpoint is there that is not complete, nor about to be removed."""
    return any(not _is_complete(path) and not path.name.startswith(_REMOVED) for path in _entries(folder))


def _is_complete(path: Path) -> bool:
    return path.name.isdigit() and (path / manifest.NAME).is_file()


def _entries(folder: Path) -> list[Path]:
    place = folder / record.CHECKPOINTS
    return list(place.iterdir()) if place.is_dir() else []


def timeline(folder: Path, life: float, save: list[float]) -> Timeline:
    """Return how the run at `folder` went, which took `life` seconds; `save` are durations of its saves."""
    rows = record.read_metrics(folder)
    before = max(0.0, life - max((row["wall"] for row in rows), default=0.0))  # until its clock began, about
    pauses = [
        row["wall"] - earlier["wall"]
        for earlier, row in itertools.pairwise(rows)
        if "train/loss" not in row and "train/loss" in earlier and earlier["step"] == row["step"]
    ]
    trained = [(before + row["wall"], row["step"]) for row in rows if "train/loss" in row]
    return Timeline(life, trained, statistics.median(pauses or [0.0]), statistics.median(save or [_SHORT]))


def draw_aims(count: int, times: Timeline, evaluates: bool, chance: random.Random) -> list[Aim]:
    """Return `count` aims in an order in which one run can meet them.

    Moments are uniform over the run's life. Those before the first row, while a process imports, restores or compiles,
    come anywhere in the order, since each restart passes through them.
    """
    early, late = [], []
    for place in range(count):
        kind = KINDS[place % len(KINDS)]
        if kind == "evaluate" and not evaluates:
            kind = "moment"
        first = times.rows[0][0] if times.rows else times.life
        at = chance.uniform(0.0 if kind == "moment" else first, times.life)
        passed = [row for row in times.rows if row[0] <= at]
        if not passed:
            early.append(Aim("start", 0, at))
            continue
        delays = {"moment": at - passed[-1][0], "save": chance.uniform(0.0, times.save), "row": 0.0,
                  "evaluate": chance.uniform(0.0, times.evaluation)}  # fmt: skip
        late.append(Aim(kind, passed[-1][1], delays[kind]))
    late.sort(key=lambda aim: (aim.step, aim.delay))
    for aim in early:
        late.insert(chance.randint(0, len(late)), aim)
    return late


def reach(aim: Aim, trial: Trial, watch: Watch, life: float) -> bool:
    """Wait until the moment that `aim` names; False if the process ended before.

    Raises:
      JaxlabError: nothing came for ten lives and ten minutes.
    """
    since = math.inf

    def awaited() -> bool:
        if aim.kind == "start":
            return True
        doing = {"moment": True, "save": watch.saving, "evaluate": watch.evaluating, "row": watch.measured}
        return watch.stepping and watch.step >= aim.step and doing[aim.kind]

    def come() -> bool:
        nonlocal since
        watch.look()
        if awaited() and since == math.inf:
            since = time.monotonic()
        return time.monotonic() - since >= aim.delay

    return trial.wait(come, 10 * life + PATIENCE)


def phase_of(watch: Watch) -> str:
    """Return what a watched process was doing when it was killed: start, compile, step, save or evaluate.

    A save in the background may be under way in all of these but ``start``; ``save`` is where nothing else is known.
    """
    if not watch.opened:
        return "start"
    if watch.stepping and watch.evaluating:
        return "evaluate"
    if watch.saving:
        return "save"
    return "step" if watch.stepping else "compile"
