"""Curves over all thresholds of a score, and their areas: ROC and precision-recall, exact, ties included.

A `Ranking` is sorted once; what the examples' weights make of it costs one pass, so that resamples are cheap.
Knows scores and which examples are positive, nothing of models, classes or files.
Shape letters: N examples, R ranked (example, class) pairs, G groups of equal scores, K points of a curve.
Usage: ``roc_area(rank(positive_N, score_N).passed(weights_N))``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jaxlab.core.errors import UndefinedError

_STEP = 1 << 13  # ranked pairs at once: what is made of them stays in the cache, and no dot product wakes threads
Steps = Iterable[tuple[np.ndarray, np.ndarray]]
"""The weights of positive and of negative examples that score at least as high as each group: cumulative, by falling
score, in parts [1 + G] that each begin with the end of the part before."""


class Ranking(NamedTuple):
    """Examples by falling score, in parts of whole groups of equal scores."""

    rows: np.ndarray  # [R]: which example stands there
    kinds: np.ndarray  # [R], complex64: 1 for a positive example, 1j for a negative, so that one pass adds up both
    parts: tuple[tuple[int, int, np.ndarray | None], ...]  # from, until, and the last place in it of each group [G]

    def passed(self, weights_N: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield `Steps` for what the examples weigh; a group of weight 0 repeats the point before it."""
        weight_N = np.asarray(weights_N, np.float64)
        short_N = weight_N.astype(np.float32)
        if np.array_equal(short_N, weight_N):  # so for counts; half the memory is gathered faster
            weight_N = short_N
        passed = np.zeros(1, np.complex128)
        for start, stop, end_G in self.parts:
            until_R = np.cumsum(np.take(weight_N, self.rows[start:stop]) * self.kinds[start:stop], dtype=np.complex128)
            until_R += passed
            step_G = np.concatenate([passed, until_R if end_G is None else np.take(until_R, end_G)])
            passed = step_G[-1:]
            yield step_G.real, step_G.imag


def rank(positive_N: np.ndarray, score_N: np.ndarray) -> Ranking:
    """Return the ranking of scores; matrices [N, C] are ranked as N C pairs, each weighted as its example.

    Raises:
      UndefinedError: a score is nan.
    """
    score_N, positive_N = np.asarray(score_N), np.asarray(positive_N, bool)
    width = score_N.shape[1] if score_N.ndim == 2 else 1
    score_R = score_N.reshape(-1)
    if np.isnan(score_R).any():
        raise UndefinedError(f"{np.isnan(score_R).sum()} of {len(score_R)} scores are nan, which has no rank")
    order_R = np.argsort(score_R)[::-1].copy()
    ranked_R = score_R[order_R]
    end_G = np.flatnonzero(np.append(ranked_R[1:] != ranked_R[:-1], np.ones(min(1, len(ranked_R)), bool)))
    kind_R = np.where(positive_N.reshape(-1)[order_R], 1, 1j).astype(np.complex64)
    return Ranking(order_R // width if width > 1 else order_R, kind_R, tuple(_parts(end_G)))


def _parts(end_G: np.ndarray) -> Iterator[tuple[int, int, np.ndarray | None]]:
    """Yield the parts of a ranking from the last places of its groups; None for the places where all scores differ."""
    start = first = 0
    while first < len(end_G):
        last = max(int(np.searchsorted(end_G, start + _STEP)), first + 1)
        stop = int(end_G[last - 1]) + 1
        all_differ = last - first == stop - start
        yield start, stop, None if all_differ else end_G[first:last] - start
        start, first = stop, last


def roc_area(steps: Steps) -> float:
    """Return the area under the ROC curve; equal scores count a half.

    Args:
      steps: of `Ranking.passed`.

    Raises:
      UndefinedError: no positive or no negative example counts.
    """
    beaten = positives = negatives = 0.0
    for true_G, false_G in steps:
        # trapezoids: of the negatives a step up the curve loses to those before it, and to half of those beside it
        beaten += np.dot(np.diff(true_G), false_G[1:] + false_G[:-1])
        positives, negatives = true_G[-1], false_G[-1]
    _check_two(positives, negatives)
    return float(1 - beaten / (2 * positives * negatives))


def average_precision(steps: Steps) -> float:
    """Return the mean of precision at each positive example, a step sum without interpolation.

    Args:
      steps: of `Ranking.passed`.

    Raises:
      UndefinedError: no positive example counts.
    """
    total = positives = 0.0
    for true_G, false_G in steps:
        first = max(1, int(np.searchsorted(true_G, 0.0, side="right")))  # before it there may be nothing to divide by
        precision_G = true_G[first:] / (true_G[first:] + false_G[first:])
        total += np.dot(np.diff(true_G[first - 1 :]), precision_G)
        positives = true_G[-1]
    if not positives:
        raise UndefinedError("there is no positive example")
    return float(total / positives)


class Roc(NamedTuple):
    """The points [K] of a ROC curve by falling threshold: at infinity none is called positive, at the last all are."""

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    threshold: np.ndarray


class PrecisionRecall(NamedTuple):
    """The points [K] of a precision-recall curve by falling threshold; at infinity precision is 1 by convention."""

    precision: np.ndarray
    recall: np.ndarray
    threshold: np.ndarray


class Passed(NamedTuple):
    """The weights [K] of positive and of negative examples that reach each distinct score, by falling score."""

    true: np.ndarray
    false: np.ndarray
    threshold: np.ndarray


def passed(positive_N: np.ndarray, score_N: np.ndarray, weight_N: np.ndarray | None = None) -> Passed:
    """Return what reaches each distinct score; an example of weight 0 is as absent.

    Raises:
      UndefinedError: a score is nan.
    """
    positive_N, score_N = np.asarray(positive_N, bool), np.asarray(score_N)
    weight_N = np.ones(len(score_N)) if weight_N is None else np.asarray(weight_N, np.float64)
    there_N = weight_N > 0
    score_N = score_N[there_N]
    ranking = rank(positive_N[there_N], score_N)
    steps = [(true_G[1:], false_G[1:]) for true_G, false_G in ranking.passed(weight_N[there_N])]
    true_K, false_K = (
        np.concatenate([np.zeros(0), *parts]) for parts in (zip(*steps, strict=True) if steps else ((), ()))
    )
    return Passed(true_K, false_K, np.unique(score_N)[::-1])


def roc(positive_N: np.ndarray, score_N: np.ndarray, weight_N: np.ndarray | None = None) -> Roc:
    """Return the whole ROC curve, a point at each distinct score.

    Raises:
      UndefinedError: no positive or no negative example counts, or a score is nan.
    """
    true_K, false_K, threshold_K = passed(positive_N, score_N, weight_N)
    positives, negatives = _totals(true_K, false_K)
    _check_two(positives, negatives)
    return Roc(np.r_[0, false_K / negatives], np.r_[0, true_K / positives], np.r_[np.inf, threshold_K])


def precision_recall(
    positive_N: np.ndarray, score_N: np.ndarray, weight_N: np.ndarray | None = None
) -> PrecisionRecall:
    """Return the whole precision-recall curve, a point at each distinct score.

    Raises:
      UndefinedError: no positive example counts, or a score is nan.
    """
    true_K, false_K, threshold_K = passed(positive_N, score_N, weight_N)
    positives, _ = _totals(true_K, false_K)
    if not positives:
        raise UndefinedError("there is no positive example")
    precision_K = true_K / (true_K + false_K)
    return PrecisionRecall(np.r_[1, precision_K], np.r_[0, true_K / positives], np.r_[np.inf, threshold_K])


def _totals(true_K: np.ndarray, false_K: np.ndarray) -> tuple[float, float]:
    """Return the weights of all positive and of all negative examples."""
    return (float(true_K[-1]), float(false_K[-1])) if len(true_K) else (0.0, 0.0)


def _check_two(positives: float, negatives: float) -> None:
    if not positives or not negatives:
        raise UndefinedError(f"there is no {'negative' if positives else 'positive'} example")
