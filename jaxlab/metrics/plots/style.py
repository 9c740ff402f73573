"""What all pictures share: colours, sizes, how names and numbers are written, and files that equal runs write equally.

Usage: ``figure, axes = panel("title", "across", "up")``, then ``save(figure, path)``.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlab.core.types import Interval

# Okabe & Ito 2008, "Color universal design", without the yellow, which is faint on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
GREY = "#8A8A8A"
MOST_LINES = 20  # in one panel, told apart by colour and dashes
_DASHES = ("-", "--", ":")
_DPI = 130
_MOST_POINTS = 5000  # of a cloud: more look the same
_SAME = 1e-5  # relative: what differs less is one number, rounded
_TAIL = 0.005  # share at each end that a few far values may be of


def panel(title: str, across: str, up: str, width: float = 4.8, height: float = 4.2) -> tuple[Figure, Axes]:
    """Return a figure of one panel, in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    label(axes, title, across, up)
    return figure, axes


def label(axes: Axes, title: str, across: str, up: str) -> None:
    """Write a panel's title and axes, and draw no more of its frame than it needs."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def unit_square(axes: Axes) -> None:
    """Let both axes go from 0 to 1, with a little space so that curves along the edge are seen."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def strokes() -> Iterator[tuple[str, str]]:
    """Yield (colour, dashes) pairs, all different for at least `MOST_LINES` lines."""
    return ((colour, dashes) for dashes, colour in itertools.product(_DASHES, COLOURS))


def plain(name: object, most: int = 20) -> str:
    """Return a name from the data as text of one short line, whatever signs it has."""
    text = " ".join(str(name).split())
    text = text if len(text) <= most else text[: most - 1] + "…"
    text = text.replace("$", r"\$")  # matplotlib would set what is between two as a formula
    return f" {text}" if text.startswith("_") else text  # and leave such a name out of legends


def told(name: str, number: Interval) -> str:
    """Return ``name 0.9800 [0.9712, 0.9888]``."""
    return f"{name} {digits(number.point)} [{digits(number.low)}, {digits(number.high)}]"


def digits(number: float) -> str:
    """Return a number by four digits that count, trailing noughts among them."""
    return f"{number:#.4g}".removesuffix(".")


def counted(used: int, of: int) -> str:
    """Return how many examples a picture shows, and of how many, where some have no finite numbers."""
    return f"n = {used:,}" if used == of else f"n = {used:,} of {of:,}, the rest not finite"


def sample(n: int) -> np.ndarray:
    """Return which of `n` points a cloud shows: all, or some thousands at random, the same at each call."""
    if n <= _MOST_POINTS:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, _MOST_POINTS, replace=False, shuffle=False))


def thinned(x_K: np.ndarray, y_K: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve by about `most` of its points, evenly along its length; both ends remain."""
    if len(x_K) <= most:
        return x_K, y_K
    along_K = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x_K)) + np.abs(np.diff(y_K)))])
    kept = np.unique(np.searchsorted(along_K, np.linspace(0, along_K[-1], most)))
    kept = np.unique(np.append(kept, [0, len(x_K) - 1]))
    return x_K[kept], y_K[kept]


def extent(values_N: np.ndarray) -> tuple[float, float]:
    """Return the range of finite values; without the few at its ends where these are so far that the rest shrinks."""
    low, high = float(values_N.min()), float(values_N.max())
    first, last = (float(bound) for bound in np.quantile(values_N, [_TAIL, 1 - _TAIL]))
    if last > first and high - low > 3 * (last - first):
        space = 0.5 * (last - first)
        return max(low, first - space), min(high, last + space)
    return low, high


def edges(values_N: np.ndarray, bins: int = 40) -> np.ndarray:
    """Return edges of bins of equal width over the `extent` of finite values, which need not differ."""
    low, high = extent(values_N)
    if not high - low > _SAME * max(abs(low), abs(high)):
        spread = max(0.5, 1e-3 * abs(low))
        return np.linspace(low - spread, high + spread, 4)
    return np.linspace(low, high, bins + 1)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure as PNG at `path` and as SVG beside it, and return where; equal figures give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    vector = path.with_name(f"{path.stem}.svg")
    # text stays text in SVG, which keeps files small; a fixed salt instead of random names makes equal figures equal
    settings = mpl.rc_context({"svg.hashsalt": "jaxlab", "svg.fonttype": "none"})
    with settings, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # a sign that the font lacks: a box
        figure.savefig(path, dpi=_DPI)
        engine = figure.get_layout_engine()
        figure.set_layout_engine("none")  # everything has its place by now, and placing takes half the time
        figure.savefig(vector, dpi=_DPI, metadata={"Date": None})
        figure.set_layout_engine(engine)
    return [path, vector]
