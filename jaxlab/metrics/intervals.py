"""How far off a measured number may be: intervals at 95 % by the bootstrap, Wilson and DeLong.

Shape letters: N examples, G groups, S sums, P positives, Q negatives.
Usage: ``bootstrap(sums_NS, lambda sums_S: sums_S[0] / sums_S[1])``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from scipy import stats

from jaxlab.core.types import Interval

LEVEL = 0.95
RESAMPLES = 1000
NORMAL_QUANTILE = float(stats.norm.ppf((1 + LEVEL) / 2))
Statistic = Callable[[np.ndarray], float]


def wilson(successes: float, n: int) -> Interval:
    """Return the interval of a share of `n` examples (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212).

    Unlike the bootstrap it has a width where all or none succeed.

    Raises:
      ValueError: no examples.
    """
    if n <= 0:
        raise ValueError("a share of no examples is undefined")
    z = NORMAL_QUANTILE
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return Interval(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)), n, "Wilson")


def bootstrap(
    sums_NS: np.ndarray,
    statistic: Statistic,
    groups_N: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the percentile interval of what sums over examples amount to (Efron 1979, Ann. Stat. 7, 1-26).

    Args:
      sums_NS: what each example adds to each sum, its weight among them where there is one.
      statistic: the number, from the sums [S].
      groups_N: examples of one group come and go together, as they are not independent; None where all are.
      resamples: how often as many units are drawn with replacement.
      seed: of the draws.

    Raises:
      ValueError: no examples.
    """
    return bootstrap_each(sums_NS, lambda sums_S: {"": statistic(sums_S)}, groups_N, resamples, seed)[""]


def bootstrap_each(
    sums_NS: np.ndarray,
    statistics: Callable[[np.ndarray], Mapping[str, float]],
    groups_N: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return what `bootstrap` does for each of the numbers, by name, from the same draws."""
    units_GS, method = np.asarray(sums_NS, np.float64), "bootstrap over examples"
    if groups_N is not None:
        units_GS, method = group_sums(units_GS, groups_N), "bootstrap over groups"
    n = len(units_GS)
    if not n:
        raise ValueError("no examples to draw from")
    points = statistics(units_GS.sum(axis=0))
    drawn = [statistics(weight_G @ units_GS) for weight_G in draws(n, resamples, seed)]
    return {
        name: percentiles(float(point), np.array([numbers[name] for numbers in drawn]), n, method)
        for name, point in points.items()
    }


def block_bootstrap(sums_NS: np.ndarray, statistic: Statistic, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the interval for a series, whose neighbours are alike: runs of neighbours are drawn, around the end.

    The circular block bootstrap (Politis & Romano 1992). The more a value depends on the one before, the longer the
    blocks, see `block_length`; where that is strong, intervals remain somewhat too narrow.
    """
    sums_NS = np.asarray(sums_NS, np.float64)
    n = len(sums_NS)
    if not n:
        raise ValueError("no examples to draw from")
    length = block_length(sums_NS)
    count = -(-n // length)
    around = np.concatenate([sums_NS, sums_NS[: length - 1]])
    until = np.concatenate([np.zeros_like(around[:1]), np.cumsum(around, axis=0)])
    blocks_NS = until[length:] - until[:-length]
    scale = n / (count * length)  # the last block's surplus
    drawn = np.array([statistic(scale * (weight @ blocks_NS)) for weight in draws(n, resamples, seed, count)])
    return percentiles(float(statistic(sums_NS.sum(axis=0))), drawn, n, f"bootstrap over blocks of {length}")


def block_length(sums_NS: np.ndarray) -> int:
    """Return the length of blocks for a series: best for the variance of its mean if each value recalls the last.

    Politis & White 2004 (Econometric Reviews 23, 53-70), equation 9 with the corrected constant of Patton et al. 2009,
    for an autoregression of order 1 whose correlation is estimated, the highest of all sums'.
    """
    n = len(sums_NS)
    centred_NS = sums_NS - sums_NS.mean(axis=0)
    square_S = np.square(centred_NS).sum(axis=0)
    lagged_S = (centred_NS[1:] * centred_NS[:-1]).sum(axis=0)
    correlation = min(0.97, float(np.max(np.abs(lagged_S) / np.where(square_S > 0, square_S, np.inf))))
    ratio = 2 * correlation / (1 - correlation**2)
    return max(1, min(n, math.ceil((1.5 * ratio**2 * n) ** (1 / 3))))


def group_sums(sums_NS: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """Return the sums of each group [G, S]."""
    _, place_N = np.unique(groups_N, return_inverse=True)
    result = np.zeros((place_N.max() + 1 if len(place_N) else 0, sums_NS.shape[1]))
    np.add.at(result, place_N, sums_NS)
    return result


def draws(n: int, resamples: int, seed: int, size: int | None = None) -> Iterator[np.ndarray]:
    """Yield for each resample how often each of `n` units was drawn."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, n, n if size is None else size), minlength=n).astype(np.float64)


def delong(positive_N: np.ndarray, score_N: np.ndarray) -> Interval:
    """Return the area under the ROC curve and its interval (DeLong et al. 1988, Biometrics 44, 837-845).

    Raises:
      ValueError: one class only, for which the area is undefined.
    """
    area_M, covariance_MM = delong_covariance(positive_N, score_N[None])
    half = NORMAL_QUANTILE * math.sqrt(max(covariance_MM[0, 0], 0.0))
    area = float(area_M[0])
    return Interval(area, max(0.0, area - half), min(1.0, area + half), len(score_N), "DeLong")


def delong_covariance(positive_N: np.ndarray, scores_MN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the areas [M] of M models on the same examples and their covariance [M, M].

    By ranks, as in Sun & Xu 2014 (IEEE Signal Processing Letters 21, 1389-1393); ties count a half.

    Raises:
      ValueError: one class only.
    """
    positive_N = np.asarray(positive_N, bool)
    P, Q = int(positive_N.sum()), int((~positive_N).sum())
    if not P or not Q:
        raise ValueError(f"the area under the ROC curve of {P} positive and {Q} negative examples is undefined")
    area, above_P, below_Q = [], [], []
    for score_N in np.asarray(scores_MN, np.float64):
        rank_N = stats.rankdata(score_N)
        beaten_P = (rank_N[positive_N] - stats.rankdata(score_N[positive_N])) / Q
        above_P.append(beaten_P)
        below_Q.append(1 - (rank_N[~positive_N] - stats.rankdata(score_N[~positive_N])) / P)
        area.append(beaten_P.mean())
    return np.array(area), _covariance(above_P) / P + _covariance(below_Q) / Q


def _covariance(rows: list[np.ndarray]) -> np.ndarray:
    """Return the covariance of rows, 0 where one example says nothing of it."""
    return np.atleast_2d(np.cov(rows, ddof=1)) if len(rows[0]) > 1 else np.zeros((len(rows), len(rows)))


def percentiles(point: float, drawn: np.ndarray, n: int, method: str) -> Interval:
    """Return the interval that resamples span; those without a value are left out and counted in `method`."""
    defined = drawn[~np.isnan(drawn)]
    if math.isnan(point) or not len(defined):
        return Interval(point, math.nan, math.nan, n, "undefined")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    lost = len(drawn) - len(defined)
    return Interval(point, float(low), float(high), n, method + (f", {lost} undefined" if lost else ""))
