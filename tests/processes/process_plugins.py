"""Configs for several processes, and plug-ins that watch what each reads and writes, hang or fail in one of them.

Usage: ``jaxlab train --config=tests/processes/process_plugins.py:slow --workdir=D --coordinator=… …``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import jax
import numpy as np
import tiny
from ml_collections import ConfigDict

from jaxlab.core.config import spec
from jaxlab.core.types import Periodic
from jaxlab.data import digits
from jaxlab.data.arrays import ArraySource


class WatchedSource(ArraySource):
    """Digits that write down which rows were asked for, a file a process, and what happens after some of them."""

    def __init__(self, split: str, seen: str, process: int, after: int, happens: str) -> None:
        inner = digits.make(split)
        super().__init__(inner.__getitems__(np.arange(len(inner))), inner.spec.meta)
        self._seen, self._process, self._left, self._happens = seen, process, after, happens

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        index, shuffled = jax.process_index(), bool((np.diff(indices) != 1).any())  # a training batch, then
        if self._seen and shuffled:
            with Path(f"{self._seen}.{index}").open("a") as file:
                file.write(" ".join(map(str, indices.tolist())) + "\n")
        self._left -= len(indices) * shuffled
        if self._happens and index == self._process and self._left < 0:
            if self._happens == "hang":
                time.sleep(10_000)
            raise OSError("the disk is gone")
        return super().__getitems__(indices)


def watched(split: str = "train", seen: str = "", process: int = -1, after: int = 0, happens: str = "") -> ArraySource:
    """Return digits that are watched; in `process`, after so many rows, reading them fails or hangs."""
    return WatchedSource(split, seen, process, after, happens)


def slow_hook(seconds: float) -> Periodic:
    """Return a hook that takes its time after each step."""

    def hook(step: int, state: object) -> None:
        time.sleep(seconds)

    return Periodic(1, hook)


def writing_hook(folder: str) -> Periodic:
    """Return a hook that has every file that this process opens for writing in `folder` written down beside it."""
    index = jax.process_index()

    def watch(event: str, arguments: tuple) -> None:
        paths = arguments[:2] if event in ("os.rename", "os.mkdir") else arguments[:1]
        writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if event in ("open", "os.rename", "os.mkdir", "os.remove") and writes:
            for path in paths:
                if isinstance(path, str | os.PathLike) and str(path).startswith(folder):
                    with Path(f"/dev/fd/{log}").open("a") as file:
                        file.write(f"{event} {path}\n")

    log = os.open(f"{folder}.writes.{index}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(watch)
    return Periodic(10_000, lambda step, state: None)


def mlp() -> ConfigDict:
    """Return the tiny perceptron, on jit."""
    return tiny.mlp()


def cnn() -> ConfigDict:
    """Return the tiny network with batch statistics, dropout, augmentation and an average."""
    return tiny.cnn()


def watched_cnn() -> ConfigDict:
    """Return the same with what it reads and writes written down."""
    config = tiny.cnn()
    config.data.train = spec("process_plugins:watched")
    config.hooks.writes = spec("process_plugins:writing_hook", folder="")
    return config


def pmap() -> ConfigDict:
    """Return the same under pmap, with microbatches and several steps a call."""
    config = tiny.mlp()
    config.train.update({"grad_accumulation": 2, "steps_per_call": 3})
    config.parallel.strategy = "pmap"
    return config


def slow() -> ConfigDict:
    """Return the perceptron with steps that take a tenth of a second, of which there are many."""
    config = tiny.mlp()
    config.hooks.slow = spec("process_plugins:slow_hook", seconds=0.1)
    config.train.update({"steps": 10_000, "log_every": 1, "eval_every": 5000, "checkpoint_every": 10})
    return config


def failing() -> ConfigDict:
    """Return the slow perceptron whose data fail in process 1 after some steps."""
    config = slow()
    config.data.train = spec("process_plugins:watched", process=1, after=1000, happens="fail")
    return config


def aborting_hook(at: int) -> Periodic:
    """Return a hook by which process 1 ends as C++ code does that has found an error of its own."""

    def hook(step: int, state: object) -> None:
        if step == at and jax.process_index() == 1:
            os.abort()

    return Periodic(1, hook)


def aborting() -> ConfigDict:
    """Return the slow perceptron whose process 1 aborts."""
    config = slow()
    config.hooks.abort = spec("process_plugins:aborting_hook", at=20)
    return config


def hanging() -> ConfigDict:
    """Return the slow perceptron whose data hang in process 1 after some steps."""
    config = failing()
    config.data.train.happens = "hang"
    return config
