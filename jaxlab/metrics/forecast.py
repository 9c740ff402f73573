"""Additive metrics of forecasts beside the naive one, exact for any batch size and number of devices.

The seasonal naive forecast repeats the last season of the window's past. Each metric reads ``prediction``, ``target``
and ``target_weight`` [B, H, T] of `jaxlab.objectives.regress` and the batch's field of the past, whose numbers have to
be in the target's units. Knows windows by their fields and by two facts, the names of ``inputs`` and ``targets``.
Shape letters: B windows, L rows of past, H rows of horizon, F input and T target columns, S rows of a season.
Usage: ``config.metrics.mase = spec("jaxlab.metrics.forecast:mase", season=24)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Array, Batch, DataSpec, Metric, Outputs, PyTree
from jaxlab.metrics.sums import mean, quotient, weighted_sum

_ERRORS: dict[str, Callable[[Array], Array]] = {"mae": jnp.abs, "mse": jnp.square, "rmse": jnp.square}


def mase(data: DataSpec, season: int = 1, past: str = "past", target: str = "target") -> Metric:
    """Return the mean absolute scaled error (Hyndman & Koehler 2006, International Journal of Forecasting 22, 679-688).

    The mean over all numbers to predict of |error| over their own scale: the mean absolute error, within the window's
    past and of the same column, of taking the value `season` rows before. That scale is as in the M4 competition
    (Makridakis et al. 2020, ibid. 36, 54-74), whose past is the whole series where a window's is L rows. Below 1 is
    better than the naive forecast of one season within the past. Where the past repeats itself exactly there is no
    scale: such a column of such a window takes no part.

    Args:
      data: windows, as `jaxlab.data.windows` makes them.
      season: S rows; 1 compares with the last value.
      past: the field of the past [B, L, F].
      target: the field to predict [B, H, T].

    Raises:
      ConfigError: data that is no windows, a past without the targets or of no more rows than a season.
    """
    column_T = _columns("mase", data, past, target, season, season + 1)

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        past_BLT = batch[past][:, :, column_T]
        scale_B1T = jnp.abs(past_BLT[:, season:] - past_BLT[:, :-season]).mean(axis=1, keepdims=True)
        there_B1T = scale_B1T > 0
        error_BHT = jnp.abs(outputs["prediction"] - outputs["target"])
        weight_BHT = jnp.where(there_B1T, _weight(outputs, batch), 0.0)
        return weighted_sum(error_BHT / jnp.where(there_B1T, scale_B1T, 1.0), weight_BHT)

    return Metric(update, mean)


def skill(data: DataSpec, season: int = 1, error: str = "mae", past: str = "past", target: str = "target") -> Metric:
    """Return 1 - error / error of the seasonal naive forecast of the same numbers: 1 is perfect, 0 as good as that.

    Undefined (nan) where the naive forecast makes no error at all.

    Args:
      data: windows, as `jaxlab.data.windows` makes them.
      season: S rows of the past's end that the naive forecast repeats; 1 repeats the last value.
      error: ``mae``, ``mse`` or ``rmse``.
      past: the field of the past [B, L, F].
      target: the field to predict [B, H, T].

    Raises:
      ConfigError: no such error, data that is no windows, a past without the targets or of fewer rows than a season.
    """
    if error not in _ERRORS:
        raise ConfigError(f"config.metrics: skill with error={error!r}{did_you_mean(error, _ERRORS)}")
    column_T, cost = _columns("skill", data, past, target, season, season), _ERRORS[error]

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        target_BHT, weight_BHT = outputs["target"], _weight(outputs, batch)
        repeated_H = np.arange(target_BHT.shape[1]) % season - season
        naive_BHT = batch[past][:, repeated_H][:, :, column_T]
        return {
            "model": weighted_sum(cost(outputs["prediction"] - target_BHT), weight_BHT)["sum"],
            "naive": weighted_sum(cost(naive_BHT - target_BHT), weight_BHT)["sum"],
        }

    def compute(statistics: PyTree) -> float:
        ratio = quotient(statistics["model"], statistics["naive"])
        return 1 - (math.sqrt(ratio) if error == "rmse" else ratio)

    return Metric(update, compute)


def _columns(name: str, data: DataSpec, past: str, target: str, season: int, rows: int) -> np.ndarray:
    """Return where the targets' columns are among the past's [T]; ConfigError if they or the `rows` are not there."""
    where = f"config.metrics: {name}"
    for option, field in (("past", past), ("target", target)):
        if field not in data.example or len(data.example[field].shape) != 2:
            raise ConfigError(
                f"{where} with {option}={field!r}: expected a field of rows and columns, as jaxlab.data.windows makes; "
                f"the data has {', '.join(data.example)}"
            )
    (length, width), (_, count) = data.example[past].shape, data.example[target].shape
    if season < 1 or length < rows:
        raise ConfigError(
            f"{where} with season={season}: the past has {length} rows; expected 1 to {length - rows + season}"
        )
    inputs, targets = (tuple(data.meta.get(fact, ())) for fact in ("inputs", "targets"))
    if not inputs or not targets:
        raise ConfigError(f"{where} needs the data's facts 'inputs' and 'targets' (it has {', '.join(data.meta)})")
    for field in targets:
        if field not in inputs:
            raise ConfigError(
                f"{where}: the past does not hold the target {field!r}: add it to the inputs of the windows, "
                f"which are {', '.join(inputs)}"
            )
    if width == len(inputs):  # a column a field
        return np.array([inputs.index(field) for field in targets])
    if inputs[: len(targets)] == targets:
        return np.arange(count)
    if inputs[-len(targets) :] == targets:
        return np.arange(width - count, width)
    raise ConfigError(
        f"{where}: fields of several columns among the windows' inputs {', '.join(inputs)}: name the targets "
        f"{', '.join(targets)} first, in this order, so that their columns are known"
    )


def _weight(outputs: Outputs, batch: Batch) -> Array:
    """Return weights [B, H, T], 0 in padded rows whatever they hold."""
    mask_B11 = batch["mask"][:, None, None]
    return jnp.where(mask_B11 > 0, outputs["target_weight"] * mask_B11, 0.0)
