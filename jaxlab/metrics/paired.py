"""Two models on the same examples: what they differ by, its interval, and how likely that is if they are equal.

Shape letters: N examples, M = 2 models.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxlab.metrics.intervals import (
    NORMAL_QUANTILE,
    RESAMPLES,
    Numbers,
    Resampling,
    delong_covariance,
    percentiles,
    resampled,
)


class Difference(NamedTuple):
    """The second model's number minus the first's, its interval at 95 %, and the two-sided p-value of no difference."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    n: int
    method: str


def paired_bootstrap(
    first: Numbers, second: Numbers, resampling: Resampling, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """Return the difference of each number of two models, by name; both are drawn the same examples.

    The p-value is twice the smaller share of resamples on either side of 0, both shares counting the sample itself
    (Davison & Hinkley 1997, section 4.4), so it is never below 2 / (resamples + 1).

    Args:
      first: from how often each example counts [N] to the first model's numbers.
      second: to the second's, of the same examples in the same order.
      resampling: which examples come and go together.
      resamples: how many.
      seed: of the draws.

    Raises:
      UndefinedError: a number has no value on the sample itself.
    """

    def both(weight_N: np.ndarray) -> dict[str, float]:
        one, other = first(weight_N), second(weight_N)
        return {name: other[name] - one[name] for name in one}

    n = len(resampling.draw(np.random.default_rng(seed)))
    one, other = (numbers(np.ones(n)) for numbers in (first, second))
    drawn = resampled([both], [both(np.ones(n))], resampling, resamples, seed)
    return {name: _difference(one[name], other[name], drawn[name], resampling) for name in one}


def _difference(first: float, second: float, drawn: np.ndarray, resampling: Resampling) -> Difference:
    found = percentiles(second - first, drawn, resampling)
    method = f"paired {found.method}"
    if math.isnan(found.low):
        return Difference(first, second, math.nan, math.nan, math.nan, math.nan, found.n, method)
    around = found.point + resampling.widening * (drawn[~np.isnan(drawn)] - found.point)
    side = min((1 + (around <= 0).sum()), (1 + (around >= 0).sum())) / (len(around) + 1)
    return Difference(first, second, found.point, found.low, found.high, min(1.0, 2 * float(side)), found.n, method)


def mcnemar(first_right_N: np.ndarray, second_right_N: np.ndarray) -> float:
    """Return the exact p-value that two models are right equally often (McNemar 1947, Psychometrika 12, 153-157).

    By the binomial distribution of who is right where they differ; 1 where they never differ.
    """
    first, second = np.asarray(first_right_N, bool), np.asarray(second_right_N, bool)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    differing = only_first + only_second
    return float(stats.binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0


def delong_test(positive_N: np.ndarray, first_N: np.ndarray, second_N: np.ndarray) -> Difference:
    """Return the difference of two areas under the ROC curve on the same examples (DeLong et al. 1988).

    Raises:
      UndefinedError: one class only.
    """
    area_M, covariance_MM = delong_covariance(positive_N, np.stack([first_N, second_N]))
    difference = float(area_M[1] - area_M[0])
    error = math.sqrt(max(covariance_MM[0, 0] + covariance_MM[1, 1] - 2 * covariance_MM[0, 1], 0.0))
    half = NORMAL_QUANTILE * error
    p = float(2 * stats.norm.sf(abs(difference) / error)) if error else float(difference == 0)
    first, second = map(float, area_M)
    return Difference(first, second, difference, difference - half, difference + half, p, len(first_N), "DeLong")
