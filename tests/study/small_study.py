"""Studies small enough to run in seconds, with arms that fail, diverge or die.

Usage: ``jaxlab study --study=tests/study/small_study.py --workdir=D``, or ``small_study.get_study()`` in a test.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import jaxlab
from jaxlab.core.types import Array, Batch, DeviceTransform, Periodic
from jaxlab.run.base import base_config
from jaxlab.study.grid import chain, sweep


def base() -> ConfigDict:
    """Return a perceptron of a few steps."""
    config = base_config()
    for split in ("train", "valid", "test"):
        config.data[split] = jaxlab.spec("jaxlab.data.digits:make", split=split)
    config.model = jaxlab.spec("jaxlab.models.mlp:make", hidden=(8,))
    config.objective = jaxlab.spec("jaxlab.objectives.classify:make")
    config.metrics.accuracy = jaxlab.spec("jaxlab.metrics.classify:accuracy")
    config.optimizer = jaxlab.spec("optax:adamw", learning_rate=3e-3)
    config.hooks.trap = jaxlab.spec("small_study:trap")
    config.sinks = ConfigDict()
    config.train.steps = 30
    config.train.batch_size = 32
    config.train.log_every = 5
    config.train.eval_every = 10
    config.train.checkpoint_every = 10
    config.train.best = "valid/accuracy"
    config.train.best_mode = "max"
    return config


def get_study() -> jaxlab.Study:
    """Return two rates over two seeds."""
    arms = chain([{}], sweep("optimizer.learning_rate", 1e-2))
    return jaxlab.Study(base(), arms, (0, 1), "valid/accuracy")


def trap(workdir: Path, kind: str = "", at: int = 20, times: int = 1) -> Periodic:
    """Return a hook that raises at a step, or kills its process, the first `times` that the run comes there."""
    count = Path(workdir) / "trapped"

    def hook(step: int, state: object) -> None:
        if not kind or step != at:
            return
        before = len(count.read_text()) if count.exists() else 0
        count.write_text("x" * (before + 1))
        if before < times and kind == "raise":
            raise RuntimeError("the trap")
        if before < times and kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

    return Periodic(10, hook)


def poison(share: float = 0.0) -> DeviceTransform:
    """Return an augmentation that spoils a batch now and then, as the run's seed has it."""

    def transform(batch: Batch, key: Array) -> Batch:
        factor = jnp.where(jax.random.uniform(key) < share, jnp.nan, 1.0)
        return {**batch, "image": batch["image"] * factor}

    return transform
