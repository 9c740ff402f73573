"""The ``baseline`` command: what is simple, fitted on the training split and measured as the model is.

A baseline gets the inputs that the objective gives the model, but texts as they are before they become tokens. What it
predicts is put into a table with the columns of the objective's results, so that the config's own metrics measure it,
with intervals. Hyperparameters are chosen on the validation split (without one, on a tenth of training), so numbers of
that split flatter a little, as a model's do whose checkpoint was chosen there. Metrics that read what a baseline does
not have, such as written texts or quantiles, are left out.
Usage: ``result = baseline(config, "runs/digits", "valid")``.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.errors import ConfigError, UsageError, did_you_mean
from jaxlab.core.paths import folder_of
from jaxlab.run.assemble import SPLITS, assemble
from jaxlab.run.ladder.climb import climb

FILE = "baselines.json"
SECONDS = 300.0


def baseline(
    config: ConfigDict,
    workdir: str | os.PathLike[str] | None = None,
    split: str = "valid",
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Fit all baselines that there are for the config's task, and measure them on a split.

    Args:
      config: complete.
      workdir: a run of the same data, whose directory gets ``baselines.json``; None writes nothing.
      split: what is measured. Labels of ``test`` are read by each call that names it; ``reads`` counts them.
      seconds: that each baseline may take to fit; large data are fitted in part, as many rows as that allows.

    Returns:
      ``split``, ``n``, ``reads``; ``rungs`` by name, each with ``metrics``, ``intervals``, ``undefined``, ``seconds``,
      ``rows`` (fitted on) and ``about``; ``not_fitted``, the reason by name; ``better``, ``higher`` or ``lower`` by the
      metric's name; ``left_out``, metrics that read what baselines do not have.

    Raises:
      ConfigError: no such split, or results of the objective that no baseline has.
      UsageError: seconds that are too few, or a run of other data.
      DataError: no run in `workdir`, or no data.
    """
    if not seconds > 0:
        raise UsageError(f"--seconds={seconds:g}: expected more than 0")
    available = [name for name in SPLITS if name in config.data]
    if split not in available:
        raise ConfigError(f"--split={split}: config.data has no such split{did_you_mean(split, available)}")
    folder = None if workdir is None else folder_of(workdir)
    if folder is not None:
        _check_same_data(folder, config)
    experiment = assemble(config, tuple(name for name in available if name in ("train", "valid", split)))
    result = {"split": split, "reads": 1, **climb(experiment, split, seconds)}
    if folder is None:
        return result
    before = record.read_json(folder / FILE)
    result["reads"] = 1 + (before[split]["reads"] if split in before else 0)
    record.write_json(folder / FILE, {**before, split: result})
    return {"workdir": str(folder), **result}


def print_baseline(result: Mapping[str, Any]) -> None:
    """Print each baseline's numbers to stderr, and why others are not there."""
    for name, rung in result["rungs"].items():
        print(f"{name}: {rung['about']} ({rung['rows']} rows, {rung['seconds']:.1f} s)", file=sys.stderr)
        for metric, value in rung["metrics"].items():
            print(f"  {_number(metric, value, rung['intervals'])}", file=sys.stderr)
        for metric, why in rung["undefined"].items():
            print(f"  {metric} undefined: {why}", file=sys.stderr)
    for name, why in result["not_fitted"].items():
        print(f"{name}: not fitted: {why}", file=sys.stderr)
    if result["left_out"]:
        print(f"left out, as baselines lack what they read: {', '.join(result['left_out'])}", file=sys.stderr)


def beside(
    folder: Path, split: str, metrics: Mapping[str, float], intervals: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return a sentence a metric that a run's baselines have too: whether the model is better than the best of them.

    It is, where its whole interval lies on the better side of that baseline's number. Nothing where ``baseline`` was
    not run on the split.

    Args:
      folder: the run's.
      split: what was measured.
      metrics: the model's numbers by ``split/name``.
      intervals: theirs, as mappings; a number without one is compared as it is.
    """
    found = record.read_json(folder / FILE)
    if split not in found:
        return []
    sentences = []
    for metric, better in found[split]["better"].items():
        rungs = {name: rung for name, rung in found[split]["rungs"].items() if metric in rung["metrics"]}
        if metric not in metrics or not rungs or not math.isfinite(metrics[metric]):
            continue
        sign = 1 if better == "higher" else -1
        name, rung = max(rungs.items(), key=lambda item: sign * float(item[1]["metrics"][metric]))
        own = intervals[metric] if metric in intervals else dict.fromkeys(("low", "high"), metrics[metric])
        worst = min(sign * float(own["low"]), sign * float(own["high"]))
        ours = _number(metric, metrics[metric], intervals)
        theirs = _number(name, rung["metrics"][metric], {name: rung["intervals"].get(metric)})
        if worst > sign * float(rung["metrics"][metric]):
            sentences.append(f"{ours}: better than the best baseline, {theirs}")
        else:
            sentences.append(f"warning: {ours}: not better beyond its interval than the best baseline, {theirs}")
    return sentences


def _number(name: str, value: float, intervals: Mapping[str, Mapping[str, Any] | None]) -> str:
    interval = intervals.get(name)
    bounds = f" [{float(interval['low']):.4f}, {float(interval['high']):.4f}]" if interval else ""
    return f"{name} {float(value):.4f}{bounds}"


def _check_same_data(folder: Path, config: ConfigDict) -> None:
    """Raise UsageError for a run whose data are not the config's."""
    differences = configs.diff(record.read_config(folder), config)
    parts = tuple(f"data.{name}" for name in (*SPLITS, "transforms"))
    other = [path for path in differences if path.startswith(parts)]
    if other:
        old, new = differences[other[0]]
        raise UsageError(
            f"--workdir={folder} holds a run of other data: config.{other[0]} is {old!r} there, {new!r} here"
        )
