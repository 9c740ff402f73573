"""All metrics of a prediction table, each with its interval: of a run, of a slice of it, or of a baseline.

Knows no checkpoint and no device. Shape letters: N examples, S sums.
Usage: ``found = measured(experiment.metrics, experiment.tables, table, "valid")``; ``found.values["valid/accuracy"]``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxlab.core.errors import DataError, UndefinedError
from jaxlab.core.types import Interval, Metric, Table, TableMetric
from jaxlab.metrics.intervals import Numbers, Resampling, bootstrap, examples, groups, series, wilson
from jaxlab.run.per_example import Sums, per_example
from jaxlab.run.units import Units
from jaxlab.train.evaluate import named

_TOLERANCE = 1e-4  # relative, between sums of float32 in another order
_NOT_A_NUMBER = "it is divided by nothing, or the model's results are not finite"
Tuned = Mapping[str, Mapping[str, Any]]
"""What metrics took from the validation split, by the metric's name."""


class Measured(NamedTuple):
    """Numbers by ``prefix/name`` or ``prefix/name/part``; those without a value with the reason."""

    values: dict[str, float]
    intervals: dict[str, Interval]
    undefined: dict[str, str]


def measured(
    metrics: Mapping[str, Metric],
    tables: Mapping[str, TableMetric],
    table: Table,
    prefix: str,
    units: Units | None = None,
    tuned: Tuned = MappingProxyType({}),
) -> Measured:
    """Return all numbers that `table` gives, with intervals at 95 %.

    A share of independent examples has Wilson's interval, what has a formula that, all else is drawn again.

    Args:
      metrics: additive ones; one that reads what the table does not have is left out.
      tables: the others.
      table: results and fields of real examples, each [N, ...], and their ``id``.
      prefix: of the numbers' names.
      units: which examples are not independent; None if all are.
      tuned: what `TableMetric.tune` returned.

    Raises:
      DataError: a table metric reads a column that is not there.
    """
    n = len(table["id"])
    if not n:
        paths = [f"{prefix}/{name}" for name in (*metrics, *tables)]
        return Measured({}, {}, dict.fromkeys(paths, "there are no examples"))
    sums = {name: found for name, metric in metrics.items() if (found := per_example(metric, table)) is not None}
    prepared = {name: of_sums(metrics[name], found, f"{prefix}/{name}") for name, found in sums.items()}
    prepared |= {name: of_table(name, metric, table, prefix, tuned) for name, metric in tables.items()}
    formulas = {} if units is not None else _formulas(metrics, sums, tables, table)
    result, drawn = Measured({}, {}, {}), []
    for name, numbers in prepared.items():
        found, why = _points(numbers, n, f"{prefix}/{name}")
        result.values.update(found)
        result.undefined.update(why)
        if len(found) == 1 and name in formulas:
            result.intervals.update(dict.fromkeys(found, formulas[name]))
        elif found:
            drawn.append(numbers)
    again = bootstrap(drawn, resampling(units, n, sums)) if drawn else {}
    result.intervals.update({name: interval for name, interval in again.items() if name in result.values})
    return result


def of_sums(metric: Metric, sums: Sums, name: str) -> Numbers:
    """Return the function from how often each example counts to the metric's number, or its several by part."""
    return lambda weight_N: named(name, metric.compute(sums.tree(weight_N @ sums.rows)))


def of_table(name: str, metric: TableMetric, table: Table, prefix: str, tuned: Tuned) -> Numbers:
    """Return the same function of a table metric; it raises an UndefinedError where there is no number.

    Raises:
      DataError: it reads a column that is not there.
    """
    for column in metric.reads:
        if column not in table:
            raise DataError(f"config.metrics.{name} reads {column!r}; the predictions have {', '.join(table)}")
    try:
        weighted = metric.prepare(table, tuned[name] if metric.tune is not None and name in tuned else {})
    except UndefinedError as error:
        return functools.partial(_undefined, str(error))
    return lambda weight_N: named(f"{prefix}/{name}", weighted(weight_N))


def _undefined(why: str, weight_N: np.ndarray) -> Mapping[str, float]:
    raise UndefinedError(why)


def resampling(units: Units | None, n: int, sums: Mapping[str, Sums]) -> Resampling:
    """Return how `n` examples are drawn anew; blocks are as long as the memory of what they add to `sums` asks for."""
    if units is None:
        return examples(n)
    if units.groups is not None:
        return groups(units.groups)
    order_N = np.argsort(units.times, kind="stable")
    rows = [found.rows[order_N] for found in sums.values()] or [np.zeros((n, 1))]
    drawn = series(np.concatenate(rows, axis=1), units.overlap)
    place_N = np.argsort(order_N)
    return drawn._replace(draw=lambda generator: drawn.draw(generator)[place_N])


def check_same(measured: Mapping[str, float], stored: Mapping[str, float]) -> None:
    """Raise DataError unless the stored results give the numbers again that were measured batch by batch."""
    for path, again in stored.items():
        first = measured[path]
        if not math.isclose(first, again, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            raise DataError(
                f"{path} was {first:.8g} when measured, and is {again:.8g} from the stored outputs; expected the same: "
                "does the metric's update depend on other rows of its batch?"
            )


def _points(function: Numbers, n: int, path: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return the numbers that have a value, and why others have none."""
    try:
        found = function(np.ones(n))
    except UndefinedError as error:
        return {}, {path: str(error)}
    values = {name: float(value) for name, value in found.items() if not math.isnan(value)}
    return values, {name: _NOT_A_NUMBER for name in found if name not in values}


def _formulas(
    metrics: Mapping[str, Metric], sums: Mapping[str, Sums], tables: Mapping[str, TableMetric], table: Table
) -> dict[str, Interval]:
    """Return the interval of each metric, by name, that has a formula for one."""
    found = {name: _share(metrics[name], each) for name, each in sums.items()}
    found |= {name: _tried(metric.interval, table) for name, metric in tables.items() if metric.interval is not None}
    return {name: interval for name, interval in found.items() if interval is not None}


def _tried(interval: Callable[[Table], Interval], table: Table) -> Interval | None:
    try:
        return interval(table)
    except UndefinedError:
        return None


def _share(metric: Metric, sums: Sums) -> Interval | None:
    """Return Wilson's interval where the metric's one number is a share of the examples."""
    if sums.successes is None:
        return None
    value, n = metric.compute(sums.tree(sums.rows.sum(axis=0))), len(sums.rows)
    if isinstance(value, Mapping):
        return None
    whole = math.isclose(value * n, round(value * n), abs_tol=1e-6)  # a root of the share, for one, is not
    return wilson(round(value * n), n) if whole else None
