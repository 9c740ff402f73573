"""When a search gives an arm up: by the seeds it has, or within a run by what the rest of training can still gain.

Noise is no reason: bounds of 95 % are compared, that of the arm with that of the best one.
Usage: ``is_hopeless(values, others, "max")``; ``bar_of(...).out_of_reach(step, row)`` within a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxlab.metrics.intervals import LEVEL

_LEAST = 5  # finished runs that say what the rest of training gains
_TAIL = 0.5 + LEVEL / 2


class Noise(NamedTuple):
    """How far a seed may be from its arm's mean, and what the best arm reaches at least, times the direction's sign."""

    margin: float
    lower: float


class Rest(NamedTuple):
    """What training gained from a step to its end, and how far another run's gain may be from that."""

    gain: float
    margin: float


class Bar(NamedTuple):
    """What a run of a search has to be able to reach."""

    metric: str
    sign: float  # -1.0 where less is better
    noise: Noise
    rest: Mapping[int, Rest]  # by step

    def projected(self, step: int, value: float) -> float:
        """Return the value at the end of a run that has `value` at `step`; nan at a step of which nothing is known."""
        return value + self.rest[step].gain if step in self.rest else math.nan

    def out_of_reach(self, step: int, row: Mapping[str, float]) -> str:
        """Return why a run with such a row cannot become the best, or "" where it can, or the row does not say."""
        if self.metric not in row or step not in self.rest:
            return ""
        value = self.projected(step, row[self.metric])
        margin = math.hypot(self.rest[step].margin, self.noise.margin)
        if not self.sign * value + margin < self.noise.lower:  # nan: training itself looks after that
            return ""
        bounds = f"{value:.4g} ± {margin:.2g} at its end, the best arm {self.sign * self.noise.lower:.4g} at worst"
        return f"given up at step {step}: {self.metric} {row[self.metric]:.4g} leads to {bounds}"


def noise_of(others: Sequence[Sequence[float]], direction: str) -> Noise | None:
    """Return the noise of seeds, which is taken to be that of all arms, and the best arm's bound; None if unknown."""
    sign = _sign(direction)
    arms = [sign * np.array(arm) for arm in others if len(arm)]
    freedom = sum(len(arm) - 1 for arm in arms)
    if not arms or freedom < 2:
        return None
    deviation = math.sqrt(sum(float(np.sum((arm - arm.mean()) ** 2)) for arm in arms) / freedom)
    margin = float(stats.t.ppf(_TAIL, freedom)) * deviation
    return Noise(margin, max(float(arm.mean()) - margin / math.sqrt(len(arm)) for arm in arms))


def is_hopeless(found: Sequence[float], others: Sequence[Sequence[float]], direction: str) -> bool:
    """Say whether an arm's mean is worse than the best arm's even by the bounds of both."""
    noise = noise_of(others, direction)
    if noise is None or not found or not np.all(np.isfinite(found)):
        return False
    return _sign(direction) * float(np.mean(found)) + noise.margin / math.sqrt(len(found)) < noise.lower


def bar_of(
    curves: Sequence[Mapping[int, float]],
    finals: Sequence[float],
    others: Sequence[Sequence[float]],
    direction: str,
    metric: str,
) -> Bar | None:
    """Return what a run has to be able to reach; None as long as too little is known.

    Args:
      curves: the metric by step, of finished runs.
      finals: what they came to.
      others: the values of finished arms, by seed.
      direction: max or min.
      metric: its name in rows.
    """
    noise, rest = noise_of(others, direction), {}
    for step in sorted({step for curve in curves for step in curve}):
        gains = [final - curve[step] for curve, final in zip(curves, finals, strict=True) if step in curve]
        if len(gains) >= _LEAST and np.all(np.isfinite(gains)):
            wide = float(np.std(gains, ddof=1)) * math.sqrt(1 + 1 / len(gains))
            rest[step] = Rest(float(np.mean(gains)), float(stats.t.ppf(_TAIL, len(gains) - 1)) * wide)
    return Bar(metric, _sign(direction), noise, rest) if noise is not None and rest else None


def _sign(direction: str) -> float:
    return 1.0 if direction == "max" else -1.0
