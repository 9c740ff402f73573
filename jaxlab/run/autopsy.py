"""The ``autopsy`` command: from the state and batch that a diverged run kept to the first tensor that is not finite.

The step is taken again un-jitted, with the same random numbers, while every module call is looked at; then the steps
before it, for the history of loss and gradient norm. Usage: ``report = autopsy("runs/mine")``.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlab.core import record
from jaxlab.core.errors import DataError
from jaxlab.core.types import Batch, HostBatch, TrainState
from jaxlab.run.assemble import Experiment, assemble
from jaxlab.run.autopsy_history import history
from jaxlab.run.autopsy_parts import Part, parts_of
from jaxlab.run.incident import BATCH, INCIDENT
from jaxlab.train.apply import Bound
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.parallel import make_strategy
from jaxlab.train.precision import compute_dtype
from jaxlab.train.probe import BACKWARD, FORWARD, Sighting, not_finite, watching

REPORT = "report.json"
_MOST_EXAMPLES = 20


def autopsy(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Say where the first number that is not finite came from; also written to ``autopsy/report.json``.

    Raises:
      DataError: the run has not diverged, or what it kept cannot be read.
      CorruptError: the kept state is not what was saved.
    """
    folder = Path(workdir).expanduser().resolve()
    config = record.trusted_config(folder)
    incident = record.read_json(folder / record.AUTOPSY / INCIDENT)
    if not incident:
        raise DataError(f"{folder} has nothing to look at: no step of this run was found not to be finite")
    batch = _read_batch(folder / record.AUTOPSY / BATCH)
    experiment = assemble(config, learnt=record.read_learnt(folder))
    state = _read_state(folder / record.AUTOPSY / record.CHECKPOINTS, experiment, incident["step"])
    mesh, there = config.parallel.mesh.data, record.read_json(folder / record.ENVIRONMENT)
    found = look(experiment, state, batch, mesh if mesh > 0 else there["devices"]["count"])
    report = {**incident, **found, "history": history(folder, experiment, incident["step"])}
    record.write_json(folder / record.AUTOPSY / REPORT, report)
    return {"workdir": str(folder), **report}


def look(experiment: Experiment, state: TrainState, batch: HostBatch, devices: int = 1) -> dict[str, Any]:
    """Return ``verdict``, a sentence; ``where``, its facts; and ``examples``, the ids of the rows at fault.

    Args:
      experiment: of the run.
      state: before the step.
      batch: the global batch of the step.
      devices: that shared the batch; counts under pmap only.
    """
    real = np.asarray(batch["mask"]) > 0
    for field, value in batch.items():
        if value.dtype.kind == "f" and not np.isfinite(value[real]).all():
            rows = real & ~np.isfinite(value.reshape(len(value), -1)).all(axis=1)
            return _found(
                f"the batch's field {field!r} is not finite", {"kind": "batch", "field": field}, batch["id"][rows]
            )
    for kind in ("params", "model_state", "opt_state"):
        bad = not_finite(getattr(state, kind))
        if bad:
            name = next(iter(bad))
            return _found(f"{kind}/{name} was not finite before the step", {"kind": kind, "leaves": bad}, [])
    gradients = []
    for part in parts_of(experiment, state, batch, devices):
        found, gradient = _look_at(experiment, state, part)
        if found is not None:
            return found
        gradients.append(gradient)
    return _after(experiment, state, batch, gradients)


def _look_at(experiment: Experiment, state: TrainState, part: Part) -> tuple[dict[str, Any] | None, Any]:
    """Return what is wrong with the forward or backward pass of a part, or else its gradient and weight."""
    model, dtype = experiment.make_model(None), compute_dtype(experiment.config.train.precision)

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        found = experiment.objective(Bound(model, params, state.model_state, part.key, dtype, train=True), part.batch)
        return found.total, found.weight

    with watching() as sightings:
        total, _ = loss(state.params)  # without the backward pass, which comes only after a sound forward one
    if (bad := _first(sightings, FORWARD)) is not None:
        return _describe(bad, _before(sightings, bad), part), None
    if not np.isfinite(total):
        last = sightings[-1].module if sightings else "any module"
        what = f"the objective's total is {float(total)}, made after {last}, whose results are finite"
        examples = _rows_at_fault(_rows_finite(experiment, state, part), part)
        return _found(what + part.name, {"kind": "objective", "after": last}, examples), None
    with watching() as sightings:
        gradient, weight = jax.grad(loss, has_aux=True)(state.params)
    bad_leaves = not_finite(gradient)
    if (bad := _first(sightings, BACKWARD)) is not None:
        found = _describe(bad, None, part)
        found["where"]["gradients"] = bad_leaves
        return found, None
    if bad_leaves:
        name = next(iter(bad_leaves))
        what = f"the gradient of params/{name} is not finite, though what arrives at every module is"
        return _found(what + part.name, {"kind": "gradient", "leaves": bad_leaves}, []), None
    return None, (gradient, weight)


def _first(sightings: list[Sighting], kind: str) -> Sighting | None:
    return next((sighting for sighting in sightings if sighting.kind == kind and sighting.bad), None)


def _before(sightings: list[Sighting], bad: Sighting) -> Sighting | None:
    """Return the last finite result before the bad one."""
    place = sightings.index(bad)
    return sightings[place - 1] if place else None


def _rows_finite(experiment: Experiment, state: TrainState, part: Part) -> np.ndarray:
    """Return whether the loss of each row alone is finite [B]: all other rows are masked."""
    model, dtype = experiment.make_model(None), compute_dtype(experiment.config.train.precision)

    @jax.jit
    def total(batch: Batch) -> jax.Array:
        return experiment.objective(
            Bound(model, state.params, state.model_state, part.key, dtype, train=True), batch
        ).total

    masks = np.diag(np.asarray(part.batch["mask"]))
    return np.array([bool(np.isfinite(total({**part.batch, "mask": jnp.asarray(mask)}))) for mask in masks])


def _rows_at_fault(finite_B: np.ndarray, part: Part) -> list[int]:
    return [] if not finite_B.any() else np.asarray(part.batch["id"])[~finite_B].tolist()


def _describe(bad: Sighting, before: Sighting | None, part: Part) -> dict[str, Any]:
    """Return the verdict on a tensor that is not finite."""
    layer = f", call {bad.call}" if bad.call else ""
    size = f"{bad.dtype}{list(bad.shape)}, {bad.nan} nan, {bad.infinite} infinite, else at most {bad.largest:.3g}"
    if bad.kind == BACKWARD:
        what = f"the gradient that arrives at {bad.module} ({bad.class_name}{layer}) is the first that is not finite"
    elif bad.inputs_finite:
        what = f"{bad.module} ({bad.class_name}{layer}) makes the first result that is not finite, of finite inputs"
    else:
        after = f"after {before.module}" if before else "before any module"
        what = f"{bad.module} ({bad.class_name}{layer}) is given inputs that are not finite, made {after}"
    rows_B = bad.rows
    ids = np.asarray(part.batch["id"])
    examples = ids[rows_B] if rows_B.shape == ids.shape else []
    where = {"kind": bad.kind, "module": bad.module, "class": bad.class_name, "call": bad.call, "leaf": bad.leaf,
             "shape": list(bad.shape), "dtype": bad.dtype, "nan": bad.nan, "infinite": bad.infinite,
             "largest_finite": bad.largest, "inputs_finite": bad.inputs_finite}  # fmt: skip
    return _found(f"{what}: {size}{part.name}", where, examples)


def _after(experiment: Experiment, state: TrainState, batch: HostBatch, gradients: list[Any]) -> dict[str, Any]:
    """Return what is wrong after the gradients: their norm, or the optimizer's update; or that nothing is."""
    total, weight = jax.tree.map(lambda *leaves: sum(leaves), *gradients)
    norm = float(optax.tree.norm(total)) / max(float(weight), 1e-30)
    if not np.isfinite(norm):
        return _found("every gradient is finite, and their norm overflows", {"kind": "gradient norm"}, [])
    advance = jax.jit(experiment.train_step(None))
    after, _ = advance(state, {name: jnp.asarray(value) for name, value in batch.items()})
    bad = not_finite(after.params)
    if bad:
        what = (
            f"loss and gradient are finite (norm {norm:.3g}); the optimizer's update makes params/{next(iter(bad))} not"
        )
        return _found(what, {"kind": "update", "leaves": bad, "grad_norm": norm}, [])
    what = "taken again here, the step is finite, jitted or not: these devices compute otherwise than those of the run"
    return _found(what, {"kind": "nothing", "grad_norm": norm}, [])


def _found(verdict: str, where: Mapping[str, Any], examples: Any) -> dict[str, Any]:
    ids = [int(i) for i in examples]
    return {"verdict": verdict, "where": dict(where), "examples": ids[:_MOST_EXAMPLES], "examples_n": len(ids)}


def _read_batch(path: Path) -> HostBatch:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _read_state(folder: Path, experiment: Experiment, step: int) -> TrainState:
    strategy = make_strategy("jit", {"data": 1}, jax.devices())
    shapes = strategy.saved_shapes({"state": jax.eval_shape(experiment.init)})
    with Checkpoints(folder, keep=1, best=None, mode="min", writable=False) as checkpoints:
        return checkpoints.restore(checkpoints.resolve(str(step)), shapes)["state"]


def print_autopsy(report: Mapping[str, Any]) -> None:
    """Print the verdict, the examples and the history to stderr."""
    lines = [f"step {report['step']} (batch {report['batch']}): {report['reason']}", f"verdict: {report['verdict']}"]
    if report["examples"]:
        more = report["examples_n"] - len(report["examples"])
        shown = ", ".join(str(i) for i in report["examples"])
        lines.append(f"examples (ids): {shown}{f' and {more} more' if more else ''}")
    for entry in report["history"]["steps"][-10:]:
        lines.append(f"  step {entry['step']}: loss {entry['loss']:.5g}, gradient norm {entry['grad_norm']:.5g}")
    print("\n".join(lines), file=sys.stderr)
