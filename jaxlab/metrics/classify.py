"""Additive metrics of classification, exact for any batch size and number of devices.

Each reads the outputs of `jaxlab.objectives.classify`. Shape letters: B batch, C classes, K bins.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Array, Batch, Metric, Outputs, PyTree
from jaxlab.metrics.sums import mean, quotient, weighted_sum

_AVERAGES = ("macro", "weighted", "micro", "binary")


def accuracy() -> Metric:
    """Return the share of examples whose ``prediction`` is their ``target``; of several labels, where all are."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        same = outputs["prediction"] == outputs["target"]
        return weighted_sum(same.all(axis=tuple(range(1, same.ndim))).astype(jnp.float32), batch["mask"])

    return Metric(update, mean)


def cross_entropy() -> Metric:
    """Return the mean of -log p(target) in nats, without smoothing or class weights."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        log_BC = jax.nn.log_softmax(outputs["logits"])
        picked_B = jnp.take_along_axis(log_BC, outputs["target"][:, None], axis=-1)[:, 0]
        return weighted_sum(-picked_B, batch["mask"])

    return Metric(update, mean)


def top_k(k: int = 5) -> Metric:
    """Return the share of examples whose target is among the `k` classes of the highest logits; ties count for it.

    Raises:
      ConfigError: `k` is below 1.
    """
    if k < 1:
        raise ConfigError(f"config.metrics: top_k with k={k}; expected at least 1")

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        logits_BC = outputs["logits"]
        own_B1 = jnp.take_along_axis(logits_BC, outputs["target"][:, None], axis=-1)
        above_B = (logits_BC > own_B1).sum(axis=-1)
        return weighted_sum((above_B < k).astype(jnp.float32), batch["mask"])

    return Metric(update, mean)


def precision_recall_f1(average: str = "macro", positive: int = 1) -> Metric:
    """Return ``precision``, ``recall`` and ``f1`` of the predictions, as scikit-learn averages them.

    Targets and predictions are class indices [B], or labels [B, C], each 0 or 1 and counted as a class.

    Args:
      average: ``macro``, the mean over the classes that occur among targets or predictions; ``weighted``, by their
        number of targets; ``micro``, of all counts together; ``binary``, of the class `positive` alone, nan where it
        is divided by nothing. In a mean a class that is never predicted has precision 0, one never there recall 0.
      positive: the class of ``binary``.

    Raises:
      ConfigError: another average.
    """
    if average not in _AVERAGES:
        raise ConfigError(
            f"config.metrics: precision_recall_f1 with average={average!r}; expected one of {', '.join(_AVERAGES)}"
            f"{did_you_mean(average, _AVERAGES)}"
        )

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        classes = outputs["logits"].shape[-1]
        mask_B1 = batch["mask"][:, None]
        target_BC, prediction_BC = (
            jnp.where(mask_B1 > 0, _indicators(outputs[name], classes) * mask_B1, 0.0)
            for name in ("target", "prediction")
        )
        both_BC = jnp.where(prediction_BC > 0, target_BC, 0.0)
        return {"right": both_BC.sum(0), "targets": target_BC.sum(0), "predictions": prediction_BC.sum(0)}

    def compute(statistics: PyTree) -> Mapping[str, float]:
        right_C, targets_C, predictions_C = (
            np.asarray(statistics[name], np.float64) for name in ("right", "targets", "predictions")
        )
        counts = right_C, predictions_C, targets_C, targets_C + predictions_C
        if average == "micro":
            counts = tuple(count.sum(keepdims=True) for count in counts)
        if average == "binary":
            counts = tuple(count[positive : positive + 1] for count in counts)
        right, predicted, there, either = counts
        scores = {"precision": (right, predicted), "recall": (right, there), "f1": (2 * right, either)}
        if average in ("micro", "binary"):
            return {name: quotient(over[0], under[0]) for name, (over, under) in scores.items()}
        weight = there if average == "weighted" else (either > 0).astype(np.float64)
        return {
            name: quotient((weight * over / np.maximum(under, 1e-30)).sum(), weight.sum())
            for name, (over, under) in scores.items()
        }

    return Metric(update, compute)


def _indicators(values: Array, classes: int) -> Array:
    """Return 1 where an example is of a class, else 0 [B, C], from indices [B] or labels [B, C]."""
    return jax.nn.one_hot(values, classes) if values.ndim == 1 else (values > 0.5).astype(jnp.float32)


def brier() -> Metric:
    """Return the mean over examples of the squared distance of probabilities from the target, 0 to 2 (Brier 1950)."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        p_BC = jax.nn.softmax(outputs["logits"])
        distance_B = jnp.square(p_BC - jax.nn.one_hot(outputs["target"], p_BC.shape[-1])).sum(axis=-1)
        return weighted_sum(distance_B, batch["mask"])

    return Metric(update, mean)


def calibration_error(bins: int = 15) -> Metric:
    """Return how far confidence is from accuracy, the mean over examples by bins of equal width of confidence.

    The expected calibration error of Guo et al. 2017 (arXiv 1706.04599), equation 3. It is biased upwards where bins
    hold few examples, and so is the middle of its bootstrap interval.

    Raises:
      ConfigError: `bins` is below 1.
    """
    if bins < 1:
        raise ConfigError(f"config.metrics: calibration_error with bins={bins}; expected at least 1")

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        confidence_B = jax.nn.softmax(outputs["logits"]).max(axis=-1)
        right_B = outputs["prediction"] == outputs["target"]
        bin_B = jnp.clip(jnp.ceil(confidence_B * bins).astype(jnp.int32) - 1, 0, bins - 1)
        mask_B = batch["mask"]
        one_BK = jnp.where(mask_B[:, None] > 0, jax.nn.one_hot(bin_B, bins) * mask_B[:, None], 0.0)
        sure_B = jnp.where(mask_B > 0, confidence_B, 0.0)
        return {
            "confidence": sure_B @ one_BK,
            "right": right_B.astype(jnp.float32) @ one_BK,
            "weight": one_BK.sum(axis=0),
        }

    def compute(statistics: PyTree) -> float:
        confidence_K, right_K = (np.asarray(statistics[name], np.float64) for name in ("confidence", "right"))
        return quotient(np.abs(confidence_K - right_K).sum(), np.sum(statistics["weight"]))

    return Metric(update, compute)
