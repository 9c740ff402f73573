"""Configs small enough to train in a second, and plug-ins that watch, stop or spoil a run.

Usage: ``jaxlab train --config=tests/train/tiny.py:cnn --workdir=D``, or ``tiny.mlp()`` in a test.
"""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxlab.core.config import spec
from jaxlab.core.types import Metric, Periodic
from jaxlab.data import digits
from jaxlab.data.arrays import ArraySource
from jaxlab.data.order import train_indices
from jaxlab.run.base import base_config


def mlp() -> ConfigDict:
    """Return a perceptron with AdamW whose intervals are no multiples of one another."""
    config = base_config()
    for split in ("train", "valid", "test"):
        config.data[split] = spec("jaxlab.data.digits:make", split=split)
    config.model = spec("jaxlab.models.mlp:make", hidden=(16,))
    config.objective = spec("jaxlab.objectives.classify:make", label_smoothing=0.1)
    config.metrics.accuracy = spec("jaxlab.metrics.classify:accuracy")
    config.metrics.cross_entropy = spec("jaxlab.metrics.classify:cross_entropy")
    config.optimizer = spec("optax:adamw", learning_rate=3e-3)
    config.sinks = ConfigDict()
    config.train.steps = 120
    config.train.batch_size = 32
    config.train.log_every = 5
    config.train.eval_every = 11
    config.train.checkpoint_every = 13
    config.train.best = "valid/cross_entropy"
    return config


def cnn() -> ConfigDict:
    """Return a network with all that a resume could forget: batch statistics, dropout, augmentation, an average."""
    config = mlp()
    config.data.augment = (spec("jaxlab.data.images:random_shift", pixels=1),)
    config.model = spec("jaxlab.models.cnn:make", channels=(4,), depth=(1,), hidden=(8,), dropout=0.3)
    config.objective = spec("jaxlab.objectives.classify:make", inputs=("image", "mask"))
    config.train.ema = 0.9
    return config


def hanging() -> ConfigDict:
    """Return the perceptron with a hook that hangs at step 20."""
    config = mlp()
    config.hooks.hang = spec("tiny:hanging_hook", at=20)
    return config


def get_config() -> ConfigDict:
    """Return the perceptron."""
    return mlp()


def breaking_source(after: int, split: str = "train") -> ArraySource:
    """Return digits that raise once `after` rows have been asked for, by the checks before training or for a batch."""
    return BreakingSource(digits.make(split), after)


class BreakingSource(ArraySource):
    def __init__(self, inner, after):
        rows = inner.__getitems__(np.arange(len(inner)))
        super().__init__(rows, inner.spec.meta)
        self._left = after

    def __getitems__(self, indices):
        self._left -= len(indices)
        if self._left < 0:
            raise OSError("the disk is gone")
        return super().__getitems__(indices)


def breaking_hook(at: int) -> Periodic:
    """Return a hook that raises at step `at`."""

    def hook(step, state):
        if step == at:
            raise RuntimeError(f"the hook broke at {step}")

    return Periodic(1, hook)


def stopping_hook(at: int) -> Periodic:
    """Return a hook that sends this process SIGTERM at step `at`."""

    def hook(step, state):
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)

    return Periodic(1, hook)


def norm_hook(every: int) -> Periodic:
    """Return a hook that measures the first kernel."""
    return Periodic(every, lambda step, state: {"mine/norm": jnp.linalg.norm(state.params["Dense_0"]["kernel"])})


def exploding(at: int) -> optax.GradientTransformation:
    """Return gradient descent whose update number `at` is not a number."""
    return optax.sgd(lambda count: jnp.where(count + 1 == at, jnp.nan, 0.1))


def fickle_metric() -> Metric:
    """Return a metric that is a number only at the second validation."""
    calls = iter([math.nan, 1.0, math.nan, 1.0])

    def compute(statistics):
        return next(calls) if statistics["validations"] == 180 else 0.0

    return Metric(lambda outputs, batch: {"validations": jnp.sum(batch["mask"])}, compute)


def poisoned(batches: tuple[int, ...], batch_size: int, seed: int) -> ArraySource:
    """Return digits of which the first rows of the batches of these numbers hold a pixel that is infinite."""
    source = digits.make("train")
    fields = dict(source.__getitems__(np.arange(len(source))))
    image = np.array(fields["image"], np.float32)
    for number in batches:
        rows = train_indices(len(source), batch_size, seed, number, 1, None)
        image[np.reshape(rows, -1)[0], 3, 3] = np.inf
    return ArraySource({**fields, "image": image}, source.spec.meta)


class BreakingSink:
    """A sink whose server goes away after some rows."""

    def __init__(self, after: int):
        self._left = after

    def write(self, step, values):
        self._left -= 1
        if self._left < 0:
            raise OSError("the server is gone")

    def close(self):
        pass


class FileSink:
    """A sink that appends each row's step to a file."""

    def __init__(self, path: str):
        self._path = Path(path)

    def write(self, step, values):
        with self._path.open("a") as file:
            file.write(f"{step}\n")

    def close(self):
        pass


class HangingSink:
    """A sink that never comes back."""

    def write(self, step, values):
        time.sleep(3600)

    def close(self):
        pass


def hanging_hook(at: int) -> Periodic:
    """Return a hook that hangs at step `at`."""

    def hook(step, state):
        if step == at:
            time.sleep(3600)

    return Periodic(1, hook)


def jumping(at: int) -> optax.GradientTransformation:
    """Return gradient descent whose update number `at` is far too large."""
    return optax.sgd(lambda count: jnp.where(count + 1 == at, 1e3, 0.01))
