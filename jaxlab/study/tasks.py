"""One run of a study: what is to be trained where, whether it is done, and doing it.

A task can be pickled, so that another process or machine does it. Usage: ``outcome = do(task)``.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.errors import DivergedError, JaxlabError, PreemptedError
from jaxlab.study.pruning import Bar

FINISHED, DIVERGED, FAILED, KILLED, PREEMPTED = "finished", "diverged", "failed", "killed", "preempted"
PRUNED = "pruned"  # given up by a search
EVALUATION = "evaluation.json"

_log = logging.getLogger("jaxlab")


class Task(NamedTuple):
    """A run: its arm's key, its seed, its complete config, where it stands, and what is done once it is trained."""

    arm: str
    seed: int
    config: ConfigDict
    folder: Path
    splits: tuple[str, ...]
    at: str
    origin: dict[str, Any]
    paths: tuple[str, ...]  # where plug-ins of the study's file are found
    bar: Bar | None = None  # of a search: a run that cannot reach it any more is given up


class Outcome(NamedTuple):
    """What came of an attempt at a task; `problem` says in a sentence what went wrong."""

    arm: str
    seed: int
    status: str
    seconds: float
    problem: str = ""


Executor = Callable[[Sequence[Task]], Iterator[Outcome]]
"""Does tasks, in whatever order and wherever, and yields each one's outcome once; a PreemptedError ends the study."""


def done(task: Task) -> bool:
    """Say whether the run has taken all its steps and was evaluated on every split."""
    summary = record.read_json(task.folder / record.SUMMARY)
    if not summary or summary["step"] < task.config.train.steps:
        return False
    evaluations = record.read_json(task.folder / EVALUATION)
    return set(task.splits) <= {entry["split"] for entry in evaluations.values()}


def do(task: Task) -> Outcome:
    """Train and evaluate, or go on with it, and say what came of it; only being asked to stop is raised.

    Raises:
      PreemptedError: the state is saved.
    """
    from jaxlab.run.train import train

    began, given_up = time.monotonic(), list[str]()

    def judge(step: int, row: Mapping[str, float]) -> bool:
        why = "" if task.bar is None else task.bar.out_of_reach(step, row)
        if why:
            given_up.append(why)
        return bool(why)

    sys.path.extend(path for path in task.paths if path not in sys.path)
    try:
        train(task.config, task.folder, task.origin, judge=judge)
        measure(task)
    except PreemptedError:
        if given_up:
            return outcome(task, PRUNED, began, given_up[0])
        raise
    except DivergedError as error:
        return outcome(task, DIVERGED, began, str(error))
    except Exception as error:
        if not isinstance(error, JaxlabError):
            _log.warning("%s", traceback.format_exc())
        return outcome(task, FAILED, began, f"{type(error).__name__}: {error}")
    return outcome(task, FINISHED, began)


def measure(task: Task) -> None:
    """Evaluate a trained run on every split on which it was not yet."""
    from jaxlab.run.evaluate import evaluate

    for split in task.splits:
        measured = {entry["split"] for entry in record.read_json(task.folder / EVALUATION).values()}
        if split not in measured:
            evaluate(task.folder, split, task.at)


def outcome(task: Task, status: str, began: float, problem: str = "") -> Outcome:
    """Return the outcome of an attempt that began at a `time.monotonic`."""
    return Outcome(task.arm, task.seed, status, time.monotonic() - began, problem)
