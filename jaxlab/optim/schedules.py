"""Learning-rate schedules that are told the run's length, so that no config repeats it.

Each is a function of the step t from 0 to T, the run's `total_steps`, and stays at its last value beyond. Warm-ups
rise in a straight line from 0 at step 0 to `peak` at step W.
Usage: ``spec("optax:adamw", learning_rate=spec("jaxlab.optim.schedules:warmup_cosine", peak=1e-3))``.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import optax

from jaxlab.core.errors import ConfigError, did_you_mean


def warmup_cosine(total_steps: int, peak: float = 1e-3, warmup: float = 0.05, end: float = 0.0) -> optax.Schedule:
    """Return a linear rise from 0 to `peak`, then a half cosine to `end` times `peak` at the last step.

    Args:
      total_steps: given by the run.
      peak: the highest learning rate.
      warmup: share of the steps if below 1, else a number of steps.
      end: the final learning rate as a share of `peak`.

    Raises:
      ConfigError: a warm-up that is negative, or not shorter than the run; a rate that is negative or not finite.
    """
    steps = _warmup_steps("warmup_cosine", total_steps, warmup)
    _check_rates("warmup_cosine", peak=peak, end=end)
    return optax.warmup_cosine_decay_schedule(0.0 if steps else peak, peak, steps, total_steps, end * peak)


def warmup_linear(total_steps: int, peak: float = 1e-3, warmup: float = 0.05, end: float = 0.0) -> optax.Schedule:
    """Return a linear rise to `peak`, then a linear fall: ``peak * (1 - (1 - end) * (t - W) / (T - W))``.

    Args:
      total_steps: given by the run.
      peak: the highest learning rate.
      warmup: share of the steps if below 1, else a number of steps.
      end: the final learning rate as a share of `peak`.

    Raises:
      ConfigError: as for `warmup_cosine`.
    """
    steps = _warmup_steps("warmup_linear", total_steps, warmup)
    _check_rates("warmup_linear", peak=peak, end=end)
    length = total_steps - steps
    return _after_warmup(steps, peak, lambda later: peak * (1 - (1 - end) * jnp.clip(later / length, 0.0, 1.0)))


def warmup_constant(total_steps: int, peak: float = 1e-3, warmup: float = 0.05) -> optax.Schedule:
    """Return a linear rise to `peak`, which then stays.

    Args:
      total_steps: given by the run.
      peak: the learning rate.
      warmup: share of the steps if below 1, else a number of steps.

    Raises:
      ConfigError: as for `warmup_cosine`.
    """
    steps = _warmup_steps("warmup_constant", total_steps, warmup)
    _check_rates("warmup_constant", peak=peak)
    return _after_warmup(steps, peak, optax.constant_schedule(peak))


def warmup_rsqrt(total_steps: int, peak: float = 1e-3, warmup: float = 0.05) -> optax.Schedule:
    """Return ``peak * min(t / W, sqrt(W / t))`` (Vaswani et al. 2017, arXiv 1706.03762, equation 3).

    The paper's rate has ``peak = (d_model * W) ** -0.5``. Without a warm-up it is ``peak / sqrt(max(t, 1))``.

    Args:
      total_steps: given by the run.
      peak: the highest learning rate.
      warmup: share of the steps if below 1, else a number of steps.

    Raises:
      ConfigError: as for `warmup_cosine`.
    """
    steps = _warmup_steps("warmup_rsqrt", total_steps, warmup)
    _check_rates("warmup_rsqrt", peak=peak)
    first = max(steps, 1)
    return _after_warmup(
        steps, peak, lambda later: peak * jnp.sqrt(first / jnp.clip(later + steps, first, max(total_steps, first)))
    )


def warmup_stable_decay(
    total_steps: int, peak: float = 1e-3, warmup: float = 0.05, decay: float = 0.2, end: float = 0.0,
    shape: str = "linear",
) -> optax.Schedule:  # fmt: skip
    """Return a linear rise to `peak`, which stays, and over the last D steps falls to `end` times `peak`.

    (Hu et al. 2024, arXiv 2404.06395.) With s = (t - T + D) / D the fall is ``peak * (1 - (1 - end) * f(s))``, where
    f is ``s`` for linear, ``sqrt(s)`` for sqrt (Hägele et al. 2024, arXiv 2405.18392) and ``(1 - cos(pi s)) / 2`` for
    cosine.

    Args:
      total_steps: given by the run.
      peak: the highest learning rate.
      warmup: share of the steps if below 1, else a number of steps.
      decay: the same for D.
      end: the final learning rate as a share of `peak`.
      shape: linear, sqrt or cosine.

    Raises:
      ConfigError: as for `warmup_cosine`; a warm-up and a fall that overlap; an unknown shape.
    """
    name = "warmup_stable_decay"
    steps = _warmup_steps(name, total_steps, warmup)
    _check_rates(name, peak=peak, end=end, decay=decay)
    falls = {"linear": lambda s: s, "sqrt": jnp.sqrt, "cosine": lambda s: (1 - jnp.cos(jnp.pi * s)) / 2}
    if shape not in falls:
        raise ConfigError(f"{name}: shape={shape!r}{did_you_mean(shape, falls)}")
    length = _steps(total_steps, decay)
    if steps + length > total_steps:
        raise ConfigError(f"{name}: a warm-up of {steps} and a fall of {length} steps; the run has {total_steps}")

    def stable(later: optax.Numeric) -> optax.Numeric:
        share = jnp.clip((later + steps - total_steps + length) / max(length, 1), 0.0, 1.0)
        return peak * (1 - (1 - end) * falls[shape](share))

    return _after_warmup(steps, peak, stable)


def cosine_restarts(
    total_steps: int, peak: float = 1e-3, warmup: float = 0.0, cycles: int = 3, growth: float = 1.0, end: float = 0.0
) -> optax.Schedule:
    """Return half cosines from `peak` to `end` times `peak`, one after the other (SGDR).

    ``peak * (end + (1 - end) * (1 + cos(pi * s)) / 2)`` at the share s of a cycle (Loshchilov and Hutter 2017,
    arXiv 1608.03983, equation 5). The cycles fill the steps after the warm-up.

    Args:
      total_steps: given by the run.
      peak: the learning rate at the start of each cycle.
      warmup: share of the steps if below 1, else a number of steps.
      cycles: how many.
      growth: the length of a cycle over that of the one before; T_mult of the paper.
      end: the learning rate at the end of each cycle as a share of `peak`.

    Raises:
      ConfigError: as for `warmup_cosine`; fewer steps than cycles.
    """
    steps = _warmup_steps("cosine_restarts", total_steps, warmup)
    _check_rates("cosine_restarts", peak=peak, end=end, growth=growth)
    if cycles < 1:
        raise ConfigError(f"cosine_restarts: cycles={cycles}: expected 1 or more")
    lengths = growth ** np.arange(cycles, dtype=float)
    bounds = np.rint(np.concatenate([[0.0], np.cumsum(lengths) / lengths.sum()]) * (total_steps - steps))
    if (np.diff(bounds) < 1).any():
        raise ConfigError(f"cosine_restarts: cycles={cycles}, growth={growth}: a cycle has no step of {total_steps}")
    first_C, length_C = bounds[:-1].astype(np.float32), np.diff(bounds).astype(np.float32)

    def waves(later: optax.Numeric) -> optax.Numeric:
        cycle = jnp.clip(jnp.searchsorted(first_C, later, side="right") - 1, 0, cycles - 1)
        share = jnp.clip((later - jnp.take(first_C, cycle)) / jnp.take(length_C, cycle), 0.0, 1.0)
        return peak * (end + (1 - end) * (1 + jnp.cos(jnp.pi * share)) / 2)

    return _after_warmup(steps, peak, waves)


def step_decay(
    total_steps: int, peak: float = 1e-3, warmup: float = 0.0, at: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1
) -> optax.Schedule:
    """Return `peak` times `factor` to the power of how many of the steps `at` are past (He et al. 2016).

    Args:
      total_steps: given by the run.
      peak: the first learning rate.
      warmup: share of the steps if below 1, else a number of steps.
      at: rising; each a share of the steps if below 1, else a number of steps.
      factor: by which the rate is multiplied.

    Raises:
      ConfigError: as for `warmup_cosine`; `at` that does not rise, or is not within the run.
    """
    steps = _warmup_steps("step_decay", total_steps, warmup)
    _check_rates("step_decay", peak=peak, factor=factor)
    bounds = [_steps(total_steps, share) for share in at]
    if any(low >= high for low, high in zip([max(steps, 0), *bounds], [*bounds, total_steps], strict=True)):
        raise ConfigError(f"step_decay: at={at} are the steps {bounds}: expected them to rise within {total_steps}")
    bounds_N = np.asarray(bounds)
    return _after_warmup(
        steps, peak, lambda later: peak * factor ** jnp.sum(later + steps >= bounds_N).astype(jnp.float32)
    )


def one_cycle(
    total_steps: int, peak: float = 1e-3, warmup: float = 0.3, start: float = 0.04, end: float = 1e-4
) -> optax.Schedule:
    """Return half cosines from ``start * peak`` up to `peak` and down to ``start * end * peak``: optax's one-cycle.

    (Smith and Topin 2019, arXiv 1708.07120.)

    Args:
      total_steps: given by the run.
      peak: the highest learning rate.
      warmup: share of the steps until it, above 0 and below 1.
      start: the first learning rate as a share of `peak`, above 0.
      end: the last learning rate as a share of the first, above 0.

    Raises:
      ConfigError: a share outside its range, or a run too short for a step up and one down.
    """
    _check_rates("one_cycle", peak=peak)
    for name, value in (("warmup", warmup), ("start", start), ("end", end)):
        if not 0 < value < 1:
            raise ConfigError(f"one_cycle: {name}={value}: expected more than 0 and less than 1")
    if not 0 < int(warmup * total_steps) < total_steps:
        raise ConfigError(f"one_cycle: warmup={warmup} of {total_steps} steps has no step")
    return optax.cosine_onecycle_schedule(total_steps, peak, warmup, 1 / start, 1 / end)


def _steps(total_steps: int, amount: float) -> int:
    return round(amount * total_steps) if amount < 1 else int(amount)


def _warmup_steps(name: str, total_steps: int, warmup: float) -> int:
    """Return W, or raise ConfigError for one that is negative or fills the run."""
    if not warmup >= 0:
        raise ConfigError(f"{name}: warmup={warmup}: expected 0 or more")
    steps = total_steps if math.isinf(warmup) else _steps(total_steps, warmup)
    if steps >= total_steps:
        raise ConfigError(f"the warm-up takes {steps} steps, but the run has {total_steps}")
    return steps


def _check_rates(name: str, **values: float) -> None:
    for option, value in values.items():
        if not 0 <= value < math.inf:
            raise ConfigError(f"{name}: {option}={value}: expected a finite number of 0 or more")


def _after_warmup(steps: int, peak: float, schedule: optax.Schedule) -> optax.Schedule:
    """Return the rise over `steps`, then `schedule` from its step 0 on."""
    return optax.join_schedules([optax.linear_schedule(0.0, peak, steps), schedule], [steps]) if steps else schedule
