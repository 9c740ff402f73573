"""Learning-rate schedules that are told the run's length, so that no config repeats it."""

from __future__ import annotations

import optax

from jaxlab.core.errors import ConfigError


def warmup_cosine(total_steps: int, peak: float = 1e-3, warmup: float = 0.05, end: float = 0.0) -> optax.Schedule:
    """Return a linear rise from 0 to `peak`, then a half cosine to `end` times `peak` at the last step.

    Args:
      total_steps: given by the run.
      peak: the highest learning rate.
      warmup: share of the steps if below 1, else a number of steps.
      end: the final learning rate as a share of `peak`.

    Raises:
      ConfigError: a warm-up that is negative, or not shorter than the run.
    """
    if warmup < 0:
        raise ConfigError(f"warmup_cosine: warmup={warmup}: expected 0 or more")
    steps = round(warmup * total_steps) if warmup < 1 else int(warmup)
    if steps >= total_steps:
        raise ConfigError(f"the warm-up takes {steps} steps, but the run has {total_steps}")
    return optax.warmup_cosine_decay_schedule(0.0 if steps else peak, peak, steps, total_steps, end * peak)
