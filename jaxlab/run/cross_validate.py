"""``train --cv=K``: K runs, each measured on rows that it did not train on, and all those predictions together.

A fold is an ordinary run in ``fold-I/``; ``cross_validation.json`` is written last. Choosing hyperparameters by these
numbers, and reporting them, would flatter: that needs a test split, or a cross-validation within each fold.
Usage: ``result = cross_validate(config, "runs/digits-cv", folds=5)``.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from scipy import stats

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.errors import UsageError
from jaxlab.core.paths import folder_of
from jaxlab.core.types import Table
from jaxlab.data import splits
from jaxlab.data.table_columns import read
from jaxlab.data.windows import Windows
from jaxlab.metrics.intervals import LEVEL
from jaxlab.run.assemble import Experiment, assemble, strategy_of
from jaxlab.run.evaluate import EVALUATION, evaluate
from jaxlab.run.folds import AUTO, SEED, Fold, Rule, check_flags, cut, keep
from jaxlab.run.measured import measured
from jaxlab.run.slices import as_json
from jaxlab.run.store import read_arrays, write_store
from jaxlab.run.train import train
from jaxlab.run.units import Units, units_of

RESULT = "cross_validation.json"
FOLDS, SETTINGS = "folds", "settings.json"  # index files, and what they and the runs were made by
POOLED, FILE = "out_of_fold", "out-of-fold"

_log = logging.getLogger("jaxlab")


class _Done(NamedTuple):
    """A finished fold: where, its entry in the result, and its table with the ids of the whole data."""

    folder: Path
    entry: dict[str, Any]
    step: int
    table: Table
    units: Units | None


def cross_validate(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    folds: int = 5,
    by: str = AUTO,
    field: str | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train and measure every fold, or go on in the one that was stopped, or say that all is done; return the result.

    Each fold is measured at its last step: the best one would be chosen by the very rows that are held out. The
    result has ``per_fold`` metrics; ``across_folds`` their mean, standard deviation and Student's interval, which is
    too narrow as folds share training rows (Bengio & Grandvalet 2004, JMLR 5, 1089-1105: no estimate of that variance
    is unbiased); and ``out_of_fold`` metrics of all held-out predictions together, with intervals over rows, groups or
    blocks of time, which leave out that another training set gives another model.

    Args:
      config: complete, as `jaxlab.load_config` returns it.
      workdir: the directory of all; made if need be.
      folds: how many.
      by: as for `jaxlab.run.folds.cut`.
      field: as for `jaxlab.run.folds.cut`.
      origin: as for `jaxlab.run.train.train`.

    Raises:
      UsageError: the directory holds another cross-validation, or something else.
      ConfigError, DataError: before any fold is trained.
      DivergedError, PreemptedError: of a fold; in the latter case the next call goes on where it stopped.
    """
    check_flags(folds, by, field)
    folder = folder_of(workdir)
    known = _known_rule(folder, config, folds, by, field)
    if not (folder / RESULT).exists():
        rule, parts = cut(config, *(known or (folds, by, field)))
        if known is None:
            strategy_of(config)
            assemble(parts[0].config).abstract_step()  # before there is a directory: what cannot be trained leaves none
            record.write_atomically(folder / FOLDS / SETTINGS, configs.to_json(_settings(config, rule)))
        keep(folder / FOLDS, parts)
        record.write_json(folder / RESULT, _run_all(folder, rule, parts, origin or {}))
    _log.info("%s is finished", folder)
    return {"workdir": str(folder), **record.read_json(folder / RESULT)}


def _settings(config: ConfigDict, rule: Rule) -> ConfigDict:
    return ConfigDict({**rule._asdict(), "seed": SEED, "config": config})


def _known_rule(folder: Path, config: ConfigDict, folds: int, by: str, field: str | None) -> Rule | None:
    """Return by what rule the cross-validation in `folder` was begun, None for none, before its data are opened.

    Raises:
      UsageError: the directory holds another one, or something else.
    """
    path = folder / FOLDS / SETTINGS
    if not path.exists():
        files = [folder] if folder.is_file() else (found for found in folder.rglob("*") if found.is_file())
        left = f".{SETTINGS}."  # the name's beginning of all that a start killed half way leaves
        if any(not found.name.startswith(left) for found in files):
            raise UsageError(f"--workdir={folder} is not empty and holds no cross-validation; choose another")
        return None
    there = configs.read(path)
    given = Rule(folds, by, field or splits.FIELDS[by]) if by != AUTO else Rule(folds, there.by, there.field)
    differences = configs.diff(there, _settings(config, given))
    if differences:
        first = list(differences.items())[:10]
        names = {"folds": "--cv", "by": "--cv_by", "field": "--cv_field"}
        lines = [f"  {names.get(name, name)}: {old!r} there, {new!r} now" for name, (old, new) in first]
        more = [f"  and {len(differences) - 10} more"] if len(differences) > 10 else []
        problem = f"{folder} holds another cross-validation; choose another --workdir"
        raise UsageError("\n".join([problem, *lines, *more]))
    return given


def _run_all(folder: Path, rule: Rule, parts: list[Fold], origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of all folds, which are run where they are not done."""
    notes = _notes(rule, parts)
    _log.warning("%s", notes[0])
    done = [_run(folder, rule, number, fold, origin) for number, fold in enumerate(parts)]
    first = done[0]
    experiment = assemble(parts[0].config, ("valid",), record.read_learnt(first.folder))
    tuned = sorted(name for name, metric in experiment.tables.items() if metric.tune is not None)
    if tuned:
        notes.append(
            f"left out: {', '.join(tuned)}, which a validation split tunes: there is none besides the held-out rows"
        )
    return {
        "status": "finished", "folds": rule.folds, "by": rule.by, "field": rule.field, "seed": SEED,
        "rows": len(np.union1d(parts[-1].train.indices, parts[-1].held.indices)), "step": first.step, "notes": notes,
        "per_fold": [_without(fold.entry, tuned) for fold in done],
        "across_folds": _across([_without(fold.entry, tuned)["metrics"] for fold in done]),
        POOLED: _pooled(folder, done, experiment),
    }  # fmt: skip


def _notes(rule: Rule, parts: list[Fold]) -> list[str]:
    """Return what a reader of the numbers has to know."""
    held = sum(len(fold.held) for fold in parts)
    how = f"{rule.by} by {rule.field!r}" if rule.field else rule.by
    notes = [
        f"{rule.folds} folds of config.data.train, {how}: {held} rows are held out, each once; the config's own "
        "data.valid is not used and data.test not read",
        "each fold is measured at its last step, not at the best one, which the held-out rows themselves would choose",
        "folds share training rows: the interval over folds is too narrow",
    ]
    if rule.by == "time":
        notes.append(
            f"by time each fold trains on what was before; the first {len(parts[0].train)} rows are never held out"
        )
    return notes


def _run(folder: Path, rule: Rule, number: int, fold: Fold, origin: Mapping[str, Any]) -> _Done:
    """Train and measure a fold as far as that is not done."""
    run = folder / f"fold-{number}"
    # the terminal shows warnings alone, and whose progress comes now has to be seen
    _log.warning("fold %d of %d: %d rows train, %d are held out", number, rule.folds, len(fold.train), len(fold.held))
    step = int(train(fold.config, run, {**origin, "fold": number, "folds": rule.folds}).summary["step"])
    key = f"valid-{step}"
    if key not in record.read_json(run / EVALUATION):
        evaluate(run, "valid", str(step))
    found = record.read_json(run / EVALUATION)[key]
    table = read_arrays(run, "valid", step)
    row_N = fold.rows(table["id"])
    units = _units(rule, fold, table["id"], row_N)
    own = {"fold": np.full(len(row_N), number, np.int32), "id": fold.held.indices[row_N]}
    entry = {"fold": number, "run": run.name, "train": len(fold.train), "held_out": len(fold.held)}
    entry |= {name: found[name] for name in ("n", "metrics", "intervals", "undefined", "parameters")}
    return _Done(run, entry, step, {**table, **own}, units)


def _units(rule: Rule, fold: Fold, ids_N: np.ndarray, rows_N: np.ndarray) -> Units | None:
    """Return how a fold's examples depend on each other: by what the split kept together, or else by their fields."""
    found = units_of(fold.source, ids_N)
    if rule.by == "grouped" and rule.field is not None:
        return Units(groups=read(fold.held, (rule.field,))[rule.field][rows_N])
    if isinstance(fold.source, Windows):
        return Units(times=fold.held.indices[rows_N], overlap=found.overlap if found else 1)
    if rule.by == "time" and rule.field is not None:
        return Units(times=read(fold.held, (rule.field,))[rule.field][rows_N])
    return found


def _without(entry: dict[str, Any], tuned: Sequence[str]) -> dict[str, Any]:
    """Return a fold's entry without what was tuned on the rows that it is measured on."""
    kept = {
        part: {path: value for path, value in entry[part].items() if path.split("/")[1] not in tuned}
        for part in ("metrics", "intervals", "undefined")
    }
    return {**entry, **kept}


def _across(folds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the mean, spread and Student's interval of each metric over the folds in which it has a value."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for metrics in folds for name in metrics):
        values = [float(metrics[name]) for metrics in folds if math.isfinite(float(metrics.get(name, math.nan)))]
        n = len(values)
        if not n:
            continue
        mean = float(np.mean(values))
        found[name] = {"mean": mean, "n": n}
        if n > 1:
            spread = float(np.std(values, ddof=1))
            half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * spread / math.sqrt(n)
            found[name] |= {"standard_deviation": spread, "low": mean - half, "high": mean + half}
            found[name]["method"] = "Student over folds, too narrow"
    return found


def _pooled(folder: Path, done: Sequence[_Done], experiment: Experiment) -> dict[str, Any]:
    """Return the metrics of all held-out predictions together, which are written in the order of the whole data."""
    together = {name: np.concatenate([fold.table[name] for fold in done]) for name in done[0].table}
    order_N = np.argsort(together["id"], kind="stable")
    table = {name: values[order_N] for name, values in together.items()}
    units = _joined([fold.units for fold in done])
    tables = {name: metric for name, metric in experiment.tables.items() if metric.tune is None}
    found = measured(experiment.metrics, tables, table, POOLED, units and units.take(order_N))
    store = write_store(folder, FILE, done[0].step, table)
    return {**as_json(len(order_N), found), "predictions": str(store.relative_to(folder))}


def _joined(parts: Sequence[Units | None]) -> Units | None:
    """Return the units of all folds' examples."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    groups = [part.groups for part in known if part.groups is not None]
    times = [part.times for part in known if part.times is not None]
    overlap = max(part.overlap for part in known)
    return Units(np.concatenate(groups) if groups else None, np.concatenate(times) if times else None, overlap)
