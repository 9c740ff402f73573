"""The ``compare`` command: what differs between two runs, and whether one is better than the other.

What differs is read from the run directories: config, code, packages, machine, data, the first row, the first step at
which they saw other examples. Where both were evaluated on a split, their predictions are compared example by example.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core import record
from jaxlab.core.errors import DataError, UndefinedError, did_you_mean
from jaxlab.core.paths import folder_of
from jaxlab.core.types import Table
from jaxlab.metrics.paired import delong_test, mcnemar, paired_bootstrap
from jaxlab.run.assemble import Experiment, assemble
from jaxlab.run.differences import finals, first_row, in_both, inputs, print_inputs, rows_of, short
from jaxlab.run.evaluate import EVALUATION
from jaxlab.run.measured import Tuned, of_sums, of_table, resampling
from jaxlab.run.per_example import per_example
from jaxlab.run.seen_data import compare_data
from jaxlab.run.store import read_arrays
from jaxlab.run.units import Units, units_of


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str], split: str | None = None) -> dict[str, Any]:
    """Return what differs between two runs, and how far the second is from the first in each metric that both have.

    Args:
      first: a run's directory.
      second: another's.
      split: on which both were evaluated; None takes test or else valid where both were, and else leaves this part out.

    Returns:
      ``inputs``, what the runs were made from and on; ``data``, where their examples part; ``first_row`` that differs,
      of rows that both have;
      ``final``, the last values of metrics; and where predictions are compared ``split``, ``steps`` and
      ``differences``, each with interval and p-value. ``not_compared`` says why they are not.

    Raises:
      DataError: there is no run, or with `split` given, predictions of it that can be compared.
    """
    folders = [folder_of(folder) for folder in (first, second)]
    for folder in folders:
        record.read_config(folder)
    result = {
        "runs": [str(folder) for folder in folders],
        "inputs": inputs(*folders),
        "data": compare_data(*folders),
        "first_row": first_row(*in_both(*map(rows_of, folders))),
        "final": finals(*folders),
        "not_compared": None,
    }
    if split is not None:
        return result | compare_predictions(folders, split)
    try:
        return result | compare_predictions(folders, _common_split(folders))
    except DataError as error:
        return result | {"not_compared": str(error)}


def print_comparison(result: dict[str, Any]) -> None:
    """Print to stderr what differs, a line each; the differences of predictions are `jaxlab.cli.show`'s."""
    print_inputs(result["inputs"])
    for line in _about_data(result["data"]):
        print(f"examples: {line}", file=sys.stderr)
    row = result["first_row"]
    if row is None:
        print("rows of metrics: the same where both have them", file=sys.stderr)
    else:
        values = f"{short(row['first'])} and {short(row['second'])}"
        print(f"rows of metrics: differ first at step {row['step']}, {row['name']}: {values}", file=sys.stderr)
    for name, found in result["final"].items():
        if found["first"] != found["second"]:
            steps = "" if found["steps"][0] == found["steps"][1] else f"  (steps {found['steps']})"
            print(f"last {name}: {short(found['first'])} -> {short(found['second'])}{steps}", file=sys.stderr)
    if result["not_compared"]:
        print(f"predictions were not compared: {result['not_compared']}", file=sys.stderr)


def compare_predictions(folders: list[Path], split: str) -> dict[str, Any]:
    """Return for each metric that both runs have how far the second is from the first, with interval and p-value.

    Each run's last evaluation of the split counts. Additive metrics are compared by the paired bootstrap, shares by
    McNemar's exact test beside it, and two-class scores by DeLong's test of the areas under their ROC curves.

    Raises:
      DataError: a run was not evaluated on the split, or the two did not see the same examples.
    """
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
    return {"split": split, "steps": names, "differences": differences}


def _common_split(folders: list[Path]) -> str:
    """Return the split of the predictions to compare: test, or valid where only that was evaluated in both."""
    evaluated = [{entry["split"] for entry in record.read_json(folder / EVALUATION).values()} for folder in folders]
    return next((split for split in ("test", "valid") if split in evaluated[0] & evaluated[1]), "test")


def _about_data(found: dict[str, Any]) -> list[str]:
    lines = []
    if found["why"]:
        lines.append(f"their order was not computed: {found['why']}")
    elif found["first_step"] is None:
        lines.append(f"the same in the same order, in the first {found['compared_steps']} steps")
    elif not found["same_source"]:
        lines.append("of other data, from the first step on")
    else:
        lines.append(f"other ones from step {found['first_step']} on")
    for name, order in zip(("first", "second"), found["orders"], strict=False):
        if order["first_odd"] is not None:
            lines.append(f"the {name} run saw others than its config says, in the row of step {order['first_odd']}")
        elif order["checked"]:
            lines.append(f"the {name} run's {order['checked']} rows say the same as its config")
    if found["first_row"] is not None:
        lines.append(f"hashes of ids in the rows differ, first at step {found['first_row']}")
    return lines


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
    configs = [record.trusted_config(folders[0]), record.read_config(folders[1])]
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
