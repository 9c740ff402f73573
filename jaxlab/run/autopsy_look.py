"""From a state and a batch to a verdict: the batch, the state, each part forward and backward, the update, in order.

Usage: ``found = look(experiment, state, batch)``; knows nothing of the run's directory.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlab.core.types import HostBatch, TrainState
from jaxlab.run.assemble import Experiment
from jaxlab.run.autopsy_forward import describe, facts, finding, first_bad, look_backward, look_forward
from jaxlab.run.autopsy_parts import Pieces
from jaxlab.run.autopsy_rows import examples
from jaxlab.train.probe import FORWARD, not_finite, watching


def look(experiment: Experiment, state: TrainState, batch: HostBatch, devices: int = 1) -> dict[str, Any]:
    """Return ``verdict``, a sentence; ``where``, its facts; ``examples``, the ids at fault; ``notes``, sentences.

    Args:
      experiment: of the run.
      state: before the step.
      batch: the global batch of the step.
      devices: that shared the batch; counts under pmap only, where `devices` divides its rows.
    """
    pieces = Pieces(experiment, devices if experiment.config.parallel.strategy == "pmap" else None)
    notes: list[str] = []
    once = _Once(pieces, state)
    found = _of_batch(once, batch, notes) or _of_state(experiment, state) or _of_parts(once, batch, notes)
    return {**found, "notes": notes}


class _Once:
    """The step, compiled once, from the state before."""

    def __init__(self, pieces: Pieces, state: TrainState) -> None:
        self.pieces, self.state = pieces, state
        self._step = jax.jit(pieces.step())

    def __call__(self, batch: HostBatch) -> tuple[TrainState, float, float]:
        """Return the state after the batch, the loss, and the gradient's norm."""
        after, statistics = self._step(self.state, {name: jnp.asarray(value) for name, value in batch.items()})
        loss, norm = (statistics[name] for name in ("loss", "grad_norm"))
        return after, float(loss["sum"] / jnp.where(loss["weight"] > 0, loss["weight"], 1.0)), float(norm["sum"])

    def sound(self, batch: HostBatch) -> bool:
        """Return whether loss and gradient are finite."""
        return bool(np.isfinite(self(batch)[1:]).all())


def _of_batch(once: _Once, batch: HostBatch, notes: list[str]) -> dict[str, Any] | None:
    """Return the field whose numbers are to blame: with zeros in their place the step is finite.

    Numbers may be missing for a reason, which the model or the objective knows.
    """
    real = np.asarray(batch["mask"]) > 0
    bad = {
        name: x[real] for name, x in batch.items() if x.dtype.kind == "f" and not np.isfinite(x[real]).all()
    }  # fmt: skip
    if not bad:
        return None
    zeroed = {**batch, **{name: np.where(np.isfinite(batch[name]), batch[name], 0) for name in bad}}
    to_blame = not once.sound(batch) and once.sound(zeroed)
    for field, x in bad.items():
        if not to_blame or once.sound({**zeroed, field: batch[field]}):
            notes.append(f"the batch's field {field!r} holds numbers that are not finite; they are not the cause")
            continue
        rows = np.flatnonzero(real)[~np.isfinite(x).all(axis=tuple(range(1, x.ndim)))]
        where = {"kind": "batch", "field": field, "nan": int(np.isnan(x).sum()), "infinite": int(np.isinf(x).sum())}
        what = f"the batch's field {field!r} is not finite in row {rows[0]}"
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        return finding(what + more, where, examples(batch["id"][rows], rows, "of these examples"))
    return None


def _of_state(experiment: Experiment, state: TrainState) -> dict[str, Any] | None:
    """Return what was not finite before the step, but for what begins so: an optimizer's best loss so far."""
    for kind in ("params", "model_state", "opt_state", "ema"):
        bad = not_finite(getattr(state, kind))
        if bad:
            begins = not_finite(getattr(jax.jit(experiment.init)(), kind))
            bad = {name: count for name, count in bad.items() if name not in begins}
        if bad:
            what = f"{kind}/{next(iter(bad))} was not finite before the step"
            return finding(what, {"kind": kind, "leaves": bad})
    return None


def _of_parts(once: _Once, batch: HostBatch, notes: list[str]) -> dict[str, Any]:
    pieces, state = once.pieces, once.state
    model_state, sums, gradient = pieces.each(state.model_state), None, None
    for part in pieces.parts(state, batch):
        seen = look_forward(pieces, state, model_state, part)
        if seen.found is not None:
            return seen.found
        found, results = look_backward(pieces, state, model_state, part, seen)
        if found is not None:
            hidden = first_bad(seen.sightings, FORWARD)
            if hidden is not None:
                notes.append(
                    f"forward, {hidden.at.module} returned numbers that are not finite and that the loss hides"
                )
            return found
        model_state = seen.model_state
        sums, gradient = results if sums is None else jax.tree.map(jnp.add, (sums, gradient), results)
    return _of_sums(sums, gradient) or _of_update(once, batch)


def _of_sums(sums: Any, gradient: Any) -> dict[str, Any] | None:
    """Return what is wrong with what the parts add up to."""
    total, weight = (float(x) for x in sums)
    if not np.isfinite([total, weight]).all():
        what = f"each microbatch's loss is finite; together they are {total}, of a weight of {weight}"
        return finding(what, {"kind": "loss"})
    mean = jax.tree.map(lambda x: x / (weight if weight > 0 else 1.0), gradient)
    bad = not_finite(mean)
    if bad:
        what = f"each microbatch's gradient is finite, and the sum of those of params/{next(iter(bad))} is not"
        return finding(what, {"kind": "gradient", "gradients": bad})
    norm = float(optax.tree.norm(mean))
    if not np.isfinite(norm):
        largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(mean) if x.size)
        what = f"every gradient is finite, up to {largest:.3g}, and their norm overflows"
        return finding(what, {"kind": "gradient norm", "largest_finite": largest})
    return None


def _of_update(once: _Once, batch: HostBatch) -> dict[str, Any]:
    """Return what the step does jitted, as un-jitted its loss and gradient are finite."""
    after, loss, norm = once(batch)
    where: dict[str, Any] = {"loss": loss, "grad_norm": norm}
    if not np.isfinite([loss, norm]).all():
        what = (
            f"un-jitted, loss and gradient are finite; compiled, the loss is {loss:.5g}, the gradient's norm {norm:.5g}"
        )
        named, where["compiled"] = _compiled(once, batch)
        return finding(f"{what}: XLA computes otherwise what it fuses{named}", {"kind": "compiled", **where})
    for kind in ("params", "model_state", "ema"):
        bad = not_finite(getattr(after, kind))
        if bad:
            what = f"the optimizer's update makes {kind}/{next(iter(bad))} not finite"
            what = f"loss and gradient are finite (norm {norm:.3g}); {what}"
            return finding(what, {"kind": "update", "leaves": bad, **where})
    update = jax.tree.map(jnp.subtract, after.params, once.state.params)
    if once.pieces.experiment.skip is not None and not np.isfinite(optax.tree.norm(update)):
        what = f"loss and gradient are finite (norm {norm:.3g}); the norm of the optimizer's update overflows"
        return finding(what, {"kind": "update norm", **where})
    what = "taken again here, the step is finite, jitted or not: these devices compute otherwise than those of the run"
    return finding(what, {"kind": "nothing", **where})


def _compiled(once: _Once, batch: HostBatch) -> tuple[str, dict[str, Any] | None]:
    """Return the first module whose compiled result is not finite, where looking at it does not mend it."""
    pieces, state = once.pieces, once.state
    model_state = pieces.each(state.model_state)
    for part in pieces.parts(state, batch):
        with watching(pieces.axis, jitted=True) as sightings:
            ready = pieces.augmented(part, len(pieces.experiment.device_augment))
            found = jax.jit(pieces.totals())(state.params, model_state, ready, part.key)
            _, (*_, model_state) = jax.block_until_ready(found)
        bad = first_bad(sightings, FORWARD)
        if bad is not None:
            size = describe(bad.numbers, f"{bad.dtype}{list(bad.shape)}")
            return f"; compiled, {bad.at.module} ({bad.at.class_name}) returns {size}{part.name}", facts(bad)
    return "", None
