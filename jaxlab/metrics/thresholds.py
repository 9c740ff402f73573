"""Decisions at a threshold that the validation split chooses, and a table of what each threshold would give.

A threshold is a probability; an example is called positive if it has at least that. Reads the results of
`jaxlab.objectives.classify`. Shape letters: N examples, Q questions (1 of two classes, C of more classes or of labels),
K thresholds. Usage: ``config.metrics.tuned = spec("jaxlab.metrics.thresholds:f1_tuned")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit

from jaxlab.core.errors import DataError, UndefinedError
from jaxlab.core.types import DataSpec, Table, TableMetric, Weighted
from jaxlab.metrics.curves import passed
from jaxlab.metrics.scores import questions


def f1_tuned(data: DataSpec) -> TableMetric:
    """Return ``f1``, ``precision`` and ``recall`` at the threshold of the highest F1 on the validation split.

    Of two classes those of the second. More classes, or labels, have a threshold each, a
    class against the rest; the numbers are means over those that occur among targets or decisions, where one that is
    never decided for has precision 0 and one that is never there recall 0, as in
    `jaxlab.metrics.classify:precision_recall_f1`. On the validation split itself they are too optimistic.

    The threshold itself is what it has ``tuned``. Undefined without one, and for two classes where nothing is positive
    or nothing reaches it.
    """

    def tune(table: Table) -> Mapping[str, Any]:
        positive_NQ, score_NQ, names = questions(table, data)
        found = []
        for name, positive_N, score_N in zip(names, positive_NQ.T, expit(score_NQ).T, strict=True):
            try:
                found.append(best_threshold(positive_N, score_N))
            except UndefinedError as error:
                raise UndefinedError(f"no threshold: {error} of {name} in the validation split") from error
        return {"threshold": found if len(found) > 1 else found[0]}

    def prepare(table: Table, tuned: Mapping[str, Any]) -> Weighted:
        if "threshold" not in tuned:
            raise UndefinedError("no threshold: none was chosen on a validation split")
        positive_NQ, score_NQ, names = questions(table, data)
        threshold_Q = np.atleast_1d(np.asarray(tuned["threshold"], np.float64))
        if len(threshold_Q) != len(names):
            raise DataError(f"{len(threshold_Q)} thresholds from the validation split for {len(names)} questions")
        if np.isnan(score_NQ).any():
            raise UndefinedError("a score is nan, which is on neither side of a threshold")
        decided_NQ = expit(score_NQ) >= threshold_Q
        rows = np.concatenate([positive_NQ & decided_NQ, decided_NQ, positive_NQ], axis=1)
        counts = sparse.csr_array(rows.T).astype(np.float64)

        def weighted(weights_N: np.ndarray) -> Mapping[str, float]:
            right_Q, decided_Q, there_Q = np.split(counts @ np.asarray(weights_N, np.float64), 3)
            if len(names) > 1:
                return _means(right_Q, decided_Q, there_Q)
            return _of_one(right_Q[0], decided_Q[0], there_Q[0])

        return weighted

    return TableMetric(("logits", "target"), prepare, tune)


def best_threshold(positive_N: np.ndarray, score_N: np.ndarray) -> float:
    """Return the score from which on calling examples positive gives the highest F1, the highest of several.

    Raises:
      UndefinedError: there is no positive example, or a score is nan.
    """
    true_K, false_K, threshold_K = passed(positive_N, score_N)
    if not len(true_K) or not true_K[-1]:
        raise UndefinedError("there is no positive example")
    return float(threshold_K[np.argmax(true_K / (true_K + false_K + true_K[-1]))])


def threshold_table(positive_N: np.ndarray, score_N: np.ndarray, most: int = 1000) -> dict[str, np.ndarray]:
    """Return what each threshold gives, a column [K] each, by falling threshold.

    Columns: ``threshold``, the counts ``true_positives``, ``false_positives``, ``false_negatives`` and
    ``true_negatives``, ``share_positive`` of the examples that reach it, ``precision``, ``recall`` (nan where nothing
    is positive) and ``f1``.

    Args:
      positive_N: which examples are positive.
      score_N: of any scale.
      most: of more distinct scores as many are kept that split the examples most evenly, and the best F1's.

    Raises:
      UndefinedError: no example, or a score is nan.
      ValueError: `most` is below 2.
    """
    if most < 2:
        raise ValueError(f"most={most}; expected at least 2 thresholds")
    true_K, false_K, threshold_K = passed(positive_N, score_N)
    if not len(true_K):
        raise UndefinedError("there is no example")
    positives, negatives, n = true_K[-1], false_K[-1], true_K[-1] + false_K[-1]
    f1_K = 2 * true_K / (true_K + false_K + positives)
    if len(true_K) > most:
        even = np.searchsorted(true_K + false_K, np.linspace(1, n, most - 1))
        kept_K = np.unique(np.append(even, np.argmax(f1_K)))
        true_K, false_K, threshold_K, f1_K = (x[kept_K] for x in (true_K, false_K, threshold_K, f1_K))
    counts = {
        "true_positives": true_K, "false_positives": false_K, "false_negatives": positives - true_K,
        "true_negatives": negatives - false_K,
    }  # fmt: skip
    return {
        "threshold": threshold_K,
        **{name: count_K.astype(np.int64) for name, count_K in counts.items()},
        "share_positive": (true_K + false_K) / n,
        "precision": true_K / (true_K + false_K),
        "recall": true_K / positives if positives else np.full(len(true_K), np.nan),
        "f1": f1_K,
    }


def _of_one(right: float, decided: float, there: float) -> dict[str, float]:
    if not there:
        raise UndefinedError("there is no positive example")
    if not decided:
        raise UndefinedError("no example reaches the threshold, so that precision is divided by nothing")
    return {"f1": float(2 * right / (decided + there)), "precision": float(right / decided),
            "recall": float(right / there)}  # fmt: skip


def _means(right_Q: np.ndarray, decided_Q: np.ndarray, there_Q: np.ndarray) -> dict[str, float]:
    occurs_Q = decided_Q + there_Q > 0
    if not occurs_Q.any():
        raise UndefinedError("nothing is positive, and nothing reaches its threshold")
    parts = {"f1": (2 * right_Q, decided_Q + there_Q), "precision": (right_Q, decided_Q), "recall": (right_Q, there_Q)}
    shares = {name: np.divide(over, under, out=np.zeros_like(over), where=under > 0) for name, (over, under) in
              parts.items()}  # fmt: skip
    return {name: float(share_Q[occurs_Q].mean()) for name, share_Q in shares.items()}
