"""From a checkpoint, or from nothing, to a state on the devices."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxlab.core import record
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import PyTree, Statistics, TrainState
from jaxlab.run.assemble import Experiment
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.parallel import Strategy
from jaxlab.train.window import Window, window_shapes

_log = logging.getLogger("jaxlab")


def restore_or_init(
    folder: Path,
    experiment: Experiment,
    shapes: tuple[TrainState, Statistics],
    strategy: Strategy,
    checkpoints: Checkpoints,
    values: Mapping[str, np.ndarray] | None = None,
    fallback: bool = False,
) -> tuple[TrainState, Window | None, int]:
    """Return the state, the open window of statistics and the step of the latest checkpoint, or of the beginning.

    Args:
      folder: of the run, which says whether it began from another run's state.
      experiment: that is trained.
      shapes: of a step's results.
      strategy: on which devices.
      checkpoints: of the run.
      values: to begin from; without them, a beginning reads its own.
      fallback: whether the newest intact checkpoint will do where the latest is damaged.
    """
    if checkpoints.steps():
        step, tree = checkpoints.restore_newest(_like(shapes, strategy), fallback=fallback)
        tree = strategy.replicate(tree)
        return tree["state"], tree["window"], step
    fork = record.read_json(folder / record.OVERRIDES).get("fork")
    if fork is not None:
        state, step = forked(Path(fork["run"]), fork["step"], shapes[0], strategy)
        return state, None, step
    values = experiment.initial_values() if values is None else values
    return strategy.init(experiment.init, dict(values)), None, 0


def restore(
    checkpoints: Checkpoints, step: int, shapes: tuple[TrainState, Statistics], strategy: Strategy
) -> dict[str, PyTree]:
    """Return ``state`` and ``window`` as saved at `step`, placed as `strategy` keeps them."""
    return strategy.replicate(checkpoints.restore(step, _like(shapes, strategy)))


def forked(run: Path, step: str, state: TrainState, strategy: Strategy) -> tuple[TrainState, int]:
    """Return the state that another run saved, and its step.

    Raises:
      ConfigError: the shapes of this run's `state` are not that run's.
      DataError: no such checkpoint.
    """
    with open_checkpoints(run) as checkpoints:
        found = checkpoints.resolve(step)
        try:
            tree = checkpoints.restore(found, strategy.saved_shapes({"state": state}))
        except DataError as error:
            raise ConfigError(f"--fork-from={run}@{step}: {error}") from error
    _log.info("forked from step %d of %s", found, run)
    return strategy.replicate(tree)["state"], found


def open_checkpoints(run: Path) -> Checkpoints:
    """Return a run's checkpoints, to be read."""
    train = record.read_config(run).train
    folder = run / record.CHECKPOINTS
    return Checkpoints(folder, keep=train.keep, best=train.best, mode=train.best_mode, writable=False)


def _like(shapes: tuple[TrainState, Statistics], strategy: Strategy) -> PyTree:
    state, statistics = shapes
    return strategy.saved_shapes({"state": state, "window": window_shapes(statistics)})
