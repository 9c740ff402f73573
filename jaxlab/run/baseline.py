"""The ``baseline`` command: what simple methods reach on the same split with the same metrics, and a verdict beside it.

Usage: ``result = baseline(config, "runs/mine")``; `evaluate` then says by `beside` whether the run is better.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.run import ladder_sequences, ladder_tables
from jaxlab.run.ladder_task import Rung, Task, open_task
from jaxlab.run.measured import measured
from jaxlab.run.slices import as_json
from jaxlab.run.units import units_of

BASELINES = "baselines.json"
_log = logging.getLogger("jaxlab")


def baseline(
    config: ConfigDict, workdir: str | os.PathLike[str] | None = None, split: str = "valid", seconds: float = 300.0
) -> dict[str, Any]:
    """Fit the baselines that fit the config's task on its training split, and measure them on `split`.

    Args:
      config: complete.
      workdir: a run of the same data, into whose ``baselines.json`` the result is written.
      split: train, valid or test; of test the labels are read.
      seconds: no further baseline is begun after that.

    Raises:
      ConfigError: no such split, the run is of other data, or no baseline is known for the task.
      DataError: no run, or no data.
    """
    folder = None if workdir is None else Path(workdir).expanduser().resolve()
    if folder is not None and record.read_config(folder).data.to_dict() != config.data.to_dict():
        raise ConfigError(f"--workdir={folder} holds a run of other data; expected one whose config.data is the same")
    began, task, rungs = time.monotonic(), open_task(config, split), dict[str, Any]()
    for name, rung in {**ladder_tables.RUNGS, **ladder_sequences.RUNGS}.items():
        if time.monotonic() - began > seconds and rungs:
            rungs[name] = {"not_fitted": f"the {seconds:g} seconds were over"}
        elif (found := _measure(task, rung)) is not None:
            rungs[name] = found
            _log.info("baseline %s: done", name)
    if not any("metrics" in found for found in rungs.values()):
        raise ConfigError(f"config.objective: no baseline is known for {task.node.factory}")
    result = {"split": split, "n": len(task.held.source), "rungs": rungs}
    if folder is not None:
        record.write_json(folder / BASELINES, {**record.read_json(folder / BASELINES), split: result})
    return result


def _measure(task: Task, rung: Rung) -> dict[str, Any] | None:
    began, config = time.monotonic(), task.experiment
    try:
        answer = rung(task)
    except (DataError, ValueError, MemoryError) as error:  # scikit-learn's own, such as of one class
        return {"not_fitted": str(error).splitlines()[0]}
    if answer is None:
        return None
    table = task.table(answer)
    tables = {name: metric for name, metric in config.tables.items() if metric.tune is None}  # no validation of theirs
    tables = {name: metric for name, metric in tables.items() if set(metric.reads) <= set(table)}
    units = units_of(task.held.source, table["id"])
    found = measured(config.metrics, tables, table, task.split, units)
    about = {"rows": answer.rows, "about": answer.about, "seconds": round(time.monotonic() - began, 2)}
    return {**as_json(len(table["id"]), found), **about}


def print_baseline(result: Mapping[str, Any]) -> None:
    """Print each baseline's numbers with their intervals."""
    for name, found in result["rungs"].items():
        if "not_fitted" in found:
            print(f"{name}: not fitted: {found['not_fitted']}", file=sys.stderr)
            continue
        print(f"{name}: {found['about']} ({found['rows']} rows, {found['seconds']} s)", file=sys.stderr)
        for path, value in found["metrics"].items():
            print(f"  {path} {_with_bounds(value, found['intervals'].get(path))}", file=sys.stderr)


def beside(
    folder: Path, split: str, metrics: Mapping[str, float], intervals: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return how a run's numbers stand beside its baselines, where `baseline` was run for the split.

    The verdict is about ``config.train.best``, whose direction the config states, or, where that is the loss, about the
    first metric, without a verdict. Better is only what lies beyond both intervals.
    """
    found = record.read_json(folder / BASELINES)
    if split not in found:
        return []
    config = record.read_config(folder)
    path = config.train.best.replace("valid/", f"{split}/", 1)
    judged = path if path in intervals else next(iter(intervals), "")
    rungs = {name: rung for name, rung in found[split]["rungs"].items() if judged in rung.get("metrics", {})}
    lines = [
        f"{judged} of {name}: {_with_bounds(rung['metrics'][judged], rung['intervals'].get(judged))}"
        for name, rung in rungs.items()
    ]
    if judged != path or not rungs:
        return lines
    sign = 1 if config.train.best_mode == "max" else -1
    best = max(rungs, key=lambda name: sign * float(rungs[name]["metrics"][judged]))
    own, other = intervals[judged], rungs[best]["intervals"][judged]
    ahead = float(own["low"]) > float(other["high"]) if sign > 0 else float(own["high"]) < float(other["low"])
    said = f"{judged} {_with_bounds(metrics[judged], own)}"
    if ahead:
        return [*lines, f"{said} is better than the best baseline, {best}"]
    return [*lines, f"warning: {said} is not better than the best baseline, {best}, beyond the intervals"]


def _with_bounds(value: float, interval: Mapping[str, Any] | None) -> str:
    if interval is None or math.isnan(float(interval["low"])):
        return f"{float(value):.4f}"
    return f"{float(value):.4f} [{float(interval['low']):.4f}, {float(interval['high']):.4f}]"
