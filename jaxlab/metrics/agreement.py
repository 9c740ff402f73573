"""Agreement of predicted classes with targets beyond what chance gives: Matthews' correlation and Cohen's kappa.

Read ``target`` and ``prediction`` [N] of `jaxlab.objectives.classify:make`; all that is needed of the examples are the
counts of (target, prediction) pairs. Shape letters: N examples, C classes.
Usage: ``config.metrics.kappa = spec("jaxlab.metrics.agreement:cohen_kappa", weights="quadratic")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, UndefinedError, did_you_mean
from jaxlab.core.types import DataSpec, Table, TableMetric, Weighted

_WEIGHTS = ("none", "linear", "quadratic")
_READS = ("target", "prediction")


def matthews(data: DataSpec) -> TableMetric:
    """Return the correlation of predictions with targets, -1 to 1, 0 for any guess that looks at nothing.

    For two classes Matthews 1975, for more the R_K of Gorodkin 2004 (Comput. Biol. Chem. 28, 367-374), equation 9.
    Undefined, not 0, where all targets or all predictions are of one class.
    """

    def number(counts_CC: np.ndarray) -> float:
        total, target_C, prediction_C = counts_CC.sum(), counts_CC.sum(axis=1), counts_CC.sum(axis=0)
        for what, count_C in (("targets", target_C), ("predictions", prediction_C)):
            if np.count_nonzero(count_C) < 2:
                raise UndefinedError(f"all {what} are of one class")
        shared = np.trace(counts_CC) * total - target_C @ prediction_C
        spread = (total**2 - target_C @ target_C) * (total**2 - prediction_C @ prediction_C)
        return float(shared / np.sqrt(spread))

    return TableMetric(_READS, _prepare(len(data.classes), number))


def cohen_kappa(data: DataSpec, weights: str = "none") -> TableMetric:
    """Return Cohen's kappa: 1 for all right, 0 for as often right as by chance with the same frequencies.

    1 - observed / expected disagreement (Cohen 1968, Psychol. Bull. 70, 213-220).

    Args:
      data: its classes, in order where `weights` counts how far off a prediction is.
      weights: what a wrong prediction costs: ``none``, each the same; ``linear``, by how many classes it is off;
        ``quadratic``, by the square of that.

    Raises:
      ConfigError: other weights.
    """
    if weights not in _WEIGHTS:
        raise ConfigError(
            f"config.metrics: cohen_kappa with weights={weights!r}; expected one of {', '.join(_WEIGHTS)}"
            f"{did_you_mean(weights, _WEIGHTS)}"
        )
    off_CC = np.abs(np.subtract.outer(np.arange(len(data.classes)), np.arange(len(data.classes)))).astype(np.float64)
    cost_CC = {"none": np.minimum(off_CC, 1.0), "linear": off_CC, "quadratic": off_CC**2}[weights]

    def number(counts_CC: np.ndarray) -> float:
        chance_CC = np.outer(counts_CC.sum(axis=1), counts_CC.sum(axis=0)) / counts_CC.sum()
        expected = (cost_CC * chance_CC).sum()
        if not expected:
            raise UndefinedError("all targets and all predictions are of one class")
        return float(1 - (cost_CC * counts_CC).sum() / expected)

    return TableMetric(_READS, _prepare(len(data.classes), number))


def _prepare(classes: int, number: Callable[[np.ndarray], float]) -> Callable[[Table, Mapping[str, Any]], Weighted]:
    """Return what counts pairs once and gives the number of the counts [target, prediction] for any weights."""

    def prepare(table: Table, tuned: Mapping[str, Any]) -> Weighted:
        target_N, prediction_N = (_checked(name, table[name], classes) for name in _READS)
        pair_N = target_N * classes + prediction_N

        def weighted(weights_N: np.ndarray) -> float:
            counts = np.bincount(pair_N, weights_N, minlength=classes * classes)
            if not counts.any():
                raise UndefinedError("no example counts")
            return number(counts.reshape(classes, classes))

        return weighted

    return prepare


def _checked(name: str, values_N: np.ndarray, classes: int) -> np.ndarray:
    """Return class indices; a DataError where they are none."""
    values_N = np.asarray(values_N)
    if values_N.ndim != 1 or values_N.dtype.kind not in "iu":
        raise DataError(f"{name}: {values_N.dtype} {values_N.shape}; expected one class index an example")
    outside_N = (values_N < 0) | (values_N >= classes)
    if outside_N.any():
        raise DataError(f"{name}: the class {values_N[outside_N][0]}; expected 0 to {classes - 1}")
    return values_N.astype(np.intp)
