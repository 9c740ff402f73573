"""What numbers over seeds allow to be said: intervals, paired tests, corrections, effects, and what n could have shown.

Pure functions of arrays; knows no run. Seeds are paired: the same seed has the same data order and, where models are
alike, the same initial weights, so that a difference within a seed has less noise than one between seeds.
Shape letters: N seeds, M comparisons. Usage: ``compare(values_N, baseline_N, "max")``.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from jaxlab.metrics.intervals import LEVEL

POWER = 0.8  # with which a difference is to be found, as is customary (Cohen 1988, section 2.4)
_EXACT = 14  # seeds up to which every sign is tried: 2**14 sums
_DRAWS = 20_000
_MOST_SEEDS = 100_000


class Spread(NamedTuple):
    """A metric over seeds; bounds and deviation are nan where one seed has none."""

    n: int
    mean: float
    low: float
    high: float
    deviation: float
    median: float
    best: float
    worst: float


class Comparison(NamedTuple):
    """An arm against the baseline over the seeds that both have; `difference` is arm minus baseline."""

    n: int
    difference: float
    low: float
    high: float
    deviation: float  # of the differences, over seeds
    t_p: float
    permutation_p: float
    effect: float  # Hedges' g of paired differences


def spread(values_N: np.ndarray, direction: str) -> Spread:
    """Return mean and Student's interval over seeds, median and extremes; `direction` says which is best."""
    n, mean = len(values_N), float(np.mean(values_N))
    deviation = float(np.std(values_N, ddof=1)) if n > 1 else math.nan
    half = half_width(deviation, n)
    ends = float(np.max(values_N)), float(np.min(values_N))
    best, worst = ends if direction == "max" else ends[::-1]
    return Spread(n, mean, mean - half, mean + half, deviation, float(np.median(values_N)), best, worst)


def half_width(deviation: float, n: int) -> float:
    """Return half of Student's interval of a mean over `n` seeds; nan for one."""
    return float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * deviation / math.sqrt(n) if n > 1 else math.nan


def compare(values_N: np.ndarray, baseline_N: np.ndarray) -> Comparison:
    """Return the paired comparison of values with those of the baseline, seed by seed."""
    differences_N = np.asarray(values_N, np.float64) - np.asarray(baseline_N, np.float64)
    n, mean = len(differences_N), float(np.mean(differences_N))
    deviation = float(np.std(differences_N, ddof=1)) if n > 1 else math.nan
    half, flipped = half_width(deviation, n), permutation_test(differences_N)
    return Comparison(
        n,
        mean,
        mean - half,
        mean + half,
        deviation,
        t_test(differences_N, flipped),
        flipped,
        hedges(mean, deviation, n),
    )


def t_test(differences_N: np.ndarray, otherwise: float) -> float:
    """Return the two-sided p-value of Student's paired test; `otherwise` where the differences do not vary."""
    n = len(differences_N)
    if n < 2:
        return math.nan
    deviation = float(np.std(differences_N, ddof=1))
    if deviation <= 1e-12 * max(1e-300, float(np.max(np.abs(differences_N)))):
        return otherwise
    return float(2 * stats.t.sf(abs(np.mean(differences_N)) / deviation * math.sqrt(n), n - 1))


def permutation_test(differences_N: np.ndarray) -> float:
    """Return the two-sided p-value of the sign-flip test (Fisher 1935): exact up to 14 seeds, else of 20,000 draws.

    The least that `n` seeds can give is 2 / 2**n, so that five seeds never come below 0.06.
    """
    n = len(differences_N)
    if n < 2:
        return math.nan
    seen = abs(float(np.sum(differences_N)))
    if n <= _EXACT:
        signs_KN = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
        drawn_K = np.abs(signs_KN @ differences_N)
        return float(np.mean(drawn_K >= seen * (1 - 1e-12)))
    generator = np.random.Generator(np.random.Philox(0))
    drawn_K = np.abs(generator.choice((1.0, -1.0), (_DRAWS, n)) @ differences_N)
    return (1 + int(np.sum(drawn_K >= seen * (1 - 1e-12)))) / (1 + _DRAWS)  # Phipson & Smyth 2010: never zero


def hedges(mean: float, deviation: float, n: int) -> float:
    """Return the mean difference in deviations of it, corrected for small n (Hedges 1981, equation 6e)."""
    if n < 2 or not deviation > 0:
        return math.nan
    return mean / deviation * (1 - 3 / (4 * (n - 1) - 1)) if n > 2 else mean / deviation


def holm(p_M: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for there being M of them (Holm 1979); nan is none and stays."""
    known = [i for i, p in enumerate(p_M) if not math.isnan(p)]
    adjusted, running = list(map(float, p_M)), 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: p_M[i])):
        running = max(running, min(1.0, (len(known) - rank) * p_M[i]))
        adjusted[i] = running
    return adjusted


def power(difference: float, deviation: float, n: int, level: float) -> float:
    """Return how likely the paired t test is to find a true difference.

    The noncentral t distribution's tails, as the mean of a normal's over the estimated deviation: SciPy's own series
    for them ends in nan for few seeds at small levels.
    """
    if n < 2:
        return 0.0
    critical, shift = stats.t.ppf(1 - level / 2, n - 1), abs(difference) / deviation * math.sqrt(n)
    share_K, weight_K = _quadrature()
    bar_K = critical * np.sqrt(stats.chi2.ppf(share_K, n - 1) / (n - 1))
    return float(weight_K @ (stats.norm.cdf(shift - bar_K) + stats.norm.cdf(-shift - bar_K)))


@functools.cache
def _quadrature(nodes: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss and Legendre's nodes and weights on [0, 1]."""
    x_K, weight_K = np.polynomial.legendre.leggauss(nodes)
    return (x_K + 1) / 2, weight_K / 2


def minimum_detectable(deviation: float, n: int, comparisons: int = 1) -> float:
    """Return the least true difference that `n` seeds find with a power of 0.8 among so many comparisons.

    Args:
      deviation: of the differences over seeds.
      n: seeds.
      comparisons: that Holm corrects for; its first and hardest step is at their share of 5 %.
    """
    if n < 2 or not deviation > 0:
        return math.nan
    level = (1 - LEVEL) / comparisons

    def lacking(shift: float) -> float:
        return power(shift, 1.0, n, level) - POWER

    high = 1.0
    while lacking(high) < 0:
        high *= 2
    return deviation * float(optimize.brentq(lacking, 0.0, high))


def seeds_needed(difference: float, deviation: float, comparisons: int = 1) -> int | None:
    """Return the fewest seeds that find a true `difference` with a power of 0.8; None for more than 100,000."""
    if not deviation > 0 or not difference:
        return None
    low, high = 2, 4
    while minimum_detectable(deviation, high, comparisons) > abs(difference):
        low, high = high, 2 * high
        if high > _MOST_SEEDS:
            return None
    while low < high:
        middle = (low + high) // 2
        enough = minimum_detectable(deviation, middle, comparisons) <= abs(difference)
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def interaction(base_N: np.ndarray, first_N: np.ndarray, second_N: np.ndarray, both_N: np.ndarray) -> Comparison:
    """Return how far two changes together are from their sum: a comparison whose `difference` is that excess."""
    return compare(both_N - second_N, first_N - base_N)


def pareto(costs_M: Sequence[float], values_M: Sequence[float], direction: str) -> list[bool]:
    """Return for each arm whether none is better at the same or less cost, nor as good at less."""
    sign = 1.0 if direction == "max" else -1.0
    points = [(cost, -sign * value) for cost, value in zip(costs_M, values_M, strict=True)]
    return [
        not any(a <= cost and b <= bad and (a, b) != (cost, bad) for a, b in points)
        and not (math.isnan(cost) or math.isnan(bad))
        for cost, bad in points
    ]
