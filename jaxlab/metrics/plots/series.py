"""Forecasts of series: some windows as they are, and how the error grows with the horizon.

Shape letters: N windows, L steps of past, H steps of horizon, T series, Q quantiles.
Usage: ``forecasts(id_N, target_NHT, prediction_NHT, band=(low_NHT, high_NHT, "80 %"), past_NLT=past_NLT)``.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxlab.metrics.plots import style

_WINDOWS = 4
_PAST = 3  # horizons of it that are shown
Band = tuple[np.ndarray, np.ndarray, str]
"""Low and high bounds [N, H, T], and what they are."""


def forecasts(
    id_N: np.ndarray,
    target_NHT: np.ndarray,
    prediction_NHT: np.ndarray,
    band: Band | None = None,
    past_NLT: np.ndarray | None = None,
) -> Figure:
    """Return forecast and truth of some windows, evenly apart, each of one series.

    Args:
      id_N: the windows' numbers.
      target_NHT: nan where missing.
      prediction_NHT: of the same shape.
      band: of the same shape.
      past_NLT: the same series before; its last steps are shown.
    """
    n, series = len(id_N), target_NHT.shape[2]
    shown = np.unique(np.linspace(0, n - 1, _WINDOWS).astype(int))
    width = min(2, len(shown))
    height = -(-len(shown) // width)
    figure = Figure(figsize=(4.4 * width + 0.4, 2.7 * height + 0.5), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False, sharex=True).reshape(-1)
    for place, (axes, window) in enumerate(zip(grid, shown, strict=False)):
        column = place % series
        title = f"window {id_N[window]}" + (f", series {column + 1} of {series}" if series > 1 else "")
        style.label(axes, title, "step from the forecast's start" if place >= len(shown) - width else "", "value")
        bounds = (band[0][window, :, column], band[1][window, :, column], band[2]) if band else None
        past_L = None if past_NLT is None else past_NLT[window, :, column]
        _window(axes, target_NHT[window, :, column], prediction_NHT[window, :, column], bounds, past_L)
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8, frameon=False)
    return figure


def _window(
    axes: Axes, target_H: np.ndarray, prediction_H: np.ndarray, band: Band | None, past_L: np.ndarray | None
) -> None:
    H = len(target_H)
    ahead = np.arange(1, H + 1)
    if past_L is not None:
        past_L = past_L[-_PAST * H :]
        axes.plot(np.arange(1 - len(past_L), 1), past_L, color=style.GREY, linewidth=1.2, label="past")
        axes.axvline(0.5, color=style.GREY, linewidth=0.8, dashes=(2, 2))
    if band:
        axes.fill_between(ahead, band[0], band[1], color=style.COLOURS[5], alpha=0.35, linewidth=0, label=band[2])
    axes.plot(
        ahead, target_H, color="black", linewidth=1.2, marker="o" if H <= 30 else "", markersize=2.5, label="truth"
    )
    axes.plot(ahead, prediction_H, color=style.COLOURS[1], linewidth=1.5, label="forecast")


def error_by_step(error_NHT: np.ndarray) -> Figure | None:
    """Return the root of the mean square and the mean absolute error at each step; None where nothing is finite.

    Args:
      error_NHT: prediction minus target; nan where missing.
    """
    known_NHT = np.isfinite(error_NHT)
    count_H = known_NHT.sum(axis=(0, 2))
    if not count_H.any():
        return None
    error_NHT = np.where(known_NHT, error_NHT, 0.0)
    step_H = np.arange(1, error_NHT.shape[1] + 1)[count_H > 0]
    square_H, absolute_H = np.square(error_NHT).sum(axis=(0, 2)), np.abs(error_NHT).sum(axis=(0, 2))
    figure, axes = style.panel(f"error by horizon, n = {len(error_NHT):,} windows", "steps ahead", "error")
    for name, value_H, colour, dashes in (
        ("root mean square", np.sqrt(square_H[count_H > 0] / count_H[count_H > 0]), style.COLOURS[0], "-"),
        ("mean absolute", absolute_H[count_H > 0] / count_H[count_H > 0], style.COLOURS[1], "--"),
    ):
        mark = "o" if len(step_H) <= 30 else ""
        axes.plot(step_H, value_H, color=colour, linestyle=dashes, marker=mark, markersize=3, label=name)
    axes.set_ylim(0, 1.08 * max(axes.dataLim.y1, 1e-12))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)
    return figure
