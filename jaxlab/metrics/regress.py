"""Additive metrics of numbers, exact for any batch size and number of devices: means over all numbers that are there.

Each reads ``prediction``, ``target`` and ``target_weight`` [B, ...] of `jaxlab.objectives.regress`, those of quantiles
the model's ``quantiles`` [B, ..., Q]. Shape letters: B batch, Q quantiles.
Usage: ``config.metrics.r2 = spec("jaxlab.metrics.regress:r2")``.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Array, Batch, Metric, Outputs, PyTree
from jaxlab.metrics.sums import mean, quotient, weighted_sum

QUANTILES = (0.1, 0.5, 0.9)
_SMALLEST = float(np.finfo(np.float64).eps)  # what scikit-learn divides by where a target is 0
_SPREAD = 1e-6  # of the squares: less cannot be told from what float32 rounds off


def mse() -> Metric:
    """Return the mean squared error, in the target's units squared."""
    return Metric(_squares, mean)


def rmse() -> Metric:
    """Return the root of the mean squared error, in the target's units."""
    return Metric(_squares, lambda statistics: math.sqrt(mean(statistics)))


def mae() -> Metric:
    """Return the mean absolute error, in the target's units."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        return weighted_sum(jnp.abs(outputs["prediction"] - outputs["target"]), _weight(outputs, batch))

    return Metric(update, mean)


def mape() -> Metric:
    """Return the mean of |prediction - target| / |target|, as a share: 0.1 is 10 %.

    As in scikit-learn a target of 0 is divided by 2.2e-16, so that one such target makes the mean huge: where targets
    come near 0 take `smape`, or `jaxlab.metrics.forecast.mase`.
    """

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        prediction, target = outputs["prediction"], outputs["target"]
        relative = jnp.abs(prediction - target) / jnp.maximum(jnp.abs(target), _SMALLEST)
        return weighted_sum(relative, _weight(outputs, batch))

    return Metric(update, mean)


def smape() -> Metric:
    """Return the mean of 2 |prediction - target| / (|prediction| + |target|), from 0 to 2; 0 where both are 0.

    That of the M4 competition (Makridakis, Spiliotis & Assimakopoulos 2020, International Journal of Forecasting 36,
    54-74), which states it in percent.
    """

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        prediction, target = outputs["prediction"] / 2, outputs["target"] / 2  # the sum of two large ones is infinite
        size = jnp.abs(prediction) + jnp.abs(target)
        relative = jnp.where(size > 0, 2 * (jnp.abs(prediction - target) / jnp.where(size > 0, size, 1.0)), 0.0)
        return weighted_sum(jnp.where(jnp.isnan(prediction), jnp.nan, relative), _weight(outputs, batch))

    return Metric(update, mean)


def r2(centre: float = 0.0) -> Metric:
    """Return the coefficient of determination: 1 - squared errors / squared distances from the targets' mean.

    At most 1; 0 is as good as that mean, which is of the very targets that are measured. All numbers of a target count
    as of one quantity, so that scikit-learn's `r2_score` of the flattened arrays is the same.

    The mean is known only at the end, so the distances come from sums of y and y², y being a target less `centre`. In
    float32 those leave an error of about 1e-7 (1 + m² / s²) (1 - R²), m and s being the mean and the standard deviation
    of y: small unless the targets lie many deviations away from the centre. Where s is below m / 1000, as for targets
    that are all the same, there is no number (nan).

    Args:
      centre: a number near the targets' mean, in their units.
    """

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        weight, away = _weight(outputs, batch), outputs["target"] - centre
        squares = weighted_sum(jnp.square(away), weight)
        return {"error": _squares(outputs, batch)["sum"], "target": weighted_sum(away, weight), "squares": squares}

    def compute(statistics: PyTree) -> float:
        mean_of_squares, middle = mean(statistics["squares"]), mean(statistics["target"])
        variance = mean_of_squares - middle**2
        if not variance > _SPREAD * mean_of_squares:
            return math.nan
        return 1 - quotient(statistics["error"], statistics["squares"]["weight"]) / variance

    return Metric(update, compute)


def pinball(quantiles: tuple[float, ...] = QUANTILES, output: str = "quantiles") -> Metric:
    """Return the mean pinball loss of the model's quantiles, in the target's units; scikit-learn's, meant over them.

    For a quantile q, a target above it costs q times the difference and one below it (1 - q) times (Koenker & Bassett
    1978, Econometrica 46).

    Args:
      quantiles: the Q shares that the model predicts, in its order.
      output: its result [B, ..., Q]; where there is none, ``prediction`` is taken for the only quantile.

    Raises:
      ConfigError: shares that are not between 0 and 1, or when it is first called, other than Q in the result.
    """
    q_Q = _shares("pinball", quantiles)

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        above = outputs["target"][..., None] - _quantiles("pinball", outputs, output, len(q_Q))
        loss = jnp.maximum(q_Q * above, (q_Q - 1) * above).mean(axis=-1)
        return weighted_sum(loss, _weight(outputs, batch))

    return Metric(update, mean)


def coverage(
    low: float = 0.1, high: float = 0.9, quantiles: tuple[float, ...] = QUANTILES, output: str = "quantiles"
) -> Metric:
    """Return the share of targets from the model's quantile `low` to its quantile `high`; calibrated is high - low.

    Args:
      low: one of the `quantiles`.
      high: another, above it.
      quantiles: the Q shares that the model predicts, in its order.
      output: its result [B, ..., Q].

    Raises:
      ConfigError: shares that are not between 0 and 1 or not predicted, or when it is first called, other than Q.
    """
    count = len(_shares("coverage", quantiles))
    for name, value in (("low", low), ("high", high)):
        if value not in quantiles:
            raise ConfigError(
                f"config.metrics: coverage with {name}={value!r}: not among quantiles={tuple(quantiles)}"
                f"{did_you_mean(str(value), map(str, quantiles))}"
            )
    if not low < high:
        raise ConfigError(f"config.metrics: coverage with low={low!r}, high={high!r}: expected the lower one first")
    first, last = quantiles.index(low), quantiles.index(high)

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        found, target = _quantiles("coverage", outputs, output, count), outputs["target"]
        inside = (target >= found[..., first]) & (target <= found[..., last])
        return weighted_sum(inside.astype(jnp.float32), _weight(outputs, batch))

    return Metric(update, mean)


def _shares(name: str, quantiles: tuple[float, ...]) -> np.ndarray:
    """Return the quantiles [Q] float32; a ConfigError unless there are some, all between 0 and 1."""
    if not quantiles or not all(0 < q < 1 for q in quantiles):
        raise ConfigError(f"config.metrics: {name} with quantiles={quantiles!r}; expected numbers between 0 and 1")
    return np.asarray(quantiles, np.float32)


def _quantiles(name: str, outputs: Outputs, output: str, count: int) -> Array:
    """Return the model's quantiles [B, ..., Q]; a ConfigError where there are not `count`."""
    found = outputs[output] if output in outputs else outputs["prediction"][..., None]
    expected = (*outputs["target"].shape, count)
    if found.shape != expected:
        what = output if output in outputs else f"{output} (there is none, so prediction is read)"
        raise ConfigError(
            f"config.metrics: {name} reads the model's {what}, of shape {found.shape}; expected {expected} for "
            f"{count} quantiles"
        )
    return found


def _squares(outputs: Outputs, batch: Batch) -> PyTree:
    return weighted_sum(jnp.square(outputs["prediction"] - outputs["target"]), _weight(outputs, batch))


def _weight(outputs: Outputs, batch: Batch) -> Array:
    """Return weights [B, ...], 0 in padded rows whatever they hold."""
    weight = outputs["target_weight"]
    mask = batch["mask"].reshape(-1, *(1,) * (weight.ndim - 1))
    return jnp.where(mask > 0, weight * mask, 0.0)
