"""Which examples of a split are not independent: groups of them, or neighbours in time.

Usage: ``units_of(source, table["id"])``; None says that all are independent.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxlab.core.types import Source
from jaxlab.data.table_columns import read

GROUP, TIME, START = "group", "time", "start"  # the fields that say so; the last is of windows


class Units(NamedTuple):
    """How N examples depend on each other: those of one group come and go together, or those that are near in time."""

    groups: np.ndarray | None = None  # names [N]
    times: np.ndarray | None = None  # [N]
    overlap: int = 1  # neighbours in time that share what is predicted

    def take(self, rows: np.ndarray) -> Units:
        """Return the units of some of the examples."""
        pick = (None if values is None else values[rows] for values in (self.groups, self.times))
        return Units(*pick, overlap=self.overlap)


def units_of(source: Source, ids_N: np.ndarray) -> Units | None:
    """Return how the rows `ids_N` of a source depend on each other, by its fields ``group``, ``start`` or ``time``."""
    example, meta = source.spec.example, source.spec.meta
    fields = [name for name in (GROUP, START, TIME) if name in example and example[name].shape == ()]
    if not fields or not len(ids_N):
        return None
    values_N = read(source, (fields[0],))[fields[0]][ids_N]
    if fields[0] == GROUP:
        return Units(groups=values_N)
    overlap = -(-meta["horizon"] // meta["stride"]) if fields[0] == START and "horizon" in meta else 1
    return Units(times=values_N, overlap=overlap)
