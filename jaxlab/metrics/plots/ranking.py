"""How well scores tell positive examples from negative: ROC and precision-recall curves, and the scores themselves.

Shape letters: N examples, Q yes-or-no questions about each, K points of a curve.
Usage: ``roc(positive_NQ, score_NQ, ("malignant",))``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlab.core.errors import UndefinedError
from jaxlab.metrics import curves
from jaxlab.metrics.intervals import delong
from jaxlab.metrics.plots import style

_LINE_POINTS, _LINES_POINTS = 400, 150  # of one curve, and of each of several: what is seen
_NAME = 16  # letters of a name in the legend
_LOGARITHMIC = 1000.0  # ratio of the largest score to the smallest from which on their logarithms are shown


class _Line(NamedTuple):
    """A curve of points [K] and its area, as a number and in words."""

    across: np.ndarray
    up: np.ndarray
    area: float
    words: str


def roc(positive_NQ: np.ndarray, score_NQ: np.ndarray, names: tuple[str, ...]) -> Figure | None:
    """Return the ROC curve of each question, with its area; one question also has DeLong's interval of it.

    Args:
      positive_NQ: whether it is so.
      score_NQ: how much the model thinks so, on any scale; nan is left out.
      names: of what is positive, one a question; at most `style.MOST_LINES`.

    Returns:
      The figure; None where no question has both positive and negative examples with scores.
    """

    def line(positive_N: np.ndarray, score_N: np.ndarray) -> _Line:
        found = curves.roc(positive_N, score_N)
        if len(names) == 1:
            bounds = delong(positive_N, score_N)
            words = style.told("area", bounds)
            return _Line(found.false_positive_rate, found.true_positive_rate, bounds.point, words)
        area = float(np.trapezoid(found.true_positive_rate, found.false_positive_rate))
        return _Line(found.false_positive_rate, found.true_positive_rate, area, f"{area:.4f}")

    lines = _lines(positive_NQ, score_NQ, line)
    if not any(lines):
        return None
    figure, axes = _panel(names, "false positive rate: share of negatives called positive", "true positive rate")
    axes.plot([0, 1], [0, 1], color=style.GREY, dashes=(4, 3), linewidth=1, label="chance" if len(names) == 1 else None)
    _draw(figure, axes, lines, names, "default", "area under the ROC curve")
    _tell(axes, "ROC", positive_NQ, score_NQ, lines, names)
    return figure


def precision_recall(positive_NQ: np.ndarray, score_NQ: np.ndarray, names: tuple[str, ...]) -> Figure | None:
    """Return the precision-recall curve of each question, with its average precision; one question has its base rate.

    Args as in `roc`. None where no question has a positive example with a score.
    """

    def line(positive_N: np.ndarray, score_N: np.ndarray) -> _Line:
        found = curves.precision_recall(positive_N, score_N)
        area = float(np.diff(found.recall) @ found.precision[1:])
        words = f"average precision {style.digits(area)}" if len(names) == 1 else f"{area:.4f}"
        return _Line(found.recall, found.precision, area, words)

    lines = _lines(positive_NQ, score_NQ, line)
    if not any(lines):
        return None
    figure, axes = _panel(names, "recall: share of positives found", "precision: share of found that are positive")
    if len(names) == 1:
        share = float(positive_NQ[~np.isnan(score_NQ)].mean())
        axes.axhline(
            share, color=style.GREY, dashes=(4, 3), linewidth=1, label=f"share of positives {style.digits(share)}"
        )
    _draw(figure, axes, lines, names, "steps-pre", "average precision")
    _tell(axes, "precision and recall", positive_NQ, score_NQ, lines, names)
    return figure


def score_histogram(score_N: np.ndarray, kind_N: np.ndarray, names: Sequence[str]) -> Figure | None:
    """Return how scores are spread among the examples of each kind, as shares of that kind; None without any.

    Args:
      score_N: what is not finite is left out.
      kind_N: which of the `names` an example is of.
      names: of the kinds.
    """
    finite_N = np.isfinite(score_N)
    known_N, kind_N = score_N[finite_N].astype(np.float64), kind_N[finite_N]
    if not len(known_N):
        return None
    logarithmic = bool(known_N.min() > 0 and known_N.max() > _LOGARITHMIC * known_N.min())
    place_N = np.log10(known_N) if logarithmic else known_N
    edges = style.edges(place_N)
    inside_N = np.clip(place_N, edges[0], edges[-1])
    across = "score" if np.array_equal(inside_N, place_N) else "score; the outermost bars hold what lies beyond"
    shown = 10**edges if logarithmic else edges
    figure, axes = style.panel(f"scores, {style.counted(len(known_N), len(score_N))}", across, "share of its examples")
    for place, (name, (colour, dashes)) in enumerate(zip(names, style.strokes(), strict=False)):
        here_N = inside_N[kind_N == place]
        if len(here_N):
            share = np.histogram(here_N, edges)[0] / len(here_N)
            axes.stairs(share, shown, fill=True, color=colour, alpha=0.25)
            axes.stairs(share, shown, color=colour, linestyle=dashes, label=f"{style.plain(name)}, n = {len(here_N):,}")
    if logarithmic:
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return figure


def _lines(
    positive_NQ: np.ndarray, score_NQ: np.ndarray, line: Callable[[np.ndarray, np.ndarray], _Line]
) -> list[_Line | None]:
    """Return the curve of each question, thinned to what is seen; None where there is none."""
    found: list[_Line | None] = []
    most = _LINE_POINTS if positive_NQ.shape[1] == 1 else _LINES_POINTS
    for positive_N, score_N in zip(positive_NQ.T, score_NQ.T, strict=True):
        known_N = ~np.isnan(score_N)
        try:
            whole = line(positive_N[known_N], score_N[known_N])
        except UndefinedError:
            found.append(None)
            continue
        across, up = style.thinned(whole.across, whole.up, most)
        found.append(whole._replace(across=across, up=up))
    return found


def _panel(names: Sequence[str], across: str, up: str) -> tuple[Figure, Axes]:
    """Return a square panel, with space for a legend beside it if there are several questions."""
    width = 4.8 if len(names) == 1 else 6.3 + 0.06 * min(_NAME, max(map(len, names)))
    figure, axes = style.panel("", across, up, width, 4.8)
    style.unit_square(axes)
    return figure, axes


def _draw(figure: Figure, axes: Axes, lines: Sequence[_Line | None], names: Sequence[str], how: str, area: str) -> None:
    for line, name, (colour, dashes) in zip(lines, names, style.strokes(), strict=False):
        words = line.words if line and len(names) == 1 else f"{style.plain(name, _NAME)}  {line.words if line else '–'}"
        across, up = (line.across, line.up) if line else (np.empty(0), np.empty(0))
        axes.plot(across, up, color=colour, linestyle=dashes, linewidth=1.5, drawstyle=how, label=words)
    if len(names) == 1:
        axes.legend(fontsize=8, loc="lower right" if how == "default" else "best")
    else:
        figure.legend(loc="outside right center", fontsize=8, title=area, title_fontsize=8, frameon=False)


def _tell(
    axes: Axes, what: str, positive_NQ: np.ndarray, score_NQ: np.ndarray, lines: Sequence[_Line | None],
    names: Sequence[str],
) -> None:  # fmt: skip
    known_N = ~np.isnan(score_NQ).any(axis=1)
    count = style.counted(int(known_N.sum()), len(known_N))
    if len(names) == 1:
        positives = int(positive_NQ[known_N].sum())
        axes.set_title(f"{what} of {style.plain(names[0])}, {count}, {positives:,} positive", fontsize=10)
    else:
        mean = np.mean([line.area for line in lines if line])
        axes.set_title(f"{what}, each against the rest: mean {mean:.4f}, {count}", fontsize=10)
