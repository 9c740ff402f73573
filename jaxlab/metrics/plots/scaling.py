"""What a scaling study shows: how the rate grows with devices, and that the loss does not notice them.

Usage: ``scaling(rates, losses)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from jaxlab.core.types import Interval
from jaxlab.metrics.plots.style import COLOURS, GREY, label, strokes

Rates = Mapping[str, Mapping[int, Interval]]


def scaling(rates: Rates, losses: Mapping[int, Sequence[tuple[int, float]]]) -> Figure:
    """Return a panel of examples a second over devices, and one of the loss over steps, a line a number of devices.

    Args:
      rates: by kind of scaling and number of devices.
      losses: (step, loss) pairs of the runs that take the same batches, by number of devices.
    """
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    label(left, "rate", "devices", "examples / second")
    for (kind, found), colour in zip(rates.items(), COLOURS, strict=False):
        counts = sorted(found)
        points = np.array([found[count].point for count in counts])
        below = points - [found[count].low for count in counts]
        above = np.array([found[count].high for count in counts]) - points
        left.errorbar(counts, points, yerr=[below, above], marker="o", capsize=3, color=colour, label=kind)
        left.plot(counts, points[0] * np.array(counts) / counts[0], color=GREY, linestyle=":", linewidth=1)
    left.set(xscale="log", yscale="log")
    left.set_xticks(counts, [str(count) for count in counts], minor=False)
    left.minorticks_off()
    rates_all = [interval.point for found in rates.values() for interval in found.values()]
    left.set_ylim(min(rates_all) / 2, max(rates_all) * 3)  # a wide interval must not flatten the points
    left.plot([], [], color=GREY, linestyle=":", label="in proportion")
    left.legend(frameon=False)
    label(right, "the same batches on any number of devices", "step", "train/loss")
    for (count, rows), (colour, dashes) in zip(losses.items(), strokes(), strict=False):
        steps, values = zip(*rows, strict=True)
        right.plot(steps, values, color=colour, linestyle=dashes, label=f"{count} device{'s' if count > 1 else ''}")
    right.legend(frameon=False)
    return figure
