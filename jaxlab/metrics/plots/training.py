"""The learning curve of a run.

Usage: ``learning_curve(history)``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxlab.metrics.plots.style import COLOURS, plain


def learning_curve(history: pd.DataFrame) -> Figure:
    """Return one panel a metric, with a line for training and one for validation.

    Args:
      history: a row a step, columns ``train/NAME`` and ``valid/NAME``.
    """
    columns = dict.fromkeys(column.split("/", 1)[-1] for column in map(str, history) if "/" in column)
    names = [name for name in columns if name != "grad_norm"] or ["loss"]
    figure = Figure(figsize=(4.5 * len(names), 3.4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        for split, colour in zip(("train", "valid"), COLOURS, strict=False):
            column = f"{split}/{name}"
            if column in history:
                values = history[column].astype(float).dropna()  # JSON holds nan and inf by their names
                mark = "o" if len(values) < 30 else ""
                axes.plot(values.index, values, label=split, color=colour, marker=mark, markersize=3)
        axes.set(xlabel="step", title=plain(name.replace("_", " "), 40))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return figure
