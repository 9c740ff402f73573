"""Transforms of numeric columns that learn from the training split: scaling, clipping, filling in what is missing.

Each takes column names, () for all numeric columns but label, target, group, time, id and mask; a column is [B], [B, K]
or, as in windows over time, [B, T, K], of which the K are learnt alike at all times. What is learnt is JSON of plain
numbers, so it comes back exactly. Knows no source and no model.
Usage: ``spec("jaxlab.data.table_numeric:scale", columns=("age", "income"), method="robust")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Fittable, Randomness, Source, Transform
from jaxlab.data.table_columns import checked, choose, is_text, layout_of, missing, numbers, read, take, texts

Fields = Mapping[str, np.ndarray]
Learnt = Mapping[str, Any]

SCALES = ("standard", "robust", "minmax", "log")
FILLS = ("mean", "median", "most_frequent", "constant")


def scale(
    columns: tuple[str, ...] = (),
    method: str = "standard",
    quantiles: tuple[float, float] = (0.25, 0.75),
    interval: tuple[float, float] = (0.0, 1.0),
) -> Fittable:
    """Return the transform of columns to a common scale, to float32; the missing are left out, and left missing.

    A column that is constant in the training split is only shifted.

    Args:
      columns: names; () means all numeric columns.
      method: ``standard``: mean 0 and deviation 1; ``robust``: median 0 and distance of the `quantiles` 1; ``minmax``:
        the training split's extremes go to the ends of `interval`; ``log``: sign(x) log(1 + abs(x)), learns nothing.
      quantiles: for ``robust``.
      interval: for ``minmax``.

    Raises:
      ConfigError: no such method or column, or an empty interval.
    """
    names = checked("scale", columns)
    if method not in SCALES:
        raise ConfigError(f"scale: method={method!r}{did_you_mean(method, SCALES)}")
    _check_quantiles("scale", *quantiles)
    if interval[0] >= interval[1]:
        raise ConfigError(f"scale: interval={interval}: expected the lower end first")

    def learn(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        if method == "log":
            return np.zeros(x.shape[1:]), np.ones(x.shape[1:]), 0.0
        low, high = np.nanmin(x, 0), np.nanmax(x, 0)
        if method == "standard":
            centre, spread = np.nanmean(x, 0), np.nanstd(x, 0)
        elif method == "robust":
            centre, spread = np.nanmedian(x, 0), np.subtract(*np.nanquantile(x, quantiles[::-1], axis=0))
        else:
            centre, spread = low, (high - low) / (interval[1] - interval[0])
        # extremes, since rounding gives constants a tiny deviation
        return centre, np.where((low == high) | (spread == 0), 1.0, spread), interval[0] * (method == "minmax")

    def fit(source: Source) -> Learnt:
        found = {}
        for name, x in _training("scale", source, names).items():
            centre, spread, offset = learn(x)
            found[name] = {"centre": centre.tolist(), "spread": spread.tolist(), "offset": offset}
        return {"method": method, "columns": found}

    def bind(learnt: Learnt) -> Transform:
        def apply(x: np.ndarray, known: Learnt) -> np.ndarray:
            if learnt["method"] == "log":
                return np.sign(x) * np.log1p(np.abs(x))
            return (x - np.asarray(known["centre"])) / np.asarray(known["spread"]) + known["offset"]

        return _on_each("scale", learnt["columns"], apply)

    return Fittable(fit, bind)


def clip(columns: tuple[str, ...] = (), low_quantile: float = 0.01, high_quantile: float = 0.99) -> Fittable:
    """Return the transform that moves outliers, infinite ones too, to quantiles of the training split, to float32.

    Raises:
      ConfigError: no such column, or quantiles that are not 0 <= low < high <= 1.
    """
    names = checked("clip", columns)
    _check_quantiles("clip", low_quantile, high_quantile)

    def fit(source: Source) -> Learnt:
        found = {}
        for name, x in _training("clip", source, names, infinite=True).items():
            low, high = np.nanquantile(x, (low_quantile, high_quantile), axis=0)
            found[name] = {"low": low.tolist(), "high": high.tolist()}
        return {"columns": found}

    def bind(learnt: Learnt) -> Transform:
        return _on_each("clip", learnt["columns"], lambda x, known: np.clip(x, known["low"], known["high"]))

    return Fittable(fit, bind)


def impute(
    columns: tuple[str, ...] = (), method: str = "mean", value: float | str = 0.0, indicators: bool = True
) -> Fittable:
    """Return the transform that fills in what is missing (NaN, None, an empty text), numbers to float32.

    Args:
      columns: names; () means all numeric columns. Columns of texts must be named.
      method: ``mean``, ``median`` or ``most_frequent`` (the least of several) of the training split's values, or
        ``constant``; texts know the last two.
      value: of ``constant``.
      indicators: whether each column that has missing values in the training split gets a column ``NAME_missing`` of
        1 where a value was missing and 0 elsewhere. The others get none: the model could learn nothing from it.

    Raises:
      ConfigError: no such method or column, or a value of the wrong kind.
      DataError: a column without any value to learn from, or a mean of texts.
    """
    names = checked("impute", columns)
    if method not in FILLS:
        raise ConfigError(f"impute: method={method!r}{did_you_mean(method, FILLS)}")

    def fit(source: Source) -> Learnt:
        layout = layout_of(source.spec)
        chosen = choose("impute", names, layout, text=False, axes=2)
        found = {}
        for name, column in read(source, chosen).items():
            absent = missing(column)
            text = _holds_text(column, absent)
            fill = _text_fill(name, column, method, value) if text else _number_fill(name, column, method, value)
            found[name] = {"fill": fill, "indicator": bool(indicators and absent.any())}
        return {"columns": found}

    def bind(learnt: Learnt) -> Transform:
        def transform(fields: Fields, _: Randomness) -> Fields:
            changed = {}
            for name, known in learnt["columns"].items():
                column = take("impute", fields, name)
                absent = missing(column)
                if isinstance(known["fill"], str):
                    changed[name] = np.where(absent, known["fill"], column.astype(object)).astype(object)
                else:
                    filled = np.where(absent, np.asarray(known["fill"]), numbers(name, column))
                    changed[name] = filled.astype(np.float32)
                if known["indicator"]:
                    changed[f"{name}_missing"] = absent.astype(np.float32)
            return {**fields, **changed}

        return transform

    return Fittable(fit, bind)


def _holds_text(column: np.ndarray, absent: np.ndarray) -> bool:
    """Return whether the values, by the first that is there, are texts; a column without any goes by its dtype."""
    present = column[~absent]
    return is_text(column.dtype) and (not len(present) or isinstance(present[0], str | bytes))


def _number_fill(name: str, column: np.ndarray, method: str, value: float | str) -> Any:
    x = _pooled(numbers(name, column))
    if method == "constant":
        if isinstance(value, str) or not np.isfinite(value):
            raise ConfigError(f"impute: value={value!r}: column {name!r} holds numbers; expected a finite number")
        return np.full(x.shape[1:], float(value)).tolist()
    _check_values("impute", name, x)
    if method == "most_frequent":
        fills = [_most_frequent(part) for part in x.reshape(len(x), -1).T]
        return np.reshape(fills, x.shape[1:]).tolist()
    return (np.nanmean if method == "mean" else np.nanmedian)(x, axis=0).tolist()


def _most_frequent(x: np.ndarray) -> float:
    values, counts = np.unique(x[~np.isnan(x)], return_counts=True)
    return float(values[np.argmax(counts)])


def _text_fill(name: str, column: np.ndarray, method: str, value: float | str) -> str:
    if method == "constant":
        if not isinstance(value, str):
            raise ConfigError(f"impute: value={value!r}: column {name!r} holds texts; expected a text")
        return value
    if method != "most_frequent":
        raise DataError(f"impute: column {name!r} holds texts, which have no {method}; expected method='most_frequent'")
    present = [text for text in texts(name, column) if text]
    if not present:
        raise DataError(f"impute: column {name!r} has no value in the training split; drop it or use 'constant'")
    values, counts = np.unique(np.asarray(present, dtype=str), return_counts=True)
    return str(values[np.argmax(counts)])


def _training(caller: str, source: Source, columns: tuple[str, ...], infinite: bool = False) -> dict[str, np.ndarray]:
    """Return the chosen columns of the training split as float64; DataError where nothing can be learnt.

    With `infinite` values that are infinite are left out like the missing; without they are an error.
    """
    names = choose(caller, columns, layout_of(source.spec), text=False, axes=2)
    found = {name: _pooled(numbers(name, column)) for name, column in read(source, names).items()}
    if infinite:
        found = {name: np.where(np.isinf(x), np.nan, x) for name, x in found.items()}
    for name, x in found.items():
        _check_values(caller, name, x)
    return found


def _pooled(x: np.ndarray) -> np.ndarray:
    """Return values [B, T, K] as [B T, K]; others as they are."""
    return x.reshape(-1, x.shape[-1]) if x.ndim > 2 else x


def _check_values(caller: str, name: str, x: np.ndarray) -> None:
    if np.isnan(x).all(0).any():
        raise DataError(f"{caller}: column {name!r} has no value in the training split; drop it or use 'constant'")
    if np.isinf(x).any():
        raise DataError(f"{caller}: column {name!r} holds {np.isinf(x).sum()} infinite values in the training split")


def _check_quantiles(caller: str, low: float, high: float) -> None:
    if not 0 <= low < high <= 1:
        raise ConfigError(f"{caller}: quantiles {low} and {high}: expected 0 <= low < high <= 1")


def _on_each(
    caller: str, columns: Mapping[str, Learnt], function: Callable[[np.ndarray, Learnt], np.ndarray]
) -> Transform:
    """Return the transform that replaces each column by a function of it, in float64, and of what was learnt of it."""

    def transform(fields: Fields, _: Randomness) -> Fields:
        changed = {}
        for name, known in columns.items():
            x = numbers(name, take(caller, fields, name))
            changed[name] = function(x, known).astype(np.float32)
        return {**fields, **changed}

    return transform
