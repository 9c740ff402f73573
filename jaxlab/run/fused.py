"""Plans of attention that keeps no scores: what grows with the square of a row's length is taken off.

cuDNN's attention runs on NVIDIA's GPUs alone and cannot be compiled for a plan. In its place XLA's is, which writes all
scores, at a row's length, a half and a quarter of it; through three lengths goes one parabola, and its square term is
the scores. Knows no chip.
Usage: ``config = stand_in(config)``; ``shortened(experiment, 2)``; ``square_part(whole, half, quarter)``.
"""

from __future__ import annotations

import copy

import jax
from ml_collections import ConfigDict

from jaxlab.core.errors import ConfigError
from jaxlab.run.assemble import Experiment

ATTENTION, FUSED, WRITTEN = "attention", "cudnn", "xla"


def is_fused(config: ConfigDict) -> bool:
    """Say whether the model's attention writes no scores."""
    return ATTENTION in config.model and config.model[ATTENTION] == FUSED


def stand_in(config: ConfigDict) -> ConfigDict:
    """Return the config with the attention that compiles anywhere."""
    config = copy.deepcopy(config)
    with config.unlocked():
        config.model[ATTENTION] = WRITTEN
    return config


def length_of(experiment: Experiment) -> int:
    """Return the places of a row: of the longest field that is a sequence.

    Raises:
      ConfigError: there is none, or it cannot be quartered.
    """
    lengths = [x.shape[0] for x in experiment.data.example.values() if len(x.shape) == 1]
    length = max(lengths, default=0)
    if not length or length % 4:
        raise ConfigError(
            f"config.model.attention={FUSED!r}: rows have {length} places; to plan without scores, expected a multiple "
            f"of 4, or attention={WRITTEN!r}"
        )
    return length


def shortened(experiment: Experiment, times: int) -> Experiment:
    """Return the experiment on rows that are so many times shorter."""
    length = length_of(experiment)
    example = {
        name: jax.ShapeDtypeStruct((length // times, *x.shape[1:]), x.dtype) if x.shape[:1] == (length,) else x
        for name, x in experiment.data.example.items()
    }
    return experiment._replace(data=experiment.data._replace(example=example))


def square_part(whole: float, half: float, quarter: float) -> float:
    """Return what grows with the square of the length, of a figure at a length, its half and its quarter."""
    return max(0.0, (2 * (whole - half) - 4 * (half - quarter)) / 0.75)
