"""A search within a study: arms are run seed by seed, and the best one is written down as ``train`` takes it.

Usage: ``searched(folder, study, file, run)``; see `jaxlab.study.search`.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.errors import UsageError
from jaxlab.study.attempts import last_status
from jaxlab.study.description import Study, as_json, plan
from jaxlab.study.grid import chain
from jaxlab.study.pruning import Bar, bar_of, is_hopeless
from jaxlab.study.read import run_folders, value_of
from jaxlab.study.search import Tried, search
from jaxlab.study.tasks import PRUNED, Task, done

BEST, BEST_CONFIG = "best.json", "best_config.json"

_log = logging.getLogger("jaxlab")
Run = Callable[[Study, str, Mapping[str, Bar]], list[Task]]
"""Does what is missing of a study's arms, whose runs may be given up below a bar, and returns all runs of them."""


def searched(folder: Path, study: Study, file: str, run: Run) -> list[Task]:
    """Search, write the best arm, and return the runs of all arms.

    Args:
      folder: the study's.
      study: with a search; its own arms are done.
      file: of the study.
      run: does the runs.
    """
    wanted = study.search
    if wanted is None:
        raise UsageError("study.search is None: there is nothing to search")
    proposed: list[Mapping[str, Any]] = []
    stopped: dict[str, int] = {}

    def whole() -> Study:
        return dataclasses.replace(study, arms=chain(study.arms, proposed), stopped=dict(stopped))

    def values(arm: Mapping[str, Any], others: Sequence[Sequence[float]]) -> Tried:
        proposed.append(arm)
        key = _key(study, arm)
        others = others if wanted.prune else ()  # beside nothing, nothing is hopeless
        count, found = 0, list[float]()
        while count < len(study.seeds) and not is_hopeless(found, others, study.direction):
            count = min(len(study.seeds), 2 * count or 1)  # 1, 2, 4 …: executors have something to share
            stopped[key] = count
            bar = _bar(folder, study, key, others)
            tasks = [task for task in run(whole(), file, {} if bar is None else {key: bar}) if task.arm == key]
            heading = [] if bar is None else [_heading(task, bar) for task in _given_up(folder, tasks)]
            if heading:
                finished = list(itertools.takewhile(done, tasks))
                return Tried([_value(task, study) for task in finished], True, sum(heading) / len(heading))
            found = [_value(task, study) for task in tasks]
        return Tried(found, is_hopeless(found, others, study.direction))

    found = search(wanted, study.direction, folder, values)
    proposed[:] = [each.arm for each in found]
    for each in found:
        stopped[_key(study, each.arm)] = len(each.values)
    tasks = run(whole(), file, {})
    _write_best(folder, study, [each.arm for each in found if len(each.values) == len(study.seeds)], tasks)
    return tasks


def _key(study: Study, arm: Mapping[str, Any]) -> str:
    return plan(dataclasses.replace(study, arms=[arm], baseline=None))[0].key


def _value(task: Task, study: Study) -> float:
    return value_of(task.folder, study.metric, study.at) if done(task) else math.nan


def _bar(folder: Path, study: Study, key: str, others: Sequence[Sequence[float]]) -> Bar | None:
    """Return what a run of an arm has to be able to reach, by the curves of the finished runs of all other arms."""
    runs = [run for run in run_folders(folder) if not run.parent.name.endswith(f"-{key}")]
    finished = [run for run in runs if (run / record.SUMMARY).is_file()]
    rows = [record.read_metrics(run) for run in finished]
    curves = [{row["step"]: row[study.metric] for row in each if study.metric in row} for each in rows]
    if not any(curves):  # of the test split there are no rows
        return None
    finals = [value_of(run, study.metric, study.at) for run in finished]
    return bar_of(curves, finals, others, study.direction, study.metric)


def _given_up(folder: Path, tasks: Sequence[Task]) -> list[Task]:
    ended = last_status(folder)
    return [task for task in tasks if not done(task) and ended.get((task.arm, task.seed)) == PRUNED]


def _heading(task: Task, bar: Bar) -> float:
    """Return where a run was heading when it was given up, which is by the last row that says."""
    known = [row for row in record.read_metrics(task.folder) if bar.metric in row and row["step"] in bar.rest]
    return bar.projected(known[-1]["step"], known[-1][bar.metric])


def _write_best(folder: Path, study: Study, arms: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> None:
    """Write the best of the arms that were not stopped: what it changes, and its complete config."""
    sign, best, highest = 1.0 if study.direction == "max" else -1.0, None, -math.inf
    for arm in (*study.arms, *arms):
        values = [_value(task, study) for task in tasks if task.arm == _key(study, arm)]
        mean = sign * sum(values) / len(values)
        if mean > highest:
            best, highest = arm, mean
    if best is None:
        _log.warning("no arm has finished all its seeds: there is no best one")
        return
    planned = plan(dataclasses.replace(study, arms=[best], baseline=None))[0]
    record.write_json(folder / BEST, {path: as_json(value) for path, value in planned.changes.items()})
    record.write_atomically(folder / BEST_CONFIG, configs.to_json(planned.config))
    _log.info("the best arm is %s: %s", planned.label, folder / BEST)
