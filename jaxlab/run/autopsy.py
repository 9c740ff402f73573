"""The ``autopsy`` command: from the state and batch that a diverged run kept to the first tensor that is not finite.

The step is taken again un-jitted, with the same random numbers, while every module call is looked at; then the steps
before it, for the history of loss and gradient norm. Usage: ``report = autopsy("runs/mine")``.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxlab.core import limits, record
from jaxlab.core.errors import DataError, JaxlabError
from jaxlab.core.paths import folder_of, inside
from jaxlab.core.types import HostBatch, TrainState
from jaxlab.run.assemble import Experiment, assemble
from jaxlab.run.autopsy_absent import without_data
from jaxlab.run.autopsy_history import history, rows_before
from jaxlab.run.autopsy_look import look
from jaxlab.run.autopsy_parts import Pieces
from jaxlab.run.incident import BATCH, INCIDENT
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.parallel import make_strategy

REPORT = "report.json"
_SHOWN_STEPS = 10
_KINDS = {"step": int, "batch": int, "reason": str, "ids": list}  # of an incident's facts


def autopsy(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Say where the first number that is not finite came from; also written to ``autopsy/report.json``.

    Raises:
      DataError: the run has not diverged, or what it kept cannot be read.
      CorruptError: the kept state is not what was saved.
    """
    folder = folder_of(workdir)
    config = record.trusted_config(folder)
    incident = _read_incident(folder)
    batch = _read_batch(folder / record.AUTOPSY, config)
    experiment, missing = _assembled(folder, config)
    state = _read_state(folder / record.AUTOPSY / record.CHECKPOINTS, experiment, incident["step"])
    devices = _devices(folder, config, len(batch["id"]))
    report = {**incident, **look(experiment, state, batch, devices)}
    if missing is None:
        pieces = Pieces(experiment, devices if config.parallel.strategy == "pmap" else None)
        report["history"] = history(folder, pieces, incident)
    else:
        rows = rows_before(folder, incident["step"] + 1)
        report["history"] = {"rows": rows, "steps": [], "left_out": f"the data are not there: {missing}"}
    record.write_json(folder / record.AUTOPSY / REPORT, report)
    return {"workdir": str(folder), **report}


def _read_incident(folder: Path) -> dict[str, Any]:
    path = folder / record.AUTOPSY / INCIDENT
    incident = record.read_json(path)
    if not incident:
        raise DataError(f"{folder} has nothing to look at: no step of this run was found not to be finite")
    for name, kind in _KINDS.items():
        if type(incident.get(name)) is not kind:
            raise DataError(f"{path}: {name!r} is {incident.get(name)!r}; expected {kind.__name__}")
    return incident


def _read_batch(folder: Path, config: ConfigDict) -> HostBatch:
    """Return the batch, whose arrays have a row an example; sizes are looked at before anything is unpacked."""
    path = inside(folder, BATCH)
    try:
        with zipfile.ZipFile(io.BytesIO(limits.read_bytes(path))) as archive:
            limits.check_size(path, sum(member.file_size for member in archive.infolist()), limits.memory_bytes())
        with np.load(path, allow_pickle=False) as found:
            batch = {name: found[name] for name in found.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    size = config.train.batch_size
    for name in {"id", "mask", *batch}:
        if name not in batch or batch[name].shape[:1] != (size,):
            held = f"is {batch[name].dtype}{list(batch[name].shape)}" if name in batch else "is missing"
            raise DataError(f"{path}: the field {name!r} {held}; expected {size} rows, config.train.batch_size")
    return batch


def _assembled(folder: Path, config: ConfigDict) -> tuple[Experiment, str | None]:
    """Return the experiment, and why its data are not there: the batch is kept, so that facts about them will do."""
    learnt = record.read_learnt(folder)
    try:
        return assemble(config, ("train",), learnt), None
    except (DataError, OSError) as error:
        try:
            return without_data(config, folder, learnt), str(error)
        except (JaxlabError, TypeError, ValueError, KeyError):  # what the receipt says is not enough
            raise error from None


def _devices(folder: Path, config: ConfigDict, rows: int) -> int:
    """Return how many devices shared the batch."""
    if config.parallel.mesh.data > 0:
        return int(config.parallel.mesh.data)
    found = record.read_json(folder / record.ENVIRONMENT).get("devices")
    count = found.get("count") if isinstance(found, dict) else None
    if type(count) is not int or count < 1 or rows % (count * config.train.grad_accumulation):
        path = folder / record.ENVIRONMENT
        raise DataError(f"{path}: devices.count is {count!r}; expected a number that shares {rows} rows")
    return count


def _read_state(folder: Path, experiment: Experiment, step: int) -> TrainState:
    strategy = make_strategy("jit", {"data": 1}, jax.devices())
    shapes = strategy.saved_shapes({"state": jax.eval_shape(experiment.init)})
    with Checkpoints(folder, keep=1, best=None, mode="min", writable=False) as checkpoints:
        return checkpoints.restore(checkpoints.resolve(str(step)), shapes)["state"]


def print_autopsy(report: Mapping[str, Any]) -> None:
    """Print the verdict, the examples and the history to stderr."""
    lines = [f"step {report['step']} (batch {report['batch']}): {report['reason']}", f"verdict: {report['verdict']}"]
    if report["examples"]:
        pairs = zip(report["examples"], report["rows"], strict=True)
        shown = ", ".join(f"{i} (row {row})" for i, row in pairs)
        more = report["examples_n"] - len(report["examples"])
        lines.append(f"it comes {report['blame']}: {shown}{f' and {more} more' if more else ''}")
    elif report["blame"]:
        lines.append(f"it comes {report['blame']}" if report["blame"].startswith("of") else report["blame"])
    bounds = report["where"].get("params") or {}
    lines += [f"  params/{name}: from {low:.3g} to {high:.3g}" for name, (low, high) in bounds.items()]
    lines += [f"note: {note}" for note in report["notes"]]
    found = report["history"]
    for entry in found["steps"][-_SHOWN_STEPS:]:
        lines.append(f"  step {entry['step']}: loss {entry['loss']:.5g}, gradient norm {entry['grad_norm']:.5g}")
    if found["left_out"]:
        lines.append(f"the steps before were not taken again: {found['left_out']}")
    print("\n".join(lines), file=sys.stderr)
