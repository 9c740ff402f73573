"""From a checkpoint, or from nothing, to a state on the devices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxlab.core.tree import packed_shape
from jaxlab.core.types import PyTree, Statistics, TrainState
from jaxlab.run.assemble import Experiment
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.parallel import Strategy, Window


def restore_or_init(
    experiment: Experiment,
    shapes: tuple[TrainState, Statistics],
    strategy: Strategy,
    checkpoints: Checkpoints,
    values: Mapping[str, np.ndarray] | None = None,
) -> tuple[TrainState, Window | None, int]:
    """Return the state, the open window of statistics and the step of the latest checkpoint, or of the beginning.

    Without `values` to begin from, a beginning reads them.
    """
    steps = checkpoints.steps()
    if not steps:
        values = experiment.initial_values() if values is None else values
        return strategy.init(experiment.init, dict(values)), None, 0
    tree = restore(checkpoints, steps[-1], shapes, strategy)
    return tree["state"], tree["window"], steps[-1]


def restore(
    checkpoints: Checkpoints, step: int, shapes: tuple[TrainState, Statistics], strategy: Strategy
) -> dict[str, PyTree]:
    """Return ``state`` and ``window`` as saved at `step`, placed as `strategy` keeps them."""
    state, statistics = shapes
    saved = checkpoints.restore(step, strategy.saved_shapes({"state": state, "window": packed_shape(statistics)}))
    return strategy.replicate(saved)
