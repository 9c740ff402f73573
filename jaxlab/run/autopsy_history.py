"""Loss and gradient norm before a run diverged: the rows that it wrote, and every step since the last checkpoint.

Usage: ``found = history(folder, pieces, incident)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core import record
from jaxlab.core.errors import JaxlabError
from jaxlab.core.types import TrainState
from jaxlab.data.pipeline import Batches
from jaxlab.run.autopsy_parts import Pieces
from jaxlab.run.restore import restore_or_init
from jaxlab.run.rollback import rollbacks
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.parallel import make_strategy

_MOST_TAKEN, _MOST_SHOWN = 2000, 200  # steps
_MOST_ROWS = 200


def history(folder: Path, pieces: Pieces, incident: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``rows`` as the run wrote them, ``steps`` taken again, the bad one last, and ``left_out``, why any are.

    The steps are taken again on one device, jitted, so that their last digits may differ from the run's. After a
    rollback, only what the run did before it is looked at.
    """
    straight = pieces.experiment.batches("train", training=True)
    batches, last = _batches_then(folder, straight, incident)
    shown = rows_before(folder, last)
    if batches is None:
        return {
            "rows": shown,
            "steps": [],
            "left_out": "what the rollbacks say does not lead to the batch that was kept",
        }
    try:
        state, start = _begin(folder, pieces, last)
    except JaxlabError as error:
        return {"rows": shown, "steps": [], "left_out": f"no state to begin from: {error}"}
    count = incident["step"] + 1 - start
    if count > _MOST_TAKEN:
        why = f"the newest checkpoint is {count} steps before; at most {_MOST_TAKEN} are taken again"
        return {"rows": shown, "steps": [], "left_out": why}
    try:
        steps, why = _again(pieces, state, batches, range(start, incident["step"] + 1)), None
    except (OSError, JaxlabError) as error:  # of the source
        steps, why = [], f"the data cannot be read: {error}"
    return {"rows": shown, "steps": steps[-_MOST_SHOWN:], "left_out": why}


def rows_before(folder: Path, last: int) -> list[dict[str, Any]]:
    """Return the run's latest rows of training up to a step: step, loss, and the gradient's norm where it was kept."""
    rows = [row for row in record.read_metrics(folder) if "train/loss" in row and row["step"] <= last]
    names = {"train/loss": "loss", "train/grad_norm": "grad_norm"}
    kept = [{"step": row["step"], **{n: row[name] for name, n in names.items() if name in row}} for row in rows]
    return kept[-_MOST_ROWS:]


def _batches_then(folder: Path, straight: Batches, incident: Mapping[str, Any]) -> tuple[Batches | None, int]:
    """Return the batches as they came until the incident, and the last step that is of that time.

    A rollback that followed the incident changed which batches come after it, and which rows and checkpoints stand.
    """
    jumps = [(each["at"], each["far"]) for each in rollbacks(folder)]
    for count in range(len(jumps), -1, -1):
        batches = dataclasses.replace(straight, jumps=tuple(jumps[:count]))
        if batches.number(incident["step"]) == incident["batch"]:
            return batches, min([incident["step"] + 1, *(at for at, _ in jumps[count:])])
    return None, min([incident["step"] + 1, *(at for at, _ in jumps)])


def _begin(folder: Path, pieces: Pieces, last: int) -> tuple[TrainState, int]:
    """Return the newest state that was saved, or begun from, no later than the incident, and its step."""
    train, experiment = pieces.experiment.config.train, pieces.experiment
    strategy = make_strategy("jit", {"data": 1}, jax.devices())
    with _Until(
        folder / record.CHECKPOINTS, keep=train.keep, best=train.best, mode=train.best_mode, writable=False
    ) as checkpoints:
        checkpoints.last = last
        shapes = experiment.abstract_step()
        state, _, step = restore_or_init(folder, experiment, shapes, strategy, checkpoints, None, fallback=True)
    return state, step


class _Until(Checkpoints):
    """A run's checkpoints up to a step."""

    last = 0

    def steps(self) -> list[int]:
        """Return the saved steps up to `last`."""
        return [step for step in super().steps() if step <= self.last]


def _again(pieces: Pieces, state: TrainState, batches: Batches, steps: range) -> list[dict[str, Any]]:
    advance, found = jax.jit(pieces.step()), []
    for at in steps:
        batch = batches[at]
        state, statistics = advance(state, {name: jnp.asarray(value) for name, value in batch.items()})
        loss, norm = statistics["loss"], statistics["grad_norm"]
        weight = float(loss["weight"])
        value = float(loss["sum"]) / weight if weight else math.nan
        ids = [int(i) for i in np.asarray(batch["id"])[np.asarray(batch["mask"]) > 0]]
        entry = {"step": at, "batch": batches.number(at), "loss": value, "grad_norm": float(norm["sum"])}
        found.append({**entry, "ids": ids})
    return found
