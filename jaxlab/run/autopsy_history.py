"""Loss and gradient norm before a run diverged: the rows that it wrote, and every step since the last checkpoint.

Usage: ``found = history(folder, experiment, step)``.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxlab.core import record
from jaxlab.run.assemble import Experiment
from jaxlab.run.restore import restore
from jaxlab.run.rollback import training_batches
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.parallel import make_strategy

_MOST_STEPS, _MOST_ROWS = 200, 20


def history(folder: Path, experiment: Experiment, step: int) -> dict[str, Any]:
    """Return ``rows`` (step, train/loss) up to `step`, and ``steps`` (step, loss, grad_norm, batch), the bad one last.

    The steps are taken again on one device, so that their last digits may differ from the run's; at most 200.
    """
    rows = [row for row in record.read_metrics(folder) if "train/loss" in row and row["step"] <= step + 1]
    shown = [{"step": row["step"], "loss": row["train/loss"]} for row in rows[-_MOST_ROWS:]]
    return {"rows": shown, "steps": _again(folder, experiment, step)}


def _again(folder: Path, experiment: Experiment, step: int) -> list[dict[str, Any]]:
    train = experiment.config.train
    strategy = make_strategy("jit", {"data": 1}, jax.devices())
    with Checkpoints(
        folder / record.CHECKPOINTS, keep=train.keep, best=train.best, mode=train.best_mode, writable=False
    ) as checkpoints:
        before = [saved for saved in checkpoints.steps() if saved <= step]
        start = before[-1] if before else 0
        if step - start > _MOST_STEPS:
            return []
        shapes = experiment.abstract_step()
        if before:
            state = restore(checkpoints, start, shapes, strategy)["state"]
        else:
            state = strategy.init(experiment.init, dict(experiment.initial_values()))
    config = copy.deepcopy(experiment.config)
    with config.unlocked():
        config.train.grad_norm = True
    advance = jax.jit(experiment._replace(config=config).train_step(None))
    batches, found = training_batches(folder, experiment), []
    for at in range(start, step + 1):
        state, statistics = advance(state, {name: jnp.asarray(value) for name, value in batches[at].items()})
        loss, norm = (float(s["sum"] / s["weight"]) for s in (statistics["loss"], statistics["grad_norm"]))
        found.append({"step": at, "batch": batches.number(at), "loss": loss, "grad_norm": norm})
    return found
