"""Events of a series: runs of anomalous rows side by side, and what a threshold of the scores finds of them.

No run goes from one group to the next. Events are measured as Hundman et al. 2018 (arXiv 1802.04431, section 4.2) do:
an event is found if any of its rows is flagged, however many are, and counts once; a run of flagged rows that touches
no event is a false alarm.

Of resamples the rows that count, in their order, are the series. A row that counts several times is one row still, and
an event, or a run of flagged rows, counts as often as its rows do on average. So the events of a group that is drawn
twice count twice, and those of one that is not drawn are not there. Draws of single rows tear events apart: draw
groups, or blocks of time. Knows no model and no file.
Shape letters: N rows of a table, M rows that count, E events, K thresholds,V values.
Usage: ``count_events(*series.counted(weight_N), threshold)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxlab.core.errors import UndefinedError


class Counts(NamedTuple):
    """How much there is of what is found, of what is missed, and of false alarms."""

    found: float
    missed: float
    false: float


class Series(NamedTuple):
    """Rows in order, an array each."""

    row: np.ndarray  # where they stand in the table
    copy: np.ndarray  # numbers from 0, rising: rows of one number are copies of one row
    group: np.ndarray  # likewise of groups
    label: np.ndarray  # bool
    score: np.ndarray  # float64

    @classmethod
    def of(
        cls, row_N: np.ndarray, id_N: np.ndarray, group_N: np.ndarray, label_N: np.ndarray, score_N: np.ndarray
    ) -> Series:
        """Return the series of rows in order, whose copies and groups lie side by side."""
        return cls(row_N, _numbers(id_N), _numbers(group_N), label_N, score_N)

    def counted(self, weight_N: np.ndarray) -> tuple[Series, np.ndarray]:
        """Return the rows that count, copies as one, and how often each does [M]."""
        weight = np.bincount(self.copy, np.asarray(weight_N, np.float64)[self.row])
        first = np.flatnonzero(np.diff(self.copy, prepend=-1))
        kept = first[weight > 0]
        return Series(*(values[kept] for values in self)), weight[weight > 0]

    def runs(self, there_M: np.ndarray) -> np.ndarray:
        """Return for each row the number of its run of such rows, from 0; of other rows it says nothing."""
        before_M = np.concatenate([[False], there_M[:-1]])
        begins_M = there_M & (~before_M[: len(there_M)] | (np.diff(self.group, prepend=-1) != 0))
        return np.cumsum(begins_M) - 1


class Steps(NamedTuple):
    """A falling function of the threshold: the sum of the amounts whose value it does not exceed."""

    value: np.ndarray
    amount: np.ndarray

    def at(self, threshold_K: np.ndarray) -> np.ndarray:
        """Return the sums [K]."""
        order_V = np.argsort(self.value)
        until = np.concatenate([[0.0], np.cumsum(self.amount[order_V])])
        return until[-1] - until[np.searchsorted(self.value[order_V], threshold_K)]


def count_rows(series: Series, weight_M: np.ndarray, threshold: float) -> Counts:
    """Return the rows found, missed and flagged though normal."""
    flagged_M, label_M = series.score >= threshold, series.label
    kinds = (label_M & flagged_M, label_M & ~flagged_M, ~label_M & flagged_M)
    return Counts(*(float(weight_M[rows_M].sum()) for rows_M in kinds))


def count_events(series: Series, weight_M: np.ndarray, threshold: float) -> Counts:
    """Return the events found and missed, and the runs of flagged rows that touch none."""
    flagged_M = series.score >= threshold
    both_M = flagged_M & series.label
    weight_E, found_E = _of_runs(series.runs(series.label), series.label, both_M, weight_M)
    alarm, touches = _of_runs(series.runs(flagged_M), flagged_M, both_M, weight_M)
    return Counts(float(weight_E[found_E].sum()), float(weight_E[~found_E].sum()), float(alarm[~touches].sum()))


def count_adjusted(series: Series, weight_M: np.ndarray, threshold: float) -> Counts:
    """Return the rows of the events found and of those missed, and the rows flagged though normal."""
    flagged_M, label_M = series.score >= threshold, series.label
    event = series.runs(label_M)[label_M]
    weight_E, found_E = np.bincount(event, weight_M[label_M]), np.bincount(event, flagged_M[label_M]) > 0
    false = float(weight_M[~label_M & flagged_M].sum())
    return Counts(float(weight_E[found_E].sum()), float(weight_E[~found_E].sum()), false)


def best_for_rows(series: Series) -> float:
    """Return the score that flags rows with the best F1, the highest of equals.

    Raises:
      UndefinedError: no row is anomalous.
    """
    threshold_K, _, rows_E = _thresholds(series)
    own = Steps(series.score[series.label], np.ones(int(rows_E.amount.sum())))
    return _best(threshold_K, _f1(own.at(threshold_K), _false(series, threshold_K), own.amount.sum()))


def best_for_adjusted(series: Series) -> float:
    """Return the score of the best point-adjusted F1; see `best_for_rows`."""
    threshold_K, _, rows_E = _thresholds(series)
    return _best(threshold_K, _f1(rows_E.at(threshold_K), _false(series, threshold_K), rows_E.amount.sum()))


def best_for_composite(series: Series) -> float:
    """Return the score of the best harmonic mean of rows' precision and events' recall; see `best_for_rows`."""
    threshold_K, events_E, _ = _thresholds(series)
    own_K = Steps(series.score[series.label], np.ones(int(series.label.sum()))).at(threshold_K)
    precision_K = own_K / (own_K + _false(series, threshold_K))
    recall_K = events_E.at(threshold_K) / len(events_E.amount)
    return _best(threshold_K, 2 * precision_K * recall_K / np.maximum(precision_K + recall_K, 1e-300))


def _thresholds(series: Series) -> tuple[np.ndarray, Steps, Steps]:
    """Return all scores [K], falling, and how many events are found at each, and how many rows these have."""
    if not series.label.any():
        raise UndefinedError("there is no anomalous row")
    event = series.runs(series.label)[series.label]
    highest_E = np.maximum.reduceat(series.score[series.label], np.flatnonzero(np.diff(event, prepend=-1)))
    rows_E = np.bincount(event).astype(np.float64)
    return np.unique(series.score)[::-1], Steps(highest_E, np.ones(len(rows_E))), Steps(highest_E, rows_E)


def _false(series: Series, threshold_K: np.ndarray) -> np.ndarray:
    normal = series.score[~series.label]
    return Steps(normal, np.ones(len(normal))).at(threshold_K)


def _f1(found_K: np.ndarray, false_K: np.ndarray, total: float) -> np.ndarray:
    return 2 * found_K / (found_K + total + false_K)


def _best(threshold_K: np.ndarray, value_K: np.ndarray) -> float:
    return float(threshold_K[np.argmax(value_K >= value_K.max() - 1e-12)])  # equals differ in the last digit


def _of_runs(
    run_M: np.ndarray, there_M: np.ndarray, marked_M: np.ndarray, weight_M: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return of each run of rows that are `there` the mean weight, and whether one of its rows is marked."""
    run = run_M[there_M]
    return np.bincount(run, weight_M[there_M]) / np.bincount(run), np.bincount(run, marked_M[there_M]) > 0


def _numbers(names_N: np.ndarray) -> np.ndarray:
    """Return numbers from 0 that rise where a name differs from the one before."""
    if not len(names_N):
        return np.zeros(0, np.int64)
    return np.cumsum(np.concatenate([[False], names_N[1:] != names_N[:-1]]))
