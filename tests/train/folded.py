"""Real tables to cross-validate, with groups and times, and a hook by which a fold ends its own process.

Usage: ``config = folded.table(group=True)``; ``folded.main(DIR)`` cross-validates it in three folds.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from sklearn.datasets import load_diabetes, load_wine

from jaxlab.core.config import spec
from jaxlab.core.errors import JaxlabError
from jaxlab.core.types import Periodic
from jaxlab.data.arrays import ArraySource
from jaxlab.run.base import base_config

ROWS = 178  # of the wines
STOP = "FOLDED_STOP"  # FOLD:STEP:SIGNAL


def wines(group: bool = False, time: bool = False, rows: int = ROWS) -> ArraySource:
    """Return wines of three classes, each a row; with 25 groups of unequal size, or a time that is not the order."""
    features_NF, label_N = load_wine(return_X_y=True)
    features_NF = (features_NF - features_NF.mean(0)) / features_NF.std(0)
    fields = {"features": features_NF, "label": label_N}
    generator = np.random.default_rng(0)
    if group:
        fields["group"] = (25 * generator.random(ROWS) ** 2).astype(int)
    if time:
        fields["time"] = generator.permutation(ROWS) // 2
    kept = np.sort(generator.permutation(ROWS)[:rows])
    return ArraySource({name: value[kept] for name, value in fields.items()}, {"classes": ("a", "b", "c")})


def series(rows: int = 240) -> ArraySource:
    """Return a series of two columns, of which ``target`` is to be forecast."""
    target_N = np.cumsum(load_diabetes(return_X_y=True)[0][:rows, 0])
    return ArraySource({"target": target_N, "other": np.sin(np.arange(rows) / 5), "time": np.arange(rows)})


class Straight(nn.Module):
    """A linear forecast of two steps."""

    @nn.compact
    def __call__(self, past_BLF: jnp.ndarray, *, train: bool = False) -> dict[str, jnp.ndarray]:
        return {"forecast": nn.Dense(2)(past_BLF.reshape(len(past_BLF), -1))[..., None]}


def bare() -> ConfigDict:
    """Return what the configs have in common."""
    config = base_config()
    config.optimizer = spec("optax:adam", learning_rate=1e-2)
    config.sinks = ConfigDict()
    config.hooks.stop = spec("folded:stop_hook")
    config.train.update({"steps": 24, "batch_size": 16, "log_every": 5, "eval_every": 12, "checkpoint_every": 6})
    return config


def table(**source: object) -> ConfigDict:
    """Return a perceptron on the wines, whose validation and test splits may not be opened."""
    config = bare()
    config.data.train = spec("folded:wines", **source)
    config.data.valid = config.data.test = spec("folded:forbidden")
    config.model = spec("jaxlab.models.mlp:make", hidden=(8,))
    config.objective = spec("jaxlab.objectives.classify:make", inputs=("features",))
    config.metrics.accuracy = spec("jaxlab.metrics.classify:accuracy")
    config.metrics.cross_entropy = spec("jaxlab.metrics.classify:cross_entropy")
    return config


def windows() -> ConfigDict:
    """Return a forecast of the series."""
    config = bare()
    config.data.train = spec("jaxlab.data.windows:make", source=spec("folded:series"), length=8, horizon=2)
    config.model = spec("folded:Straight")
    config.objective = spec("jaxlab.objectives.regress:make", inputs=("past",))
    config.metrics.mae = spec("jaxlab.metrics.regress:mae")
    return config


def forbidden() -> ArraySource:
    raise AssertionError("a split that a cross-validation does not use was opened")


def stop_hook(workdir: Path) -> Periodic:
    """Return a hook that sends its process the signal that the environment asks for, in a fold, at a step."""
    fold, step, number = os.environ.get(STOP, "none:0:0").split(":")

    def hook(now, state):
        if workdir.name == fold and now == int(step):
            os.kill(os.getpid(), signal.Signals(int(number)))

    return Periodic(1, hook)


def main(folder: str) -> int:
    """Cross-validate the table and return the exit code."""
    from jaxlab.run.cross_validate import cross_validate

    logging.basicConfig(level=logging.INFO)
    try:
        cross_validate(table(group=True), folder, 3)
    except JaxlabError as error:
        return error.exit_code
    return 0
