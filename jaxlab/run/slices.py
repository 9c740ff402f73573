"""Metrics of parts of a split, told apart by the values of a column.

Usage: ``by_column(experiment, split, "colour", table, units, tuned)``.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from jaxlab.core.errors import DataError, did_you_mean
from jaxlab.core.types import Source, Table
from jaxlab.data.table_columns import is_text, missing, read, texts
from jaxlab.run.assemble import Experiment
from jaxlab.run.measured import Measured, Tuned, measured
from jaxlab.run.units import Units

_MOST_VALUES = 50  # a column of more numbers is cut into quarters; of more texts, the rarer ones are taken together
_QUARTERS = (0.25, 0.5, 0.75)


def by_column(
    experiment: Experiment, split: str, column: str, table: Table, units: Units | None, tuned: Tuned
) -> dict[str, dict[str, Any]]:
    """Return by the column's value how many examples have it, and their metrics with intervals.

    Raises:
      DataError: the data have no such column, or it has several values a row.
    """
    label_N = labels(experiment.sources[split], column)[table["id"]]
    found = {}
    for value in sorted(set(label_N.tolist()), key=_in_order):
        rows = np.flatnonzero(label_N == value)
        part = {name: values[rows] for name, values in table.items()}
        within = None if units is None else units.take(rows)
        found[value] = as_json(len(rows), measured(experiment.metrics, experiment.tables, part, split, within, tuned))
    return found


def as_json(n: int, found: Measured) -> dict[str, Any]:
    """Return measured numbers as plain values."""
    intervals = {name: interval._asdict() for name, interval in found.intervals.items()}
    return {"n": n, "metrics": found.values, "intervals": intervals, "undefined": found.undefined}


def labels(source: Source, column: str) -> np.ndarray:
    """Return the name of each row's slice [N]: its value, or the quarter that it lies in."""
    example = source.spec.example
    if column not in example:
        raise DataError(f"--by={column}: the data has no such column{did_you_mean(column, example)}")
    if example[column].shape:
        raise DataError(f"--by={column}: it has {example[column].shape} values a row; expected one")
    value_N = read(source, (column,))[column]
    names = source.spec.meta["classes"] if column == "label" and "classes" in source.spec.meta else ()
    if len(names) and value_N.dtype.kind in "iu":
        return np.array([str(names[index]) for index in value_N], object)
    return _of_texts(column, value_N) if is_text(value_N.dtype) else _of_numbers(value_N)


def _of_texts(column: str, value_N: np.ndarray) -> np.ndarray:
    text_N = np.array([text or "(missing)" for text in texts(column, value_N)], object)
    names, counts = np.unique(text_N, return_counts=True)
    kept = set(names[np.argsort(-counts, kind="stable")][:_MOST_VALUES])
    return np.array([text if text in kept else "(others)" for text in text_N], object)


def _of_numbers(value_N: np.ndarray) -> np.ndarray:
    there_N = ~missing(value_N)
    known = np.unique(value_N[there_N])
    names = {value: f"{value:g}" for value in known.tolist()}
    if len(known) > _MOST_VALUES:
        edges = np.quantile(value_N[there_N], _QUARTERS)
        bounds = list(itertools.pairwise([known[0], *edges, known[-1]]))
        quarter_K = np.searchsorted(edges, known, side="left")
        names = {
            value: f"{quarter + 1}: {bounds[quarter][0]:g} to {bounds[quarter][1]:g}"
            for value, quarter in zip(known.tolist(), quarter_K.tolist(), strict=True)
        }
    named = (names[value] if there else "(missing)" for value, there in zip(value_N.tolist(), there_N, strict=True))
    return np.array(list(named), object)


def _in_order(name: str) -> tuple[bool, float, str]:
    """Sort numbers by their value, before texts."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name
