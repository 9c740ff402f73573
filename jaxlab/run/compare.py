"""The ``compare`` command: two runs on the same examples, from the predictions that they stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core import record
from jaxlab.core.errors import DataError, did_you_mean
from jaxlab.core.types import Metric
from jaxlab.metrics.paired import delong_test, mcnemar, paired_bootstrap
from jaxlab.run.assemble import assemble
from jaxlab.run.evaluate import EVALUATION
from jaxlab.run.store import read_arrays
from jaxlab.run.uncertainty import numbers_of, per_example

Table = Mapping[str, np.ndarray]


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str], split: str = "test") -> dict[str, Any]:
    """Return for each metric that both runs have how far the second is from the first, with interval and p-value.

    Each run's last evaluation of the split counts. Additive metrics are compared by the paired bootstrap, shares by
    McNemar's exact test beside it, and two-class scores by DeLong's test of the areas under their ROC curves.

    Raises:
      DataError: a run was not evaluated on the split, or the two did not see the same examples.
    """
    folders = [Path(folder).expanduser().resolve() for folder in (first, second)]
    steps = [_last_step(folder, split) for folder in folders]
    tables = [read_arrays(folder, split, step) for folder, step in zip(folders, steps, strict=True)]
    one, other = tables[0], _in_order_of(tables[0], tables[1], folders)
    differences: dict[str, dict[str, Any]] = {}
    for name, metric in _common_metrics(folders, split).items():
        differences |= _differences(f"{split}/{name}", metric, one, other)
    if (scores := _two_class_scores(one, other)) is not None:
        differences[f"{split}/roc_auc"] = delong_test(one["target"] == 1, *scores)._asdict()
    if not differences:
        raise DataError(f"{folders[0]} and {folders[1]} have no metric in common that their stored predictions give")
    return {"runs": [str(folder) for folder in folders], "split": split, "steps": steps, "differences": differences}


def _last_step(folder: Path, split: str) -> int:
    record.read_config(folder)  # there is a run
    evaluations = record.read_json(folder / EVALUATION).values()
    found = [entry for entry in evaluations if entry["split"] == split]
    if not found:
        known = {entry["split"] for entry in evaluations}
        raise DataError(
            f"{folder} has no predictions of the split {split!r}{did_you_mean(split, known)}; expected "
            f"jaxlab evaluate --workdir={folder} --split={split} before"
        )
    return int(max(found, key=lambda entry: int(entry["reads"]))["step"])  # a step keeps its place when read again


def _in_order_of(one: Table, other: Table, folders: list[Path]) -> Table:
    """Return the second table in the first's order of examples."""
    places = [np.argsort(table["id"], kind="stable") for table in (one, other)]
    if not np.array_equal(one["id"][places[0]], other["id"][places[1]]):
        shared = len(np.intersect1d(one["id"], other["id"]))
        raise DataError(
            f"{folders[0]} and {folders[1]} did not see the same examples: {len(one['id'])} and {len(other['id'])}, of "
            f"which {shared} are in both; expected two evaluations of one split of one data set"
        )
    order = np.empty_like(places[0])
    order[places[0]] = places[1]
    other = {name: value[order] for name, value in other.items()}
    if "target" in one and "target" in other and not np.array_equal(one["target"], other["target"], equal_nan=True):
        raise DataError(f"{folders[0]} and {folders[1]} have other targets for the same examples: other data")
    return other


def _common_metrics(folders: list[Path], split: str) -> dict[str, Metric]:
    """Return the metrics that both runs' configs have by the same name with the same options."""
    configs = [record.read_config(folder) for folder in folders]
    record.restore_imports(folders[0])
    built = assemble(configs[0], (split,), record.read_learnt(folders[0])).metrics
    ours, theirs = (config.metrics.to_dict() for config in configs)
    return {name: metric for name, metric in built.items() if ours[name] == theirs.get(name)}


def _differences(name: str, metric: Metric, one: Table, other: Table) -> dict[str, dict[str, Any]]:
    first, second = (per_example(metric, table) for table in (one, other))
    if first is None or second is None:
        return {}
    numbers, found = numbers_of(metric, first, name), {}
    for path in numbers(first.rows.sum(axis=0)):
        difference = paired_bootstrap(first.rows, second.rows, lambda sums_S, path=path: numbers(sums_S)[path])
        found[path] = difference._asdict()
        if first.successes is not None and second.successes is not None:
            found[path]["mcnemar_p"] = mcnemar(first.successes, second.successes)
    return found


def _two_class_scores(one: Table, other: Table) -> tuple[np.ndarray, np.ndarray] | None:
    """Return how far each model prefers class 1, where there are two classes and both are among the targets."""
    logits = [table["logits"] for table in (one, other) if "logits" in table]
    if len(logits) < 2 or any(value.ndim != 2 or value.shape[1] != 2 for value in logits):
        return None
    if set(np.unique(one["target"])) != {0, 1}:
        return None
    first, second = (value[:, 1] - value[:, 0] for value in logits)
    return first, second
