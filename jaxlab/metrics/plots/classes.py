"""Decisions between classes: which are mistaken for which, and whether confidence is earned.

Shape letters: N examples, C classes, K bins of confidence.
Usage: ``confusion_matrix(target_N, prediction_N, ("cat", "dog"))``.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax

from jaxlab.metrics.intervals import wilson
from jaxlab.metrics.plots import style

MOST_CLASSES = 200  # of a matrix whose cells can be seen
_LARGEST_NUMBERED = 20  # classes up to which each cell shows its count
_LARGEST_NAMED = 60  # and up to which there is space for names
_LETTER = 0.11  # inches
_BINS = 15


def confusion_matrix(target_N: np.ndarray, prediction_N: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Return the counts of (target, prediction) pairs, coloured by the share of the target's examples.

    Args:
      target_N: class indices.
      prediction_N: class indices.
      classes: the names.
    """
    count, n = len(classes), len(target_N)
    counts = np.zeros((count, count), int)
    np.add.at(counts, (target_N, prediction_N), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(max(4.2, 0.42 * count + 1.5), 10.0)
    title = f"{style.told('accuracy', wilson(float(np.trace(counts)), n))}, n = {n:,}" if n else "no examples"
    figure, axes = style.panel(title, "prediction", "target", size + 0.8, size)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the target class", shrink=0.6)
    if count <= _LARGEST_NAMED:
        _name(axes, [style.plain(name, 16) for name in classes], (size - 1.5) / count)
    if count <= _LARGEST_NUMBERED:
        _number(axes, counts, shares)
    return figure


def _name(axes: Axes, names: list[str], cell: float) -> None:
    """Write the names at cells of so many inches, across the axis where they would else touch."""
    ticks, turned = np.arange(len(names)), max(map(len, names)) * _LETTER > cell
    axes.set_xticks(ticks, names, rotation=45 if turned else 0, ha="right" if turned else "center")
    for text in axes.get_xticklabels():
        text.set_rotation_mode("anchor" if turned else "default")
    axes.set_yticks(ticks, names)


def _number(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            size = 8 if count < 10_000 else 6.5
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)


def reliability(logits_NC: np.ndarray, target_N: np.ndarray, prediction_N: np.ndarray) -> Figure | None:
    """Return how often predictions are right against how sure the model is of them, over a histogram of the latter.

    The expected calibration error in the title is that of `jaxlab.metrics.classify:calibration_error`. The bars are
    Wilson's intervals of each bin's share. None where no example has finite logits.
    """
    finite_N = np.isfinite(logits_NC).all(axis=1)
    n, known = len(logits_NC), int(finite_N.sum())
    if not known:
        return None
    confidence_N = softmax(logits_NC[finite_N].astype(np.float64), axis=1).max(axis=1)
    right_N = (target_N == prediction_N)[finite_N]
    bin_N = np.clip(np.ceil(confidence_N * _BINS).astype(int) - 1, 0, _BINS - 1)
    count_K, right_K, sure_K = (
        np.bincount(bin_N, weights, minlength=_BINS) for weights in (None, right_N.astype(float), confidence_N)
    )
    error = float(np.abs(sure_K - right_K).sum() / known)
    figure = Figure(figsize=(4.8, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    title = f"calibration error {error:.4f}, {style.counted(known, n)}"
    style.label(above, title, "", "share of predictions that are right")
    _shares(above, count_K, right_K, sure_K)
    style.label(below, "", "confidence: probability of the predicted class", "share of all")
    below.stairs(count_K / known, np.linspace(0, 1, _BINS + 1), fill=True, color=style.GREY)
    below.axvline(sure_K.sum() / known, color=style.COLOURS[0], linewidth=1.2, label="mean confidence")
    below.axvline(right_K.sum() / known, color=style.COLOURS[1], linewidth=1.2, dashes=(4, 2), label="accuracy")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    lowest = int(10 / logits_NC.shape[1]) / 10  # the largest of C probabilities is at least 1 / C
    below.set_xlim(min(lowest, 0.9) - 0.02, 1.02)
    return figure


def _shares(axes: Axes, count_K: np.ndarray, right_K: np.ndarray, sure_K: np.ndarray) -> None:
    filled_K = count_K > 0
    found = [wilson(right, int(count)) for right, count in zip(right_K[filled_K], count_K[filled_K], strict=True)]
    share_K, low_K, high_K = np.array([[one.point, one.low, one.high] for one in found]).T
    axes.plot([0, 1], [0, 1], color=style.GREY, dashes=(4, 3), linewidth=1, label="as sure as right")
    axes.errorbar(
        sure_K[filled_K] / count_K[filled_K], share_K, np.maximum([share_K - low_K, high_K - share_K], 0),
        color=style.COLOURS[0], marker="o", markersize=4.5, linestyle="", elinewidth=0.9, capsize=2,
        label="bins, with 95 % intervals",
    )  # fmt: skip
    axes.set_ylim(-0.02, 1.02)
