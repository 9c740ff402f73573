"""From a study's directory to what it says: numbers by arm and seed, statistics, costs, and sentences made of them.

Reads ``study.json``, ``attempts.jsonl`` and the run directories, and writes ``results.json``, in which every number
stands beside the runs it came from. Usage: ``results = analyse("studies/NAME")``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core import record
from jaxlab.core.errors import DataError
from jaxlab.core.paths import folder_of
from jaxlab.study import cost, statistics, words
from jaxlab.study.attempts import attempts
from jaxlab.study.read import evaluation_of, paired_sample_deviation, sample_deviation, value_of
from jaxlab.study.runner import STUDY

RESULTS = "results.json"
_PAIRS = 3  # seeds whose predictions are compared example by example; a second a pair


def analyse(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a study's results and write them.

    Raises:
      DataError: there is no study, or not one run of it is finished, or a run lacks the metric.
    """
    folder = folder_of(workdir)
    described = record.read_json(folder / STUDY)
    if not described:
        raise DataError(f"{folder} holds no study: there is no {STUDY} in it")
    arms = [_read_arm(folder, described, arm) for arm in described["arms"]]
    if not any(arm["values"] for arm in arms):
        raise DataError(f"{folder}: no run is finished yet; `jaxlab study` does them")
    baseline = next(arm for arm in arms if arm["baseline"])
    others = [arm for arm in arms if arm is not baseline]
    for arm in arms:
        arm["spread"] = _spread(arm, described["direction"])
    _compare(folder, described, baseline, others)
    _add_costs(folder, described, arms)
    results = {
        **{name: described[name] for name in ("file", "metric", "direction", "at", "seeds", "smallest", "published")},
        "arms": arms,
        "interactions": _interactions(arms),
        "failures": _failures(folder, arms),
        "test_reads": sum(arm["test_reads"] for arm in arms),
    }
    results["sentences"] = words.sentences(results)
    record.write_json(folder / RESULTS, results)
    return results


def _read_arm(folder: Path, described: Mapping[str, Any], arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return an arm with the values of its finished runs, by seed."""
    split = described["metric"].partition("/")[0]
    values, runs, reads = {}, {}, 0
    for seed in arm["seeds"]:
        run = folder / arm["folder"] / f"seed-{seed}"
        if not record.read_json(run / record.SUMMARY):
            continue
        values[str(seed)] = value_of(run, described["metric"], described["at"])
        runs[str(seed)] = str(run.relative_to(folder))
        reads += evaluation_of(run, "test")["reads"]
    return {
        **arm, "values": values, "runs": runs, "test_reads": reads, "evaluated": split in described["splits"],
        "sample_deviation": sample_deviation([folder / run for run in runs.values()], described["metric"]),
    }  # fmt: skip


def _spread(arm: Mapping[str, Any], direction: str) -> dict[str, float] | None:
    values = [value for value in arm["values"].values() if math.isfinite(value)]
    return statistics.spread(np.array(values), direction)._asdict() if values else None


def _compare(
    folder: Path, described: Mapping[str, Any], baseline: Mapping[str, Any], others: Sequence[dict[str, Any]]
) -> None:
    """Compare every other arm with the baseline, and correct for how many there are."""
    for arm in others:
        ours, theirs = _paired(arm, baseline)
        arm["comparison"] = statistics.compare(ours, theirs)._asdict() if len(ours) else None
    compared = [arm["comparison"] for arm in others if arm["comparison"] is not None]
    corrected = [statistics.holm([each[name] for each in compared]) for name in ("t_p", "permutation_p")]
    for found, by_t, by_signs in zip(compared, *corrected, strict=True):
        found["holm_p"], found["permutation_holm_p"] = by_t, by_signs
        found["minimum_detectable"] = statistics.minimum_detectable(found["deviation"], found["n"], len(compared))
        wanted = described["smallest"] or abs(found["difference"])
        found["wanted"] = wanted
        found["seeds_needed"] = statistics.seeds_needed(wanted, found["deviation"], len(compared))
        found["verdict"] = words.verdict(found, described["direction"])
    for arm in others:
        both = [seed for seed in arm["runs"] if seed in baseline["runs"]][:_PAIRS]
        pairs = [(folder / baseline["runs"][seed], folder / arm["runs"][seed]) for seed in both]
        if arm["comparison"] is not None:
            arm["comparison"]["sample_deviation"] = paired_sample_deviation(pairs, described["metric"])


def _paired(*arms: Mapping[str, Any]) -> list[np.ndarray]:
    """Return the values of the seeds that all arms have, in order."""
    seeds = [s for s in arms[0]["values"] if all(math.isfinite(arm["values"].get(s, math.nan)) for arm in arms)]
    return [np.array([arm["values"][seed] for seed in seeds]) for arm in arms]


def _interactions(arms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the interaction of every two changes that were made alone and together."""
    base = next((arm for arm in arms if not arm["changes"]), None)
    found = []
    changed = [arm for arm in arms if arm["changes"]]
    for i, first in enumerate(changed):
        for second in changed[i + 1 :]:
            wanted = {**first["changes"], **second["changes"]}
            both = next((arm for arm in changed if arm["changes"] == wanted and arm not in (first, second)), None)
            apart = not set(first["changes"]) & set(second["changes"])
            if base is None or both is None or not apart:
                continue
            values = _paired(base, first, second, both)
            if len(values[0]) > 1:
                excess = statistics.interaction(*values)._asdict()
                found.append({"first": first["label"], "second": second["label"], **excess})
    for each, adjusted in zip(found, statistics.holm([each["t_p"] for each in found]), strict=True):
        each["holm_p"] = adjusted
    return found


def _add_costs(folder: Path, described: Mapping[str, Any], arms: Sequence[dict[str, Any]]) -> None:
    """Add parameters, operations and seconds, and which arms no other beats at their cost."""
    known = {arm["key"]: arm["cost"] for arm in record.read_json(folder / RESULTS).get("arms", [])}
    for arm in arms:
        runs = [folder / run for run in arm["runs"].values()]
        arm["cost"] = cost.of_runs(runs, known.get(arm["key"])) if runs else None
    rated = [arm for arm in arms if arm["cost"] and arm["spread"]]
    for measure in ("parameters", "flops", "seconds"):
        costs = [float(arm["cost"][measure]) for arm in rated]
        values = [arm["spread"]["mean"] for arm in rated]
        best = statistics.pareto(costs, values, described["direction"])
        for arm, is_best in zip(rated, best, strict=True):
            arm["cost"].setdefault("pareto", {})[measure] = is_best


def _failures(folder: Path, arms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs that are not finished, with what their last attempt came to."""
    last = {(row["arm"], row["seed"]): row for row in attempts(folder)}
    failures = []
    for arm in arms:
        for seed in arm["seeds"]:
            if str(seed) not in arm["values"]:
                row = last.get((arm["key"], seed), {"status": "missing", "problem": "not begun, or killed"})
                run = f"{arm['folder']}/seed-{seed}"
                failures.append({
                    "run": run, "arm": arm["label"], "seed": seed, "begun": (folder / run).is_dir(),
                    "status": row["status"], "problem": row["problem"],
                })  # fmt: skip
    return failures
