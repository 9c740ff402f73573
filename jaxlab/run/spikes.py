"""An alarm for a training loss that jumps: the first sign of a run that is about to diverge, or of bad data.

Usage: ``alarm = SpikeAlarm(10.0, earlier_losses)``; ``warning = alarm.look(step, loss)`` for every row.
"""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterable

MEMORY = 50  # rows that a loss is compared with
_FEWEST = 10
_LEAST = 1e-3  # of the median: a loss that hardly moves is no reason for alarm at its first movement
_TO_SIGMA = 1.4826  # of the median absolute deviation of normal numbers: 1 / 0.6745


class SpikeAlarm:
    """Compares each loss with the median of those before it, in robust deviations."""

    def __init__(self, deviations: float, earlier: Iterable[float] = ()) -> None:
        """Begin with the losses of an earlier process, if any; 0 `deviations` never warn."""
        self._deviations, self._losses = deviations, collections.deque(earlier, maxlen=MEMORY)

    def look(self, step: int, loss: float) -> str | None:
        """Return a warning where the loss is far above the recent ones."""
        warning = None
        if self._deviations and len(self._losses) >= _FEWEST:
            middle = statistics.median(self._losses)
            spread = _TO_SIGMA * statistics.median(abs(x - middle) for x in self._losses)
            spread = max(spread, _LEAST * abs(middle))
            if loss > middle + self._deviations * spread:
                warning = (
                    f"the loss is {loss:.4g} in the steps up to {step}; the median of {len(self._losses)} rows before "
                    f"is {middle:.4g} (config.train.spike={self._deviations:g})"
                )
        self._losses.append(loss)
        return warning
