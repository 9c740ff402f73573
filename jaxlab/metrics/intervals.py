"""How far off a measured number may be: intervals at 95 % by the bootstrap, Wilson and DeLong.

A resample is told by how often each example counts in it, so that whatever a number is made of, sums or sorted scores,
is computed once for all. Shape letters: N examples, S sums, P positives, Q negatives, M models.
Usage: ``bootstrap([of_sums(sums_NS, lambda sums_S: sums_S[0] / sums_S[1])], examples(len(sums_NS)))[""]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxlab.core.errors import UndefinedError
from jaxlab.core.types import Interval

LEVEL = 0.95
RESAMPLES = 1000
NORMAL_QUANTILE = float(stats.norm.ppf((1 + LEVEL) / 2))
_FEWEST_BLOCKS = 4  # in a series that is too short for the blocks that it asks for
Numbers = Callable[[np.ndarray], Mapping[str, float]]
"""From how often each example counts [N] to numbers by name."""


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


class Resampling(NamedTuple):
    """How a sample is drawn anew: which examples come and go together."""

    units: int  # that are independent
    method: str
    draw: Callable[[np.random.Generator], np.ndarray]  # how often each example is in one resample [N]
    widening: float = 1.0  # factor of the distances of the percentiles from the number


def examples(n: int) -> Resampling:
    """Return the resampling of `n` independent examples (Efron 1979, Ann. Stat. 7, 1-26).

    Raises:
      ValueError: no examples.
    """
    return Resampling(_some(n), "bootstrap over examples", lambda generator: _counts(generator, n, n))


def groups(groups_N: np.ndarray) -> Resampling:
    """Return the resampling of whole groups, whose examples are not independent; `groups_N` are their names.

    Raises:
      ValueError: no examples.
    """
    names, place_N = np.unique(groups_N, return_inverse=True)
    count = _some(len(names))
    return Resampling(count, "bootstrap over groups", lambda generator: _counts(generator, count, count)[place_N])


def blocks(n: int, length: int, persistence: float = 0.0) -> Resampling:
    """Return the resampling of `n` examples in the order of time, of which runs of neighbours are drawn, round the end.

    The circular block bootstrap (Politis & Romano 1992). Its variance is too small by about `persistence` / `length`,
    see `memory`, as blocks cut neighbours apart (Künsch 1989, Ann. Stat. 17, theorem 3.3), and rests on few blocks; the
    interval is widened by both, the latter as Student's quantile stands to the normal one.

    Raises:
      ValueError: no examples.
    """
    length = max(1, min(length, _some(n) // _FEWEST_BLOCKS))
    count = -(-n // length)

    def draw(generator: np.random.Generator) -> np.ndarray:
        starts_N = _counts(generator, n, count)
        until = np.cumsum(np.concatenate([starts_N[n - length + 1 :], starts_N]))
        until = np.concatenate([[0.0], until])
        return (until[length:] - until[:-length]) * (n / (count * length))  # the last block's surplus

    few = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) / NORMAL_QUANTILE if count > 1 else 1.0
    lost = min(0.5, persistence / length)
    widening = few * math.sqrt(count / max(count - 1, 1)) / math.sqrt(1 - lost)
    return Resampling(count, f"bootstrap over blocks of {length}", draw, widening)


def series(sums_NS: np.ndarray, least: int = 1) -> Resampling:
    """Return the resampling of a series of what examples add to sums, by blocks as long as its memory asks for.

    The length is best for the variance of the mean if each value recalls the last: Politis & White 2004 (Econometric
    Reviews 23, 53-70), equation 9 with the corrected constant of Patton et al. 2009.

    Args:
      sums_NS: in the order of time.
      least: the shortest block, such as how many examples share a row.
    """
    persistence = memory(sums_NS)
    best = math.ceil((1.5 * persistence**2 * len(sums_NS)) ** (1 / 3))
    return blocks(len(sums_NS), max(best, least), persistence)


def memory(sums_NS: np.ndarray) -> float:
    """Return 2 r / (1 - r²) of the highest correlation r of a sum's neighbours, at most 0.97 and at least 0."""
    if len(sums_NS) < 2:
        return 0.0
    centred_NS = np.asarray(sums_NS, np.float64) - np.mean(sums_NS, axis=0)
    square_S = np.square(centred_NS).sum(axis=0)
    lagged_S = (centred_NS[1:] * centred_NS[:-1]).sum(axis=0)
    correlation = min(0.97, max(0.0, float(np.max(lagged_S / np.where(square_S > 0, square_S, np.inf)))))
    return 2 * correlation / (1 - correlation**2)


def bootstrap(
    several: Sequence[Numbers], resampling: Resampling, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return the percentile interval of each number, by name; all see the same resamples.

    Args:
      several: from how often each example counts [N] to numbers by name; names differ between them.
      resampling: which examples come and go together.
      resamples: how many.
      seed: of the draws.

    Raises:
      UndefinedError: one has no value on the sample itself; such resamples are counted and left out.
    """
    n = len(resampling.draw(np.random.default_rng(seed)))
    points = [numbers(np.ones(n)) for numbers in several]
    drawn = resampled(several, points, resampling, resamples, seed)
    every = {name: float(point) for found in points for name, point in found.items()}
    return {name: percentiles(point, drawn[name], resampling) for name, point in every.items()}


def resampled(
    several: Sequence[Numbers], points: Sequence[Mapping[str, float]], resampling: Resampling, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Return each number of each resample by its name; nan where it is undefined, whose names `points` tell."""
    drawn: dict[str, list[float]] = {name: [] for found in points for name in found}
    for weight_N in draws(resampling, resamples, seed):
        for numbers, found in zip(several, points, strict=True):
            again = _defined(numbers, weight_N, found)
            for name in found:
                drawn[name].append(again[name])
    return {name: np.array(values) for name, values in drawn.items()}


def draws(resampling: Resampling, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield for each resample how often each example is in it [N]."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield resampling.draw(generator)


def of_sums(sums_NS: np.ndarray, statistic: Callable[[np.ndarray], float]) -> Numbers:
    """Return the number that the sums [S] over examples amount to, as a function of how often each counts."""
    return lambda weight_N: {"": float(statistic(weight_N @ sums_NS))}


def _defined(numbers: Numbers, weight_N: np.ndarray, names: Mapping[str, float]) -> Mapping[str, float]:
    try:
        return numbers(weight_N)
    except UndefinedError:
        return dict.fromkeys(names, math.nan)


def _counts(generator: np.random.Generator, n: int, size: int) -> np.ndarray:
    return np.bincount(generator.integers(0, n, size), minlength=n).astype(np.float64)


def _some(n: int) -> int:
    if n < 1:
        raise ValueError("no examples to draw from")
    return n


def delong(positive_N: np.ndarray, score_N: np.ndarray) -> Interval:
    """Return the area under the ROC curve and its interval (DeLong et al. 1988, Biometrics 44, 837-845).

    Raises:
      UndefinedError: one class only.
    """
    area_M, covariance_MM = delong_covariance(positive_N, score_N[None])
    half = NORMAL_QUANTILE * math.sqrt(max(covariance_MM[0, 0], 0.0))
    area = float(area_M[0])
    return Interval(area, max(0.0, area - half), min(1.0, area + half), len(score_N), "DeLong")


def delong_covariance(positive_N: np.ndarray, scores_MN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the areas [M] of M models on the same examples and their covariance [M, M].

    By ranks, as in Sun & Xu 2014 (IEEE Signal Processing Letters 21, 1389-1393); ties count a half.

    Raises:
      UndefinedError: one class only.
    """
    positive_N = np.asarray(positive_N, bool)
    P, Q = int(positive_N.sum()), int((~positive_N).sum())
    if not P or not Q:
        raise UndefinedError(f"the area under the ROC curve of {P} positive and {Q} negative examples is undefined")
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


def percentiles(point: float, drawn: np.ndarray, resampling: Resampling) -> Interval:
    """Return the interval that resamples span; those without a value are left out and counted in the method."""
    defined = drawn[~np.isnan(drawn)]
    if math.isnan(point) or not len(defined):
        return Interval(point, math.nan, math.nan, resampling.units, "undefined")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = (point + resampling.widening * (float(bound) - point) for bound in (low, high))
    lost = len(drawn) - len(defined)
    method = resampling.method + (f", {lost} undefined" if lost else "")
    return Interval(point, low, high, resampling.units, method)
