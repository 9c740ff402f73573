"""All seeds of an arm in one program, in this process (`jaxlab.run.seeds`). Usage: ``jaxlab study … --executor=vmap``.

An arm whose seeds cannot share a program, such as one with buckets of lengths, is done one run after another.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Iterator, Sequence

from jaxlab.core.errors import JaxlabError, PreemptedError, UsageError, did_you_mean
from jaxlab.run.seeds import FORMS, hindrance, train_seeds
from jaxlab.study.tasks import DIVERGED, FAILED, FINISHED, Executor, Outcome, Task, do, measure, outcome

_log = logging.getLogger("jaxlab")


def make(form: str = "auto") -> Executor:
    """Return the executor; `form` is together, in_pairs, in_turn, or auto, which tries them for a moment."""
    if form not in FORMS:
        raise UsageError(f"--executor.form={form}{did_you_mean(form, FORMS)}")

    def execute(tasks: Sequence[Task]) -> Iterator[Outcome]:
        order = sorted(tasks, key=lambda task: task.arm)
        for _, group in itertools.groupby(order, key=lambda task: task.arm):
            yield from _arm(list(group), form)

    return execute


def _arm(tasks: Sequence[Task], form: str) -> Iterator[Outcome]:
    """Do the runs of one arm."""
    config, began = tasks[0].config, time.monotonic()
    sys.path.extend(path for path in tasks[0].paths if path not in sys.path)
    problem = hindrance(config, {task.seed: task.folder for task in tasks})
    if problem:
        _log.warning("one run after another: %s", problem)
        yield from map(do, tasks)
        return
    try:
        found = train_seeds(config, {task.seed: task.folder for task in tasks}, form)
    except PreemptedError:
        raise
    except Exception as error:
        _log.warning("the seeds together: %s: %s", type(error).__name__, error)
        found = dict.fromkeys((task.seed for task in tasks), f"{type(error).__name__}: {error}")
        yield from (outcome(task, FAILED, began, found[task.seed]) for task in tasks)
        return
    for task in tasks:
        yield _measured(task, began, found[task.seed])
        began = time.monotonic()


def _measured(task: Task, began: float, problem: str) -> Outcome:
    if problem:
        return outcome(task, DIVERGED, began, problem)
    try:
        measure(task)
    except JaxlabError as error:
        return outcome(task, FAILED, began, f"{type(error).__name__}: {error}")
    return outcome(task, FINISHED, began)
