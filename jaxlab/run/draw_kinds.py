"""Which pictures fit the columns of a prediction store.

Shape letters: N examples, C classes or labels, Q yes-or-no questions, L steps of past, H of horizon, T series.
Usage: ``for kind, drawn in drawings(table, meta, None): ...``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit

from jaxlab.core.errors import UndefinedError
from jaxlab.core.types import DataSpec, Table
from jaxlab.metrics import intervals
from jaxlab.metrics.plots import classes as class_plots
from jaxlab.metrics.plots import numbers, pictures, ranking, series, style, worst
from jaxlab.metrics.scores import questions
from jaxlab.metrics.thresholds import threshold_table

Drawn = Iterator[tuple[str, Figure | pd.DataFrame | None]]
"""Kinds of pictures and tables, each drawn, or None where it is undefined."""
Examples = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""From ids [n] to the source's fields of these examples, [n, ...] each."""

_DRAWS = 100_000_000  # examples in all resamples together: some seconds
_NORMAL = 1.96
_TEXT_LENGTH = 2000


def drawings(table: Table, meta: Mapping[str, Any], examples: Examples | None) -> Drawn:
    """Yield what fits the columns [N, ...] of `table`, of which there is at least one row."""
    names = tuple(map(str, meta["classes"])) if meta.get("classes") else ()
    if "target_weight" in table and {"target", "prediction"} <= set(table):
        yield from _of_numbers(table, examples)
    elif names and _are_indices(table, len(names)):
        yield from _of_classes(table, names, examples)
    elif _are_labels(table):
        yield from _of_questions(table, names)
    elif "score" in table and table["score"].ndim == 1:
        yield from _of_scores(table)
    found = table.get("attention")
    if found is not None and found.ndim == 4 and found[0].size and np.isfinite(found[0]).any():
        yield "attention", pictures.attention(found[0].astype(np.float64), f"attention of example {table['id'][0]}")


def _are_indices(table: Table, classes: int) -> bool:
    """Return whether targets and predictions are one class an example, of those that have names."""
    found = [table[name] for name in ("target", "prediction") if name in table]
    whole = len(found) == 2 and all(column.ndim == 1 and column.dtype.kind in "iu" for column in found)
    return whole and all(column.min() >= 0 and column.max() < classes for column in found)


def _are_labels(table: Table) -> bool:
    if not {"target", "logits"} <= set(table):
        return False
    return table["target"].ndim == 2 and table["logits"].shape == table["target"].shape


def _of_classes(table: Table, names: tuple[str, ...], examples: Examples | None) -> Drawn:
    target_N, prediction_N = table["target"], table["prediction"]
    if len(names) <= class_plots.MOST_CLASSES:
        yield "confusion_matrix", class_plots.confusion_matrix(target_N, prediction_N, names)
    if "logits" not in table or table["logits"].shape != (len(target_N), len(names)):
        return
    logits_NC = table["logits"]
    yield "reliability", class_plots.reliability(logits_NC, target_N, prediction_N)
    yield from _of_questions(table, names)
    found = worst.of_classes(table["id"], logits_NC, target_N, prediction_N, names)
    captions = [
        f"{style.plain(target)}\nsaid {style.plain(said, 14)} {sure:.2f}"
        for target, said, sure in zip(found["target"], found["prediction"], found["confidence"], strict=True)
    ]
    yield from _of_worst(found, captions, table, examples, "highest loss: target, prediction and its probability")


def _of_questions(table: Table, names: tuple[str, ...]) -> Drawn:
    """Yield curves of one class against the other, of each against the rest, or of each label."""
    asked = questions(table, DataSpec({}, len(table["id"]), {"classes": names} if names else {}))
    labels, asks = table["logits"].shape[1], len(asked.names)
    known = names if len(names) == labels else tuple(f"label {place}" for place in range(labels))
    if asks <= style.MOST_LINES:
        yield from _curves(asked.positive, asked.score, known[-asks:])
    if asks == 1:
        yield "thresholds", _thresholds(asked.positive[:, 0], expit(asked.score[:, 0]))


def _curves(positive_NQ: np.ndarray, score_NQ: np.ndarray, names: tuple[str, ...]) -> Drawn:
    yield "roc", ranking.roc(positive_NQ, score_NQ, names)
    yield "precision_recall", ranking.precision_recall(positive_NQ, score_NQ, names)


def _thresholds(positive_N: np.ndarray, score_N: np.ndarray) -> pd.DataFrame | None:
    known_N = ~np.isnan(score_N)
    try:
        return pd.DataFrame(threshold_table(positive_N[known_N], score_N[known_N]))
    except UndefinedError:
        return None


def _of_scores(table: Table) -> Drawn:
    """Yield anomaly scores, by label where there is one: 0 normal; a window [N, ...] is anomalous if any row is."""
    score_N, label = table["score"].astype(np.float64), table.get("label")
    if label is None or label.dtype.kind not in "biuf":
        yield "scores", ranking.score_histogram(score_N, np.zeros(len(score_N), int), ("all",))
        return
    anomalous_N = np.any(label.reshape(len(score_N), -1) > 0, axis=1)
    yield "scores", ranking.score_histogram(score_N, anomalous_N.astype(int), ("normal", "anomalous"))
    yield from _curves(anomalous_N[:, None], score_N[:, None], ("anomalous",))
    yield "thresholds", _thresholds(anomalous_N, score_N)


def _of_numbers(table: Table, examples: Examples | None) -> Drawn:
    counts = table["target_weight"] > 0
    target, prediction = (
        np.where(counts & np.isfinite(table[name]), table[name], np.nan).astype(np.float64)
        for name in ("target", "prediction")
    )
    known = np.isfinite(target) & np.isfinite(prediction)
    if known.any():
        title = _error(target, prediction, known)
        yield "predicted", numbers.predicted(target[known], prediction[known], title)
        yield "residuals", numbers.residuals(target[known], prediction[known], title)
    if target.ndim == 3 and target.shape[1] > 1 and known.any():
        past = table.get("past")
        same = past is not None and past.ndim == 3 and past.shape[2] == target.shape[2]
        yield (
            "forecasts",
            series.forecasts(table["id"], target, prediction, _band(table, target.shape), past if same else None),
        )
        yield "horizon", series.error_by_step(prediction - target)
    found = worst.of_numbers(table["id"], target, prediction)
    captions = [f"error {error:.3g}" for error in found["mean_absolute_error"]]
    yield from _of_worst(found, captions, table, examples, "largest mean absolute error")


def _error(target: np.ndarray, prediction: np.ndarray, known: np.ndarray) -> str:
    """Return the root of the mean square error in words; with its interval, unless windows of series may overlap."""
    n, numbers_of = len(target), known.sum()
    square_N = np.where(known, np.square(prediction - target), 0.0).reshape(n, -1).sum(axis=1)
    count = f"n = {n:,}" if known.size == n else f"n = {n:,}, {numbers_of:,} numbers"
    if known.size == n and numbers_of < n:
        count = f"n = {numbers_of:,} of {n:,}, the rest missing"
    if target.ndim > 2 or n < 2:
        return f"RMSE {style.digits(float(np.sqrt(square_N.sum() / numbers_of)))}, {count}"
    sums_NS = np.stack([square_N, known.reshape(n, -1).sum(axis=1)], axis=1)
    root = intervals.of_sums(sums_NS, lambda sums_S: float(np.sqrt(sums_S[0] / sums_S[1])) if sums_S[1] else np.nan)
    resamples = max(100, min(intervals.RESAMPLES, _DRAWS // n))
    return f"{style.told('RMSE', intervals.bootstrap([root], intervals.examples(n), resamples)[''])}, {count}"


def _band(table: Table, shape: tuple[int, ...]) -> series.Band | None:
    """Return the outermost quantiles, or what holds 95 % of the predicted normal distribution, if there are any."""
    quantiles = table.get("quantiles")
    if quantiles is not None and quantiles.shape[:-1] == shape and quantiles.shape[-1] > 1:
        return quantiles[..., 0], quantiles[..., -1], f"outermost of {quantiles.shape[-1]} quantiles"
    mean, log_variance = table.get("mean"), table.get("log_variance")
    if mean is not None and log_variance is not None and mean.shape == log_variance.shape == shape:
        half = _NORMAL * np.exp(0.5 * np.clip(log_variance.astype(np.float64), -80, 80))
        return mean - half, mean + half, "95 % by the predicted variance"
    return None


def _of_worst(found: pd.DataFrame, captions: list[str], table: Table, examples: Examples | None, title: str) -> Drawn:
    """Yield the table of the worst examples with their texts, and their images."""
    if not len(found):
        return
    rows = found.index.to_numpy()
    fields = dict(examples(found["id"].to_numpy())) if examples is not None else {}
    texts = {name: column[rows] for name, column in table.items()} | fields
    for name, column in texts.items():
        if column.ndim == 1 and column.dtype.kind in "OUS" and name not in found:
            found = found.assign(**{name: [_text(value) for value in column]})
    yield "worst", found
    image = fields.get("image")
    if image is not None and image.ndim == 4 and image.dtype.kind in "biuf":
        yield "worst_images", pictures.grid(image, captions, title)


def _text(value: object) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text[:_TEXT_LENGTH]
