"""The ``study`` command: every run of a study that is missing, by an executor, with retries; run again, it goes on.

A finished run is never repeated: its directory says that it is. What was tried stands in ``attempts.jsonl``, so that a
run that fails is reported and never dropped. Usage: ``run_study("experiments/NAME/study.py", "studies/NAME")``.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import UsageError
from jaxlab.core.paths import folder_of
from jaxlab.study.attempts import attempts, last_status, write_attempt
from jaxlab.study.description import PlannedArm, Study, as_json, file_of, load, plan, seeded
from jaxlab.study.executors import inline
from jaxlab.study.progress import Progress
from jaxlab.study.pruning import Bar
from jaxlab.study.searching import searched
from jaxlab.study.tasks import FINISHED, PRUNED, Executor, Task, done

STUDY, RUNS = "study.json", "runs"
RETRIED = ("failed", "killed")

_log = logging.getLogger("jaxlab")


def run_study(
    source: str | os.PathLike[str] | Study, workdir: str | os.PathLike[str], executor: Executor | None = None
) -> dict[str, Any]:
    """Do what is missing of a study and return how its runs ended.

    Args:
      source: the study's file, or the study itself.
      workdir: of the study; its runs stand in ``runs/ARM/seed-N``.
      executor: does the runs; one after another in this process if None.

    Raises:
      ConfigError, UsageError: the study cannot be used, or the directory holds something else; nothing was begun.
      PreemptedError: asked to stop; the same command goes on.
    """
    study = source if isinstance(source, Study) else load(source)
    folder = folder_of(workdir)
    check_arms(plan(study))
    _claim(folder)
    file = "" if isinstance(source, Study) else str(file_of(source).resolve())
    chosen = executor or inline.make()
    tasks = _run(folder, study, file, chosen, {})
    if study.search is not None:
        tasks = searched(folder, study, file, lambda study, file, bars: _run(folder, study, file, chosen, bars))
    return _result(folder, tasks)


def _run(folder: Path, study: Study, file: str, executor: Executor, bars: Mapping[str, Bar]) -> list[Task]:
    """Do what is missing of all arms, and return all that there is to do; `bars` are of arms by their keys."""
    arms = plan(study)
    write_description(folder, study, arms, file)
    tasks = tasks_of(folder, study, arms)
    ended = last_status(folder)
    missing = [task for task in tasks if not done(task) and ended.get((task.arm, task.seed)) != PRUNED]
    todo = [task._replace(bar=bars.get(task.arm)) for task in missing]
    _log.info("%d of %d runs are to be done", len(todo), len(tasks))
    with Progress(study, arms, tasks, todo) as progress:
        _do(folder, executor, todo, study.retries, progress)
    return tasks


def check_arms(arms: Sequence[PlannedArm]) -> None:
    """Check every arm's config as far as it can be without data, so that none fails after hours of others."""
    from jaxlab.core.errors import JaxlabError
    from jaxlab.run.values import check_values

    for arm in arms:
        try:
            check_values(arm.config)
        except JaxlabError as error:
            raise type(error)(f"arm {arm.label}: {error}") from error


def tasks_of(folder: Path, study: Study, arms: Sequence[PlannedArm]) -> list[Task]:
    """Return every run of a study, arm by arm within a seed: a study that is stopped has whole comparisons."""
    places = {arm.key: place_of(folder, arm) for arm in arms}
    here = tuple(path for path in sys.path if path)
    return [
        Task(
            arm.key, seed, seeded(arm.config, seed), places[arm.key] / f"seed-{seed}", study.splits, study.at,
            {"study": str(folder), "arm": arm.label}, here,
        )
        for seed in study.seeds
        for arm in arms
        if seed in arm.seeds
    ]  # fmt: skip


def place_of(folder: Path, arm: PlannedArm) -> Path:
    """Return an arm's directory: the one that is there, by its key, or a new one that says what it changes."""
    there = sorted((folder / RUNS).glob(f"*-{arm.key}"))
    if there:
        return there[0]
    words = "".join(c if c.isalnum() or c in ".=_" else "-" for c in arm.label)[:60].strip("-.")
    return folder / RUNS / f"{words}-{arm.key}"


def _do(folder: Path, executor: Executor, todo: Sequence[Task], retries: int, progress: Progress) -> None:
    """Do the tasks; those that fail are tried again after all others."""
    by_name = {(task.arm, task.seed): task for task in todo}
    tried: Counter[tuple[str, int]] = Counter()
    left = list(todo)
    while left:
        failed = []
        for each in executor(left):
            write_attempt(folder, each)
            progress.tell(each)
            name = (each.arm, each.seed)
            tried[name] += 1
            if each.status in RETRIED and tried[name] <= retries:
                failed.append(by_name[name])
            elif each.status not in (FINISHED, PRUNED):
                _log.warning(
                    "%s, seed %d %s: %s", by_name[name].folder.parent.name, each.seed, each.status, each.problem
                )
        left = failed


def _claim(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / STUDY).is_file()):
        raise UsageError(f"--workdir={folder} is not empty and holds no study; choose another")
    folder.mkdir(parents=True, exist_ok=True)


def write_description(folder: Path, study: Study, arms: Sequence[PlannedArm], file: str) -> None:
    """Write ``study.json``: all that a report needs to know of the study besides its runs."""
    described = {
        "file": file,
        "metric": study.metric, "direction": study.direction, "at": study.at, "splits": list(study.splits),
        "seeds": list(study.seeds), "smallest": study.smallest, "retries": study.retries,
        "published": [each._asdict() for each in study.published],
        "arms": [
            {
                "key": arm.key, "label": arm.label, "baseline": arm.is_baseline, "seeds": list(arm.seeds),
                "folder": str(place_of(folder, arm).relative_to(folder)),
                "changes": {path: as_json(value) for path, value in arm.changes.items()},
            }
            for arm in arms
        ],
    }  # fmt: skip
    record.write_json(folder / STUDY, described)


def _result(folder: Path, tasks: Sequence[Task]) -> dict[str, Any]:
    last = {(row["arm"], row["seed"]): row for row in attempts(folder)}
    finished = [task for task in tasks if done(task)]
    bad = [task for task in tasks if task not in finished]
    return {
        "workdir": str(folder),
        "runs": len(tasks),
        "finished": len(finished),
        "not_finished": [
            {
                "run": str(task.folder.relative_to(folder)),
                "status": last[task.arm, task.seed]["status"] if (task.arm, task.seed) in last else "missing",
                "problem": last[task.arm, task.seed]["problem"] if (task.arm, task.seed) in last else "",
            }
            for task in bad
        ],
    }
