"""Detection of anomalies from a score of each row, high where the row is unlike those of training.

Each reads ``score`` [N] of `jaxlab.objectives.reconstruct` and the data's field ``label`` [N], 0 normal and 1
anomalous; those with a threshold also ``group`` and ``time``, where the data has them, for the order of rows. A row is
flagged where its score reaches the threshold: the best for the number itself on the validation split, or one that is
given. What events are, and how they count in resamples, is said in `jaxlab.metrics.events`. Knows no model.
Shape letters: N rows.
Usage: ``config.metrics.event_f1 = spec("jaxlab.metrics.anomaly:event_f1")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, UndefinedError, did_you_mean
from jaxlab.core.types import DataSpec, Interval, Table, TableMetric, Weighted
from jaxlab.metrics import curves, events
from jaxlab.metrics.events import Counts, Series
from jaxlab.metrics.intervals import delong

_NO_THRESHOLD = (
    "there is no threshold: it is the best one on the validation split, which was not measured or has no anomalous "
    "row; give threshold"
)
_ORDER = ("group", "time")


def roc_auc(data: DataSpec, score: str = "score", label: str = "label") -> TableMetric:
    """Return the area under the ROC curve of the scores, row by row: how likely an anomalous row scores higher.

    Equal scores count a half; no threshold is needed. Undefined where all rows are normal, or all anomalous.

    Args:
      data: has the `label`.
      score: the column of scores [N].
      label: the field that is 1 where a row is anomalous [N]; of windows [N, ...], where any of their rows is.

    Raises:
      ConfigError: no such field.
    """

    def prepare(table: Table, tuned: Mapping[str, Any]) -> Weighted:
        ranking = curves.rank(*_columns(table, score, label))
        return lambda weight_N: curves.roc_area(ranking.passed(weight_N))

    def interval(table: Table) -> Interval:
        label_N, score_N = _columns(table, score, label)
        return delong(label_N, score_N)

    return TableMetric(_reads(data, score, label), prepare, interval=interval)


def average_precision(data: DataSpec, score: str = "score", label: str = "label") -> TableMetric:
    """Return the area under the precision-recall curve of the scores, row by row, as the mean of precision's steps.

    A score that tells nothing has the share of anomalous rows. Undefined without any. Arguments as in `roc_auc`.

    Raises:
      ConfigError: no such field.
    """

    def prepare(table: Table, tuned: Mapping[str, Any]) -> Weighted:
        ranking = curves.rank(*_columns(table, score, label))
        return lambda weight_N: curves.average_precision(ranking.passed(weight_N))

    return TableMetric(_reads(data, score, label), prepare)


def f1_best(data: DataSpec, threshold: float | None = None, score: str = "score", label: str = "label") -> TableMetric:
    """Return F1 of flagged rows, row by row, at the threshold that is best for it on the validation split.

    Undefined without an anomalous row.

    Args:
      data: has the `label`.
      threshold: flags the rows of this score and above, where it is given instead.
      score: the column of scores [N].
      label: the field that is 1 where a row is anomalous [N]; of windows [N, ...], where any of their rows is.

    Raises:
      ConfigError: no such field.
    """
    return _at_threshold(data, threshold, score, label, _of(events.count_rows, _f1), events.best_for_rows)


def composite_f1(
    data: DataSpec, threshold: float | None = None, score: str = "score", label: str = "label"
) -> TableMetric:
    """Return the harmonic mean of the share of flagged rows that are anomalous and the share of events that are found.

    Garg et al. 2021 (arXiv 2109.11428, section 3.4). Long events count no more than short ones, and to flag many rows
    does not pay. At the threshold that is best for it on validation. Arguments and errors as in `f1_best`.
    """
    return _at_threshold(data, threshold, score, label, _composite, events.best_for_composite)


def event_f1(data: DataSpec, threshold: float | None = None, score: str = "score", label: str = "label") -> TableMetric:
    """Return F1 of events: 2 found / (2 found + missed + false alarms), as Hundman et al. 2018 count.

    To flag every row is one run, which finds all events without a false alarm: so it does not choose its threshold, but
    has that of `composite_f1`, which should be named beside it. Arguments and errors as in `f1_best`.
    """
    return _at_threshold(data, threshold, score, label, _of(events.count_events, _f1), events.best_for_composite)


def event_recall(
    data: DataSpec, threshold: float | None = None, score: str = "score", label: str = "label"
) -> TableMetric:
    """Return the share of events that are found, at the threshold of `event_f1`; arguments and errors as there."""
    return _at_threshold(data, threshold, score, label, _of(events.count_events, _recall), events.best_for_composite)


def event_precision(
    data: DataSpec, threshold: float | None = None, score: str = "score", label: str = "label"
) -> TableMetric:
    """Return found events / (found events + false alarms), at the threshold of `event_f1`.

    Undefined where nothing is found nor alarmed for. Arguments and errors as in `event_f1`.
    """
    return _at_threshold(data, threshold, score, label, _of(events.count_events, _precision), events.best_for_composite)


def point_adjusted_f1(
    data: DataSpec, threshold: float | None = None, score: str = "score", label: str = "label"
) -> TableMetric:
    """Return F1 of rows where one flagged row of an event counts as all of its rows (Xu et al. 2018, arXiv 1802.03903).

    For comparison with published numbers alone, as it inflates (Kim et al. 2022, arXiv 2109.05257): the longer an
    event, the likelier a score drawn at random flags one of its rows and is given all of them, so that random scores
    beat published models. `composite_f1` counts an event once. Arguments and errors as in `f1_best`.
    """
    return _at_threshold(data, threshold, score, label, _of(events.count_adjusted, _f1), events.best_for_adjusted)


Number = Callable[[Series, np.ndarray, float], float]  # of the rows that count, how often each does, and the threshold


def _at_threshold(
    data: DataSpec, threshold: float | None, score: str, label: str, number: Number, best: Callable[[Series], float]
) -> TableMetric:
    """Return the metric of a number at the threshold that is given, or else the `best` of the validation split."""

    def prepare(table: Table, tuned: Mapping[str, Any]) -> Weighted:
        limit = tuned.get("threshold", threshold)
        if limit is None:
            raise UndefinedError(_NO_THRESHOLD)
        series = _series(table, score, label)
        return lambda weight_N: number(*series.counted(weight_N), limit)

    def tune(table: Table) -> Mapping[str, Any]:
        try:
            series, _ = _series(table, score, label).counted(np.ones(len(table["id"])))
            return {"threshold": best(series)}
        except UndefinedError:
            return {}

    return TableMetric((*_reads(data, score, label), *_order(data)), prepare, None if threshold is not None else tune)


def _of(count: Callable[[Series, np.ndarray, float], Counts], number: Callable[[Counts], float]) -> Number:
    return lambda series, weight_M, threshold: number(count(series, weight_M, threshold))


def _f1(counts: Counts) -> float:
    return 2 * counts.found / (2 * counts.found + _some(counts).missed + counts.false)


def _recall(counts: Counts) -> float:
    return counts.found / (counts.found + _some(counts).missed)


def _precision(counts: Counts) -> float:
    if not _some(counts).found + counts.false:
        raise UndefinedError("no row is flagged")
    return counts.found / (counts.found + counts.false)


def _composite(series: Series, weight_M: np.ndarray, threshold: float) -> float:
    rows = events.count_rows(series, weight_M, threshold)
    recall = _recall(events.count_events(series, weight_M, threshold))
    if not recall:
        return 0.0
    precision = rows.found / (rows.found + rows.false)
    return 2 * precision * recall / (precision + recall)


def _some(counts: Counts) -> Counts:
    if not counts.found + counts.missed:
        raise UndefinedError("there is no anomalous row")
    return counts


def _reads(data: DataSpec, score: str, label: str) -> tuple[str, ...]:
    if label not in data.example:
        raise ConfigError(
            f"config.metrics: label={label!r}: the data has no such field{did_you_mean(label, data.example)}"
        )
    return (score, label)


def _order(data: DataSpec) -> tuple[str, ...]:
    return tuple(name for name in _ORDER if name in data.example and data.example[name].shape == ())


def _columns(table: Table, score: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows are anomalous [N] bool and their scores [N] float64."""
    score_N, label_N = np.asarray(table[score], np.float64), table[label]
    if score_N.ndim != 1:
        raise DataError(f"config.metrics: score={score!r} has the shape {score_N.shape}; expected a number a row")
    values = np.unique(label_N)
    if not np.isin(values, (0, 1)).all():
        raise DataError(
            f"config.metrics: label={label!r} holds {', '.join(map(str, values[:5]))}; expected 0 normal, 1 anomalous"
        )
    if np.isnan(score_N).any():
        raise UndefinedError(f"{np.isnan(score_N).sum()} of {len(score_N)} scores are nan")
    return np.asarray((label_N > 0).any(axis=tuple(range(1, label_N.ndim)))), score_N


def _series(table: Table, score: str, label: str) -> Series:
    """Return the table's rows in order of group, time and id."""
    label_N, score_N = _columns(table, score, label)
    numbers = {name: np.unique(table[name], return_inverse=True)[1] for name in _ORDER if name in table}
    row_N = np.lexsort([table["id"], *reversed(numbers.values())])
    group_N = numbers.get("group", np.zeros(len(row_N), np.int64))[row_N]
    return Series.of(row_N, table["id"][row_N], group_N, label_N[row_N], score_N[row_N])
