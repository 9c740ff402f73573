"""Predicted numbers against true ones, and what is left over.

Shape letters: K pairs of a target and its prediction, all axes in one.
Usage: ``predicted(target_K, prediction_K, "RMSE 3.2 [3.0, 3.4], n = 100")``.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from jaxlab.metrics.plots import style

_BINS = 20  # of predictions, for the mean of what is left over
_FEWEST = 10  # examples a bin, below which its mean says little


def predicted(target_K: np.ndarray, prediction_K: np.ndarray, title: str) -> Figure:
    """Return predictions against targets, all finite, and the diagonal on which they would be right."""
    figure, axes = style.panel(title, "target", "prediction", 4.8, 4.8)
    shown = style.sample(len(target_K))
    axes.scatter(
        target_K[shown], prediction_K[shown], s=9, alpha=_opacity(len(shown)), color=style.COLOURS[0], linewidths=0,
        rasterized=True,
    )  # fmt: skip
    seen = np.concatenate([target_K, prediction_K])
    low, high = style.edges(seen)[[0, -1]]
    space = 0.03 * (high - low)
    bounds, middle = (low - space, high + space), (low + high) / 2
    axes.plot(bounds, bounds, color=style.GREY, dashes=(4, 3), linewidth=1, label="prediction = target")
    axes.set(xlim=bounds, ylim=bounds, aspect="equal")
    axes.legend(fontsize=8, loc="upper left")
    beyond = np.maximum(np.abs(target_K - middle), np.abs(prediction_K - middle)) > bounds[1] - middle
    _note(figure, len(shown), len(target_K), int(beyond.sum()))
    return figure


def residuals(target_K: np.ndarray, prediction_K: np.ndarray, title: str) -> Figure:
    """Return what targets exceed predictions by, all finite, against the prediction; with means and a histogram."""
    left_K = target_K - prediction_K
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    across, beside = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    style.label(across, title, "prediction", "target − prediction")
    shown = style.sample(len(target_K))
    across.scatter(
        prediction_K[shown], left_K[shown], s=9, alpha=_opacity(len(shown)), color=style.COLOURS[0], linewidths=0,
        rasterized=True,
    )  # fmt: skip
    across.axhline(0, color=style.GREY, dashes=(4, 3), linewidth=1)
    centre, mean = _means(prediction_K, left_K)
    if len(centre) > 1:
        across.plot(
            centre,
            mean,
            color=style.COLOURS[1],
            marker="o",
            markersize=3,
            linewidth=1.3,
            label="mean of neighbours",
        )
        across.legend(fontsize=8, loc="best")
    edges = style.edges(left_K)
    space = 0.03 * (edges[-1] - edges[0])
    style.label(beside, "", "share", "")
    beside.stairs(
        np.histogram(left_K, edges)[0] / len(left_K), edges, orientation="horizontal", fill=True, color=style.GREY
    )
    beside.axhline(0, color=style.GREY, dashes=(4, 3), linewidth=1)
    beside.axhline(left_K.mean(), color=style.COLOURS[1], linewidth=1.3, label=f"mean {left_K.mean():.3g}")
    beside.legend(fontsize=8, loc="upper right")
    across.set_ylim(edges[0] - space, edges[-1] + space)
    left, right = style.edges(prediction_K)[[0, -1]]
    across.set_xlim(left - 0.03 * (right - left), right + 0.03 * (right - left))
    hidden = (prediction_K < left) | (prediction_K > right) | (left_K < edges[0]) | (left_K > edges[-1])
    _note(figure, len(shown), len(target_K), int(hidden.sum()))
    return figure


def _means(prediction_K: np.ndarray, left_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean prediction and the mean of what is left over in bins of equally many examples."""
    bins = min(_BINS, len(left_K) // _FEWEST)
    if bins < 2 or prediction_K.min() == prediction_K.max():
        return np.empty(0), np.empty(0)
    order_K = np.argsort(prediction_K, kind="stable")
    parts = np.array_split(order_K, bins)
    return np.array([prediction_K[part].mean() for part in parts]), np.array([left_K[part].mean() for part in parts])


def _opacity(points: int) -> float:
    return 0.7 if points < 500 else 0.35 if points < 2500 else 0.2


def _note(figure: Figure, shown: int, of: int, beyond: int) -> None:
    """Say below the figure what it does not show."""
    notes = [f"{shown:,} of {of:,} points, drawn at random"] if shown < of else []
    notes += [f"{beyond:,} far points lie beyond the axes"] if beyond else []
    if notes:
        figure.supxlabel("; ".join(notes), fontsize=7, color=style.GREY)
