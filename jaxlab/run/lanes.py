"""The directories of seeds that train side by side: each is an ordinary run with rows and checkpoints of its own.

What the loop hands over holds every seed's numbers; their names begin with the seed's place. A seed that diverges is
left alone from there on and the others go on. Usage: see `jaxlab.run.seeds`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.errors import DivergedError
from jaxlab.core.types import PyTree
from jaxlab.run.assemble import Experiment, make_sinks
from jaxlab.run.journal import Journal
from jaxlab.run.lock import one_writer
from jaxlab.run.spikes import SpikeAlarm
from jaxlab.run.train import open_folder
from jaxlab.train.checkpoint import Checkpoints

_log = logging.getLogger("jaxlab")
_SPLIT = "|"


@dataclasses.dataclass
class Lane:
    """One seed: its config and directory, what it writes, and the sentence that says why it was given up, if it was."""

    config: ConfigDict
    folder: Path
    checkpoints: Checkpoints
    journal: Journal | None = None
    alarm: SpikeAlarm | None = None
    problem: str = ""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    def give_up(self, step: int) -> None:
        """Leave the seed alone after `step`."""
        self.problem = f"the loss is not finite at step {step}; `jaxlab train` goes on alone and says where it began"
        _log.warning("%s: %s", self.folder, self.problem)


@contextlib.contextmanager
def opened(experiment: Experiment, configs: Sequence[ConfigDict], folders: Sequence[Path]) -> Iterator[list[Lane]]:
    """Make or open the run directories, and hold their locks.

    Raises:
      UsageError: one holds another run, or is being written.
    """
    with contextlib.ExitStack() as stack:
        lanes = []
        for config, folder in zip(configs, folders, strict=True):
            if (folder / record.CONFIG).exists():
                record.open_run(folder, config, {})
                stack.enter_context(one_writer(folder))
            else:
                open_folder(folder, experiment._replace(config=config), {}, stack)
            train = config.train
            kept = Checkpoints(folder / record.CHECKPOINTS, keep=train.keep, best=train.best, mode=train.best_mode)
            lanes.append(Lane(config, folder, stack.enter_context(kept)))
        yield lanes


def common_step(lanes: Sequence[Lane]) -> int:
    """Return the latest step that all have saved, or 0."""
    return max(set.intersection(*(set(lane.checkpoints.steps()) for lane in lanes)), default=0)


@contextlib.contextmanager
def written(lanes: Sequence[Lane], step: int, environment: Mapping[str, Any]) -> Iterator[None]:
    """Open the journals of lanes that go on from `step`; the bar on the terminal and warnings are the first one's."""
    with contextlib.ExitStack() as stack:
        for place, lane in enumerate(lanes):
            losses = [row["train/loss"] for row in record.read_metrics(lane.folder) if "train/loss" in row]
            config = lane.config.copy_and_resolve_references()
            if place and "console" in config.sinks:
                with config.unlocked():
                    del config.sinks.console
            journal = Journal(lane.folder, step, make_sinks(config, lane.folder, step), terminal=not place)
            lane.journal = stack.enter_context(contextlib.closing(journal))
            lane.alarm = SpikeAlarm(lane.config.train.spike, losses)
            (lane.folder / record.SUMMARY).unlink(missing_ok=True)
            record.write_json(lane.folder / record.ENVIRONMENT, environment)
        yield


def merged(rows: Sequence[Mapping[str, float]], lanes: Sequence[Lane], names: Sequence[str]) -> dict[str, float]:
    """Return the rows of all lanes as one, with the `names` that the loop looks at as they are in a healthy lane."""
    flat = {f"{place}{_SPLIT}{name}": value for place, row in enumerate(rows) for name, value in row.items()}
    healthy = [row for row, lane in zip(rows, lanes, strict=True) if not lane.problem and is_healthy(row)]
    shown = healthy[0] if healthy else rows[0]
    return {**flat, **{name: shown[name] for name in names if name in shown}}


def parted(row: Mapping[str, float], count: int) -> list[dict[str, float]]:
    """Return each lane's row; what is no lane's own, such as the speed, is everyone's."""
    common = {name: value for name, value in row.items() if _SPLIT not in name}
    own = [{n.partition(_SPLIT)[2]: v for n, v in row.items() if n.startswith(f"{i}{_SPLIT}")} for i in range(count)]
    return [{**common, **each} for each in own]


def is_healthy(row: Mapping[str, float]) -> bool:
    """Say whether a row's loss is finite, or there is none because every step was left out on purpose."""
    skipped = "train/skipped" in row and row["train/skipped"] >= 1.0
    return "train/loss" not in row or math.isfinite(row["train/loss"]) or skipped


def write(lanes: Sequence[Lane], step: int, row: Mapping[str, float]) -> None:
    """Write each lane's row, and give up the lanes whose loss is not finite."""
    for lane, own in zip(lanes, parted(row, len(lanes)), strict=True):
        if lane.problem or lane.journal is None or lane.alarm is None:
            continue
        lane.journal.write(step, own)
        lane.checkpoints.check()
        warning = lane.alarm.look(step, own["train/loss"]) if "train/loss" in own else None
        if warning is not None:
            _log.warning("seed %d: %s", lane.seed, warning)
        if not is_healthy(own):
            lane.give_up(step)


def save(
    lanes: Sequence[Lane],
    step: int,
    trees: Sequence[PyTree],
    intact: Sequence[bool],
    measured: Mapping[str, float],
) -> None:
    """Save the lanes whose state is finite; a DivergedError where that is none."""
    for place, (lane, own) in enumerate(zip(lanes, parted(measured, len(lanes)), strict=True)):
        if lane.problem or lane.journal is None:
            continue
        if not intact[place]:
            lane.give_up(step)
            continue
        lane.journal.sync()
        lane.checkpoints.save(step, jax.tree.map(np.asarray, trees[place]), own)
        _log.info("saving step %d of seed %d", step, lane.seed)
    if all(lane.problem for lane in lanes):
        raise DivergedError(f"the parameters after step {step} are not finite with any seed", step)
