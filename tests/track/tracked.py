"""A small run for trackers: its config, its rows without the times, and its last state as digests.

Usage: ``jaxlab.train(tracked.config(mlflow=spec(...)), workdir)``.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import jaxlab
from jaxlab.core import record
from jaxlab.core.types import Periodic
from jaxlab.run.base import base_config
from jaxlab.train import manifest

_TIMES = ("wall", "steps_per_second", "examples_per_second", "data_wait")


def config(steps: int = 30, **sinks: ConfigDict) -> ConfigDict:
    """Return a perceptron with these sinks and no other."""
    found = base_config()
    for split in ("train", "valid"):
        found.data[split] = jaxlab.spec("jaxlab.data.digits:make", split=split)
    found.model = jaxlab.spec("jaxlab.models.mlp:make", hidden=(8,))
    found.objective = jaxlab.spec("jaxlab.objectives.classify:make")
    found.metrics.accuracy = jaxlab.spec("jaxlab.metrics.classify:accuracy")
    found.optimizer = jaxlab.spec("optax:sgd", learning_rate=0.1)
    found.sinks = ConfigDict(sinks)
    found.train.steps, found.train.log_every = steps, 1
    found.train.eval_every = found.train.checkpoint_every = 10
    return found


def rows(workdir: Path) -> list[dict[str, Any]]:
    """Return what was logged, but for times."""
    return [{n: v for n, v in row.items() if n not in _TIMES} for row in record.read_metrics(workdir)]


def final_state(workdir: Path) -> dict[str, Any]:
    """Return size and digest of every array's files in the last checkpoint."""
    steps = [path for path in (workdir / record.CHECKPOINTS).iterdir() if path.name.isdigit()]
    files = manifest.read(max(steps, key=lambda path: int(path.name))).files
    return {name: digest for name, digest in files.items() if name.startswith(f"{manifest.ITEM}/state.")}


def signaller(pid: int, number: int, at: int = 10) -> Periodic:
    """Return a hook that sends a signal to a process group at a step."""

    def hook(step: int, state: object) -> None:
        if pid and step == at:
            os.killpg(pid, signal.Signals(number))

    return Periodic(at, hook)
