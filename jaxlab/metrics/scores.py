"""Exact areas under the ROC and precision-recall curves, from the prediction store: binary, of classes, of labels.

Reads the results of `jaxlab.objectives.classify`. Two classes are one question, whether it is the second; more are as
many, each class against the rest; labels [N, C] are C questions. Shape letters: N examples, C classes or labels,
Q questions. Usage: ``config.metrics.roc_auc = spec("jaxlab.metrics.scores:roc_auc")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from jaxlab.core.errors import ConfigError, UndefinedError, did_you_mean
from jaxlab.core.types import DataSpec, Interval, Table, TableMetric, Weighted
from jaxlab.metrics import curves
from jaxlab.metrics.intervals import delong

_AVERAGES = ("macro", "weighted", "micro")
_READS = ("logits", "target")


class Questions(NamedTuple):
    """Yes-or-no questions about each example: whether it is so, and how much the model thinks so."""

    positive: np.ndarray  # [N, Q]
    score: np.ndarray  # [N, Q]: log-odds
    names: tuple[str, ...]  # "class 'cat'" or "label 'red'"


def roc_auc(data: DataSpec, average: str = "macro") -> TableMetric:
    """Return the area under the ROC curve, how often a positive example scores above a negative; ties count a half.

    The score is a class's log-odds, which rank as its probability does, also where that rounds to 0 or 1. The interval
    of two classes is DeLong's.

    Args:
      data: names the classes.
      average: over classes or labels: ``macro``, their mean; ``weighted``, by their number of positive examples;
        ``micro``, the area of all (example, class) pairs together. Of no effect on two classes.

    Raises:
      ConfigError: another average.
    """
    _check_average("roc_auc", average)

    def interval(table: Table) -> Interval:
        if not _is_binary(table):
            raise UndefinedError("DeLong's interval is that of two classes")
        found = questions(table, data)
        if np.isnan(found.score).any():
            raise UndefinedError("a score is nan")
        return delong(found.positive[:, 0], found.score[:, 0])

    return TableMetric(_READS, _prepare(data, average, curves.roc_area), interval=interval)


def average_precision(data: DataSpec, average: str = "macro") -> TableMetric:
    """Return the average precision: precision at each positive example by falling score, the mean of all.

    A step sum, not trapezoids, which are too optimistic (Davis & Goadrich 2006, ICML).

    Args:
      data: names the classes.
      average: as of `roc_auc`.

    Raises:
      ConfigError: another average.
    """
    _check_average("average_precision", average)
    return TableMetric(_READS, _prepare(data, average, curves.average_precision))


def questions(table: Table, data: DataSpec) -> Questions:
    """Return what `table` asks: of two classes one question, of more as many, and of labels [N, C] C."""
    target, logits_NC = np.asarray(table["target"]), np.asarray(table["logits"])
    kind = "label" if target.ndim == 2 else "class"
    known = tuple(data.meta["classes"]) if "classes" in data.meta else ()
    given = known if len(known) == logits_NC.shape[1] else range(logits_NC.shape[1])
    names = tuple(f"{kind} {name!r}" for name in given)
    if target.ndim == 2:
        return Questions(target > 0.5, logits_NC.astype(np.float64), names)
    if _is_binary(table):
        first_N, second_N = logits_NC.astype(np.float64).T
        with np.errstate(invalid="ignore"):  # two infinite logits: nan, which no curve takes
            return Questions((target == 1)[:, None], (second_N - first_N)[:, None], names[1:])
    return Questions(target[:, None] == np.arange(logits_NC.shape[1]), log_odds(logits_NC), names)


def log_odds(logits_NC: np.ndarray) -> np.ndarray:
    """Return the log of p / (1 - p) of each class [N, C], for which no sure probability is rounded to 1."""
    logits_NC = np.asarray(logits_NC, np.float64)
    top_N1 = logits_NC.argmax(axis=1)[:, None]
    rest_NC = logits_NC.copy()
    np.put_along_axis(rest_NC, top_N1, -np.inf, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ahead_N1 = np.take_along_axis(logits_NC, top_N1, axis=1) - logsumexp(rest_NC, axis=1, keepdims=True)
        # the others' probability is at most a half, so that nothing cancels in 1 - p
        log_NC = rest_NC - np.logaddexp(0.0, -ahead_N1) - np.take_along_axis(logits_NC, top_N1, axis=1)
        odds_NC = log_NC - np.log1p(-np.minimum(np.exp(log_NC), 0.5))
    np.put_along_axis(odds_NC, top_N1, ahead_N1, axis=1)
    return odds_NC


def _is_binary(table: Table) -> bool:
    return np.ndim(table["target"]) == 1 and np.shape(table["logits"])[1] == 2


def _check_average(name: str, average: str) -> None:
    if average not in _AVERAGES:
        raise ConfigError(
            f"config.metrics: {name} with average={average!r}; expected one of {', '.join(_AVERAGES)}"
            f"{did_you_mean(average, _AVERAGES)}"
        )


def _prepare(
    data: DataSpec, average: str, area: Callable[[curves.Steps], float]
) -> Callable[[Table, Mapping[str, Any]], Weighted]:
    """Return what sorts the scores and gives the mean of the areas for any weights."""

    def prepare(table: Table, tuned: Mapping[str, Any]) -> Weighted:
        positive_NQ, score_NQ, names = questions(table, data)
        if average == "micro":
            ranking = curves.rank(positive_NQ, score_NQ)
            return lambda weights_N: area(ranking.passed(weights_N))
        rankings = [curves.rank(positive_NQ[:, q], score_NQ[:, q]) for q in range(len(names))]

        def weighted(weights_N: np.ndarray) -> float:
            share_Q = weights_N @ positive_NQ if average == "weighted" else np.ones(len(names))
            areas = []
            for name, ranking, share in zip(names, rankings, share_Q, strict=True):
                try:
                    areas.append(area(ranking.passed(weights_N)) if share else 0.0)
                except UndefinedError as error:
                    raise UndefinedError(f"{error} of {name}") from error
            if not share_Q.any():
                raise UndefinedError("there is no positive example")
            return float(np.average(areas, weights=share_Q))

        return weighted

    return prepare
