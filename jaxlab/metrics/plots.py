"""Pictures of a run: its learning curve, and what its predictions look like.

Figures are made without pyplot, so that nothing global is touched and no display is needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

_LARGEST_NUMBERED = 20  # classes up to which each cell shows its count


def learning_curve(history: pd.DataFrame) -> Figure:
    """Return one panel a metric, with a line for training and one for validation.

    Args:
      history: a row a step, columns ``train/NAME`` and ``valid/NAME``.
    """
    columns = dict.fromkeys(column.split("/", 1)[-1] for column in history if "/" in column)
    names = [name for name in columns if name != "grad_norm"] or ["loss"]
    figure = Figure(figsize=(4.5 * len(names), 3.4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        for split in ("train", "valid"):
            column = f"{split}/{name}"
            if column in history:
                values = history[column].astype(float).dropna()  # JSON holds nan and inf by their names
                axes.plot(values.index, values, label=split, marker="o" if len(values) < 30 else "", markersize=3)
        axes.set(xlabel="step", title=name.replace("_", " "))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return figure


def confusion_matrix(target: np.ndarray, prediction: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Return the counts of (target, prediction) pairs, coloured by the share of the target's examples.

    Args:
      target: class indices [N].
      prediction: class indices [N].
      classes: the names.
    """
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (target, prediction), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(4.0, 0.5 * len(classes) + 1.5)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the target class", shrink=0.8)
    ticks = np.arange(len(classes))
    axes.set(
        xticks=ticks,
        yticks=ticks,
        xlabel="prediction",
        ylabel="target",
        title=f"accuracy {np.trace(counts) / len(target):.4f}" if len(target) else "no examples",
    )
    axes.set_xticklabels(
        classes,
        rotation=45 if max(map(len, classes)) > 2 else 0,
        ha="right" if max(map(len, classes)) > 2 else "center",
    )
    axes.set_yticklabels(classes)
    if len(classes) <= _LARGEST_NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                axes.text(
                    column,
                    row,
                    str(count),
                    ha="center",
                    va="center",
                    color="white" if shares[row, column] > 0.5 else "black",
                    fontsize=8,
                )
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG and return where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
