"""The ``scale`` command: the same training on 1, 2, 4 … devices; what it gains, and that it stays the same training.

Strong scaling keeps the global batch, so that the losses must be those of the fewest devices, from the same examples;
weak scaling keeps the batch of each device. Every training is a process of its own, several times over. On a CPU the
devices are virtual ones of the same processors: there the study proves equality and says nothing about speed.
Usage: ``jaxlab scale --config=configs/digits_cnn.py --devices=1,2,4,8 --workdir=DIR``.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from scipy import stats

from jaxlab.core import config as configs
from jaxlab.core import record, trust
from jaxlab.core.errors import ConfigError, JaxlabError, UsageError
from jaxlab.core.paths import folder_of
from jaxlab.core.types import Interval
from jaxlab.metrics.plots import scaling as picture
from jaxlab.metrics.plots import style
from jaxlab.run.differences import rows_of, same_ids
from jaxlab.run.judge import TOLERANCE
from jaxlab.run.trial import Trial, surroundings
from jaxlab.train.parallel import mesh_sizes

STRONG, WEAK = "strong", "weak"
LOSS, RATE = "train/loss", "examples_per_second"
_ROWS = 8  # of a training, the first of which holds the compilation
_LIMIT = 3600.0  # seconds that a training may take


class Part(NamedTuple):
    """One kind of scaling on so many devices."""

    kind: str
    devices: int
    config: ConfigDict


def scale(
    config: ConfigDict, workdir: str, devices: Sequence[int], kinds: Sequence[str], steps: int, repeats: int
) -> dict[str, Any]:
    """Train on each number of devices and return rates, efficiencies and whether the optimisation is the same.

    Args:
      config: complete; one axis of its mesh is -1 and takes the devices.
      workdir: new; holds every run, ``scale.json`` and ``plots/scaling.png``.
      devices: how many, rising.
      kinds: ``strong``, ``weak`` or both.
      steps: of each training.
      repeats: of each training; intervals are Student's t over them.

    Raises:
      UsageError: bad arguments, or what a training refuses.
      ConfigError: the batch does not split over so many devices.
    """
    folder = _place(workdir, devices, kinds, steps, repeats)
    parts = [_part(config, kind, count, count // devices[0], steps) for kind in kinds for count in devices]
    trust.allow(*trust.packages_of(config))  # the user's own: the processes to come read it from a file
    for repeat in range(repeats):  # all in turn, so that a slow minute of the machine meets every one
        for part in parts:
            _train(folder, part, repeat)
            print(f"{part.kind}, {part.devices} devices: {repeat + 1} of {repeats}", file=sys.stderr)
    rates = {(part.kind, part.devices): _rates(folder, part, repeats) for part in parts}
    rows = [_row(part, rates, devices[0]) for part in parts]
    result = {
        "workdir": str(folder), "steps": steps, "repeats": repeats, "virtual": _virtual(folder, parts[-1]),
        "rows": rows, **_same(folder, [part for part in parts if part.kind == STRONG]),
    }  # fmt: skip
    record.write_json(folder / "scale.json", result)
    shown = {kind: {p.devices: _interval(rates[p.kind, p.devices]) for p in parts if p.kind == kind} for kind in kinds}
    losses = {part.devices: _losses(_run(folder, part, 0)) for part in parts if part.kind == kinds[0]}
    plot = style.save(picture.scaling(shown, losses), folder / record.PLOTS / "scaling.png")[0]
    return {**result, "plots": [str(plot.relative_to(folder))]}


def print_scaling(result: dict[str, Any]) -> None:
    """Print a line a number of devices, and the verdict, to stderr."""
    for row in result["rows"]:
        point, low, high = row["efficiency"]
        what = f"{row['kind']:6}  {row['devices']:4} devices  batch {row['batch_size']:6}"
        rate = f"{row[RATE][0]:12,.1f} examples/s  efficiency {point:.3f} [{low:.3f}, {high:.3f}]"
        print(f"{what}  {rate}", file=sys.stderr)
    if result["virtual"]:
        print("virtual devices share one CPU: the efficiency says nothing, the losses do", file=sys.stderr)
    if result["loss_difference"] is not None:
        verdict = "different" if result["errors"] else "the same optimisation"
        ids = "equal" if result["ids"] else "different"
        print(
            f"{verdict}: losses within {result['loss_difference']:.1e} (tolerance {TOLERANCE:g}), example ids {ids}",
            file=sys.stderr,
        )


def _place(workdir: str, devices: Sequence[int], kinds: Sequence[str], steps: int, repeats: int) -> Path:
    given = ",".join(map(str, devices))
    if not devices or list(devices) != sorted(set(devices)) or devices[0] < 1:
        raise UsageError(f"--devices={given}: expected rising numbers, such as 1,2,4,8")
    if any(count % devices[0] for count in devices):
        raise UsageError(f"--devices={given}: expected multiples of the first")
    if not kinds or not set(kinds) <= {STRONG, WEAK}:
        raise UsageError(f"--kind={','.join(kinds)}: expected strong, weak or strong,weak")
    if steps < _ROWS or repeats < 1:
        raise UsageError(f"--steps={steps} --repeats={repeats}: expected {_ROWS} or more steps, 1 or more repeats")
    folder = folder_of(workdir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--workdir={workdir} is not empty; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _part(config: ConfigDict, kind: str, devices: int, times: int, steps: int) -> Part:
    """Return the config for so many devices, told to write rows and to leave out what is not training."""
    if -1 not in config.parallel.mesh.values():
        raise ConfigError(f"config.parallel.mesh={config.parallel.mesh.to_dict()}: expected -1 for the axis that grows")
    sizes = mesh_sizes(config.parallel.mesh.to_dict(), devices)
    config = copy.deepcopy(config)
    with config.unlocked():
        config.train.batch_size *= times if kind == WEAK else 1
        config.train.steps = steps
        config.train.log_every = max(1, steps // _ROWS)
        config.train.eval_every = config.train.checkpoint_every = steps
        config.sinks, config.hooks = ConfigDict(), ConfigDict()
    pieces = sizes["data"] * sizes["fsdp"] * config.train.grad_accumulation
    if config.train.batch_size % pieces:
        raise ConfigError(f"config.train.batch_size={config.train.batch_size}: expected a multiple of {pieces}")
    return Part(kind, devices, config)


def _run(folder: Path, part: Part, repeat: int) -> Path:
    return folder / f"{part.kind}-{part.devices}-{repeat}"


def _train(folder: Path, part: Part, repeat: int) -> None:
    workdir = _run(folder, part, repeat)
    file = folder / f"{part.kind}-{part.devices}.json"
    file.write_text(configs.to_json(part.config))
    with Trial(file, workdir, workdir.with_suffix(".log"), surroundings(part.config, part.devices)) as trial:
        trial.finish(_LIMIT)


def _losses(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], float(row[LOSS])) for row in rows_of(run) if LOSS in row]


def _rates(folder: Path, part: Part, repeats: int) -> np.ndarray:
    """Return the median rate of each repeat, without the row that holds the compilation."""
    found = []
    for repeat in range(repeats):
        rows = [row[RATE] for row in record.read_metrics(_run(folder, part, repeat)) if RATE in row]
        if len(rows) < 2:
            raise JaxlabError(f"{_run(folder, part, repeat)} has {len(rows)} rows with a rate; expected 2 or more")
        found.append(float(np.median(rows[1:])))
    return np.array(found)


def _row(part: Part, rates: dict[tuple[str, int], np.ndarray], fewest: int) -> dict[str, Any]:
    """Return the rate, and the efficiency: that over what the fewest devices would give in proportion."""
    mine = rates[part.kind, part.devices]
    relative = mine * fewest / (rates[part.kind, fewest] * part.devices)
    return {
        "kind": part.kind, "devices": part.devices, "batch_size": part.config.train.batch_size,
        RATE: _interval(mine)[:3], "efficiency": _interval(relative)[:3],
    }  # fmt: skip


def _interval(values: np.ndarray) -> Interval:
    """Return the geometric mean with Student's 95 % interval of the logarithms: a point where there is one value."""
    logs, n = np.log(values), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(logs, ddof=1) / n**0.5) if n > 1 else 0.0
    low, point, high = (float(np.exp(np.mean(logs) + shift)) for shift in (-half, 0.0, half))
    return Interval(point, low, high, n, "Student's t over repeats, of logarithms")


def _same(folder: Path, parts: Sequence[Part]) -> dict[str, Any]:
    """Return how far the losses of the same batches are apart on more devices, and whether examples are the same."""
    if not parts:
        return {"ids": None, "loss_difference": None, "errors": 0}
    first, *others = (_run(folder, part, 0) for part in parts)
    base = _losses(first)
    pairs = [pair for other in others for pair in zip(base, _losses(other), strict=True)]
    apart = [abs(a - b) / max(1.0, abs(a)) for (_, a), (_, b) in pairs]
    ids = all(same_ids(rows_of(first), rows_of(other)) for other in others)
    largest = max(apart, default=0.0)
    return {"ids": ids, "loss_difference": largest, "errors": int(not ids or not largest <= TOLERANCE)}


def _virtual(folder: Path, part: Part) -> bool:
    found = record.read_json(_run(folder, part, 0) / record.ENVIRONMENT)["devices"]
    return found["backend"] == "cpu" and found["count"] > 1
