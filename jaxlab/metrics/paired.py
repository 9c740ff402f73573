"""Two models on the same examples: what they differ by, its interval, and how likely that is if they are equal.

Shape letters: N examples, S sums, M = 2 models.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxlab.metrics.intervals import NORMAL_QUANTILE, RESAMPLES, Statistic, delong_covariance, draws, percentiles


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
    first_NS: np.ndarray, second_NS: np.ndarray, statistic: Statistic, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Return the difference of what two models' sums amount to; both are drawn the same examples.

    The p-value is twice the smaller share of resamples on either side of 0, both shares counting the sample itself
    (Davison & Hinkley 1997, section 4.4), so it is never below 2 / (resamples + 1).

    Args:
      first_NS: what each example adds to the first model's sums.
      second_NS: to the second's, of the same examples in the same order.
      statistic: the number, from the sums [S].
      resamples: how often N examples are drawn with replacement.
      seed: of the draws.

    Raises:
      ValueError: no examples, or not as many in both.
    """
    n = len(first_NS)
    if not n or n != len(second_NS):
        raise ValueError(f"{n} and {len(second_NS)} examples: expected as many in both, and some")
    first, second = (float(statistic(sums.sum(axis=0))) for sums in (first_NS, second_NS))
    drawn = np.array([statistic(w @ second_NS) - statistic(w @ first_NS) for w in draws(n, resamples, seed)])
    found = percentiles(second - first, drawn, n, "paired bootstrap over examples")
    if math.isnan(found.low):
        return Difference(first, second, math.nan, math.nan, math.nan, math.nan, n, found.method)
    defined = np.count_nonzero(~np.isnan(drawn))
    side = min((1 + (drawn <= 0).sum()), (1 + (drawn >= 0).sum())) / (defined + 1)
    p = min(1.0, 2 * float(side))
    return Difference(first, second, found.point, found.low, found.high, p, n, found.method)


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
      ValueError: one class only.
    """
    area_M, covariance_MM = delong_covariance(positive_N, np.stack([first_N, second_N]))
    difference = float(area_M[1] - area_M[0])
    error = math.sqrt(max(covariance_MM[0, 0] + covariance_MM[1, 1] - 2 * covariance_MM[0, 1], 0.0))
    half = NORMAL_QUANTILE * error
    p = float(2 * stats.norm.sf(abs(difference) / error)) if error else float(difference == 0)
    first, second = map(float, area_M)
    return Difference(first, second, difference, difference - half, difference + half, p, len(first_N), "DeLong")
