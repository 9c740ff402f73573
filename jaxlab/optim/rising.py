"""A learning rate that rises all the way, by which `jaxlab.run.find_rate` finds one to train with.

Usage: ``spec("optax:adamw", learning_rate=spec("jaxlab.optim.rising:geometric", low=1e-6, high=1.0))``.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import optax

from jaxlab.core.errors import ConfigError


def geometric(total_steps: int, low: float = 1e-6, high: float = 1.0) -> optax.Schedule:
    """Return a rise from `low` at the first step to `high` at the last, by the same factor each step.

    Args:
      total_steps: given by the run.
      low: the first rate.
      high: the last rate.

    Raises:
      ConfigError: rates that are not positive and finite.
    """
    if not (0 < low < math.inf and 0 < high < math.inf):
        raise ConfigError(f"geometric: low={low:g}, high={high:g}: expected finite rates above 0")
    length = max(1, total_steps - 1)
    return lambda t: low * (high / low) ** (jnp.minimum(t, length) / length)
