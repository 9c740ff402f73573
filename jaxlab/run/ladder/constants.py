"""The lowest rung: the same answer for every row, the most frequent class or the mean.

Shape letters: N rows, C classes or labels. Usage: ``fits = rungs(problem)``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxlab.run.ladder.problem import (
    CLASSES,
    LABELS,
    NUMBERS,
    RANKS,
    TOKENS,
    Fit,
    Fitted,
    Problem,
    classified,
    labelled,
)
from jaxlab.run.ladder.rows import Rows


def rungs(problem: Problem) -> Mapping[str, Fit]:
    """Return the constant baseline of the problem's kind."""
    found: dict[str, dict[str, Fit]] = {
        CLASSES: {"majority": lambda: _majority(problem)},
        LABELS: {"majority": lambda: _rates(problem)},
        NUMBERS: {"mean": lambda: _mean(problem)},
        TOKENS: {},
        RANKS: {},
    }
    return found[problem.kind]


def mean_of(rows: Rows) -> np.ndarray:
    """Return the mean of the targets that are there, for each place of a target; 0 where there is none."""
    target, weight = (rows.answers[name].astype(np.float64) for name in ("target", "target_weight"))
    total = np.where(weight > 0, target * weight, 0).sum(axis=0)
    return np.asarray(total / np.maximum(weight.sum(axis=0), np.finfo(np.float64).tiny))


def _majority(problem: Problem) -> Fitted:
    count_C = np.bincount(problem.train.answers["target"], minlength=problem.shapes["logits"].shape[-1])
    share_C = count_C / count_C.sum()
    about = "always the most frequent class, with the classes' shares as probabilities"
    return Fitted(lambda rows: classified(np.tile(share_C, (len(rows), 1))), len(problem.train), about)


def _rates(problem: Problem) -> Fitted:
    rate_C = problem.train.answers["target"].astype(np.float64).mean(axis=0)
    about = "each label's share of the rows as its probability"
    return Fitted(lambda rows: labelled(np.tile(rate_C, (len(rows), 1))), len(problem.train), about)


def _mean(problem: Problem) -> Fitted:
    mean = mean_of(problem.train).astype(np.float32)
    about = "the mean of each number to predict"
    return Fitted(lambda rows: {"prediction": np.tile(mean, (len(rows), *[1] * mean.ndim))}, len(problem.train), about)
