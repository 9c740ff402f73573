"""The ``compare`` command: two runs on the same examples, from the predictions that they stored."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core import record
from jaxlab.core.errors import DataError, UndefinedError, did_you_mean
from jaxlab.core.types import Table
from jaxlab.metrics.paired import delong_test, mcnemar, paired_bootstrap
from jaxlab.run.assemble import Experiment, assemble
from jaxlab.run.evaluate import EVALUATION
from jaxlab.run.measured import Tuned, of_sums, of_table, resampling
from jaxlab.run.per_example import per_example
from jaxlab.run.store import read_arrays
from jaxlab.run.units import Units, units_of


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str], split: str = "test") -> dict[str, Any]:
    """Return for each metric that both runs have how far the second is from the first, with interval and p-value.

    Each run's last evaluation of the split counts. Additive metrics are compared by the paired bootstrap, shares by
    McNemar's exact test beside it, and two-class scores by DeLong's test of the areas under their ROC curves.

    Raises:
      DataError: a run was not evaluated on the split, or the two did not see the same examples.
    """
    folders = [Path(folder).expanduser().resolve() for folder in (first, second)]
    names = [_last(folder, split) for folder in folders]
    tables = [read_arrays(folder, split, name) for folder, name in zip(folders, names, strict=True)]
    one, other = tables[0], _in_order_of(tables[0], tables[1], folders)
    experiment, common = _common(folders, split)
    units = units_of(experiment.sources[split], one["id"])
    tuned = [
        record.read_json(folder / EVALUATION)[f"{split}-{name}"] for folder, name in zip(folders, names, strict=True)
    ]
    differences: dict[str, dict[str, Any]] = {}
    for name in common:
        differences |= _differences(experiment, name, split, (one, other), units, [entry["tuned"] for entry in tuned])
    if units is None and (scores := _two_class_scores(one, other)) is not None:
        differences[f"{split}/roc_auc"] = delong_test(one["target"] == 1, *scores)._asdict()
    if not differences:
        raise DataError(f"{folders[0]} and {folders[1]} have no metric in common that their stored predictions give")
    return {"runs": [str(folder) for folder in folders], "split": split, "steps": names, "differences": differences}


def _last(folder: Path, split: str) -> str:
    """Return the step of the last evaluation of a split, with the kind of parameters where one was asked for."""
    record.read_config(folder)  # there is a run
    evaluations = record.read_json(folder / EVALUATION).values()
    found = [entry for entry in evaluations if entry["split"] == split]
    if not found:
        known = {entry["split"] for entry in evaluations}
        raise DataError(
            f"{folder} has no predictions of the split {split!r}{did_you_mean(split, known)}; expected "
            f"jaxlab evaluate --workdir={folder} --split={split} before"
        )
    last = max(found, key=lambda entry: int(entry["reads"]))  # a step keeps its place when read again
    return Path(last["predictions"]).stem.removeprefix(f"{split}-")


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


def _common(folders: list[Path], split: str) -> tuple[Experiment, list[str]]:
    """Return the first run's experiment, and the metrics that both configs have by one name with the same options."""
    configs = [record.read_config(folder) for folder in folders]
    record.restore_imports(folders[0])
    experiment = assemble(configs[0], (split,), record.read_learnt(folders[0]))
    ours, theirs = (config.metrics.to_dict() for config in configs)
    return experiment, [name for name in ours if ours[name] == theirs.get(name)]


def _differences(
    experiment: Experiment, name: str, split: str, pair: tuple[Table, Table], units: Units | None, tuned: list[Tuned]
) -> dict[str, dict[str, Any]]:
    """Return the differences of a metric's numbers; none where either run has no value for it."""
    n, sums, numbers = len(pair[0]["id"]), [], []
    if name in experiment.tables:
        metric = experiment.tables[name]
        numbers = [of_table(name, metric, table, split, found) for table, found in zip(pair, tuned, strict=True)]
    else:
        sums = [per_example(experiment.metrics[name], table) for table in pair]
        if None in sums:
            return {}
        numbers = [of_sums(experiment.metrics[name], found, f"{split}/{name}") for found in sums]
    drawn = resampling(units, n, {str(place): found for place, found in enumerate(sums)})
    try:
        found = {path: number._asdict() for path, number in paired_bootstrap(*numbers, drawn).items()}
    except UndefinedError:
        return {}
    shares = [each.successes for each in sums]
    if len(found) == 1 and units is None and shares and all(share is not None for share in shares):
        next(iter(found.values()))["mcnemar_p"] = mcnemar(*shares)
    return {path: number for path, number in found.items() if not math.isnan(number["difference"])}


def _two_class_scores(one: Table, other: Table) -> tuple[np.ndarray, np.ndarray] | None:
    """Return how far each model prefers class 1, where there are two classes and both are among the targets."""
    logits = [table["logits"] for table in (one, other) if "logits" in table]
    if len(logits) < 2 or any(value.ndim != 2 or value.shape[1] != 2 for value in logits):
        return None
    if set(np.unique(one["target"])) != {0, 1}:
        return None
    first, second = (value[:, 1] - value[:, 0] for value in logits)
    return first, second
