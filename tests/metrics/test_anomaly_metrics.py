"""Metrics of anomalies are scikit-learn's by row and, by event, what walking along the series counts."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from jaxlab.core.errors import ConfigError, DataError, UndefinedError
from jaxlab.core.types import DataSpec
from jaxlab.metrics import anomaly

FIELDS = {name: jax.ShapeDtypeStruct((), np.int32) for name in ("label", "group", "time")}
SPEC = DataSpec(FIELDS, 0, {})
ROWWISE = {"roc_auc": anomaly.roc_auc(SPEC), "average_precision": anomaly.average_precision(SPEC)}
AT_BEST = {
    "f1_best": anomaly.f1_best(SPEC),
    "composite_f1": anomaly.composite_f1(SPEC),
    "event_f1": anomaly.event_f1(SPEC),
    "event_recall": anomaly.event_recall(SPEC),
    "event_precision": anomaly.event_precision(SPEC),
    "point_adjusted_f1": anomaly.point_adjusted_f1(SPEC),
}
row = st.tuples(st.integers(0, 1), st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, 3.0, 1e30]), st.integers(0, 2))
tables = st.lists(row, min_size=1, max_size=24).map(lambda rows: table_of(*zip(*rows, strict=True)))


def table_of(label, score, group=None):
    n = len(label)
    group = np.zeros(n, np.int32) if group is None else np.sort(np.asarray(group, np.int32))
    return {
        "id": np.arange(n, dtype=np.int32), "label": np.asarray(label, np.int32),
        "score": np.asarray(score, np.float32), "group": group, "time": 10 * np.arange(n),
    }  # fmt: skip


def repeated(table, counts):
    return {name: np.repeat(values, counts, axis=0) for name, values in table.items()}


def number(metric, table, weights=None, tuned=None):
    """Return the number, None where it is undefined."""
    tuned = {} if tuned is None else json.loads(json.dumps(tuned))
    try:
        return metric.prepare(table, tuned)(
            np.ones(len(table["id"])) if weights is None else np.asarray(weights, float)
        )
    except UndefinedError:
        return None


def walked(table, threshold):
    """Count events and false alarms by walking along the series, a row after the other."""
    found, missed, false, adjusted = 0, 0, 0, np.array(table["score"] >= threshold)
    n = len(table["id"])
    flagged = table["score"] >= threshold

    def runs(there):
        result = []
        for i in range(n):
            if there[i]:
                goes_on = i > 0 and there[i - 1] and table["group"][i] == table["group"][i - 1]
                result[-1:] = [[*result[-1], i]] if goes_on else [*result[-1:], [i]]
        return result

    for event in runs(table["label"] == 1):
        hit = any(flagged[i] for i in event)
        found, missed = found + hit, missed + (not hit)
        if hit:
            adjusted[event] = True
    for run in runs(flagged):
        false += all(table["label"][i] == 0 for i in run)
    return found, missed, false, adjusted


def expected(name, table, threshold):
    """Return the number by definition, None where it is undefined."""
    found, missed, false, adjusted = walked(table, threshold)
    if not found + missed:
        return None
    if name in ("f1_best", "point_adjusted_f1"):
        flagged = adjusted if name == "point_adjusted_f1" else table["score"] >= threshold
        return f1_score(table["label"], flagged, zero_division=0)
    if name == "composite_f1":
        flagged = table["score"] >= threshold
        precision, recall = table["label"][flagged].mean() if flagged.any() else 0, found / (found + missed)
        return 2 * precision * recall / (precision + recall) if found else 0.0
    if name == "event_recall":
        return found / (found + missed)
    if name == "event_precision":
        return found / (found + false) if found + false else None
    return 2 * found / (2 * found + missed + false)


@settings(deadline=None, max_examples=100)
@given(tables)
def test_areas_by_row_are_scikit_learns(table):
    label, score = table["label"], np.clip(table["score"], -1e30, 1e30)
    both = 0 < label.sum() < len(label)
    assert number(ROWWISE["roc_auc"], table) == (pytest.approx(roc_auc_score(label, score)) if both else None)
    average = pytest.approx(average_precision_score(label, score)) if label.any() else None
    assert number(ROWWISE["average_precision"], table) == average


@pytest.mark.parametrize("name", AT_BEST)
@settings(deadline=None, max_examples=100)
@given(tables, st.sampled_from([-1.0, 0.5, 3.0, 1e31]))
def test_at_a_threshold_it_is_its_definition(name, table, threshold):
    value = expected(name, table, threshold)
    found = number(AT_BEST[name], table, tuned={"threshold": threshold})
    assert found == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("name", "by"),
    [
        *((name, name) for name in ("f1_best", "composite_f1", "point_adjusted_f1")),
        *((name, "composite_f1") for name in ("event_f1", "event_recall", "event_precision")),
    ],
)
@settings(deadline=None, max_examples=100)
@given(tables)
def test_the_threshold_is_the_best_of_all_on_the_validation_split(name, by, table):
    tuned = AT_BEST[name].tune(table)
    if not table["label"].any():
        assert tuned == {}
        assert number(AT_BEST[name], table, tuned=tuned) is None
        return
    best = max(expected(by, table, threshold) for threshold in np.unique(table["score"]))
    assert expected(by, table, tuned["threshold"]) == pytest.approx(best)
    later = [t for t in np.unique(table["score"]) if t > tuned["threshold"]]
    assert all(expected(by, table, threshold) < best - 1e-9 for threshold in later), "the highest of equals"


@pytest.mark.parametrize("name", [*ROWWISE, *AT_BEST])
@settings(deadline=None, max_examples=60)
@given(tables, st.data())
def test_counts_are_rows_as_often_in_any_order(name, table, data):
    metric, tuned = {**ROWWISE, **AT_BEST}[name], {"threshold": 0.5}
    n = len(table["id"])
    counts = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    again = repeated(table, counts)
    order = np.random.default_rng(n).permutation(len(again["id"]))
    for rows in (again, {column: values[order] for column, values in again.items()}):
        value = number(metric, rows, tuned=tuned)
        assert number(metric, table, counts, tuned) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize("name", AT_BEST)
@settings(deadline=None, max_examples=60)
@given(tables, st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_a_group_that_is_drawn_again_is_as_one_more_group(name, table, drawn):
    """What resampling groups means: copies of a group are groups of their own."""
    copies = [
        {column: values[table["group"] == group] for column, values in table.items()}
        for group in range(3)
        for _ in range(drawn[group])
    ]
    counts, tuned = np.array(drawn)[table["group"]], {"threshold": 0.5}
    found = number(AT_BEST[name], table, counts, tuned)
    if not copies or not counts.any():
        assert found is None
        return
    series = {column: np.concatenate([copy[column] for copy in copies]) for column in table}
    series["group"] = np.repeat(np.arange(len(copies)), [len(copy["id"]) for copy in copies])
    value = expected(name, {**series, "id": np.arange(len(series["id"]))}, 0.5)
    assert found == (None if value is None else pytest.approx(value))


def test_an_event_is_found_once_and_a_run_that_reaches_out_of_it_is_no_false_alarm():
    table = table_of([0, 0, 1, 1, 1, 0, 0, 0, 1, 0], [0, 9, 9, 0, 9, 9, 0, 9, 0, 0])
    tuned = {"threshold": 5.0}  # one event found twice over, one missed, one false alarm
    assert number(AT_BEST["event_recall"], table, tuned=tuned) == 1 / 2
    assert number(AT_BEST["event_precision"], table, tuned=tuned) == 1 / 2
    assert number(AT_BEST["event_f1"], table, tuned=tuned) == 2 / 4
    assert number(AT_BEST["f1_best"], table, tuned=tuned) == pytest.approx(2 * 2 / (2 * 2 + 2 + 3))
    assert number(AT_BEST["point_adjusted_f1"], table, tuned=tuned) == pytest.approx(2 * 3 / (2 * 3 + 1 + 3))


def test_point_adjustment_praises_random_scores_where_the_others_do_not():
    random = np.random.default_rng(0)
    label = np.zeros(4000, int)
    for start in range(100, 4000, 500):
        label[start : start + 100] = 1
    table = table_of(label, random.random(4000))
    adjusted, composite, by_row = (
        number(AT_BEST[name], table, tuned=AT_BEST[name].tune(table))
        for name in ("point_adjusted_f1", "composite_f1", "f1_best")
    )
    assert adjusted > 0.85
    assert max(composite, by_row) < 0.5


def test_to_flag_all_rows_finds_every_event_so_that_is_not_what_chooses_the_threshold():
    table = table_of([0, 1, 0, 0, 0, 1, 0, 0], [3, 7, 0, 2, 0, 1, 2, 3])
    assert number(AT_BEST["event_f1"], table, tuned={"threshold": 0.0}) == 1
    assert number(AT_BEST["composite_f1"], table, tuned={"threshold": 0.0}) == pytest.approx(2 / 5)
    assert AT_BEST["event_f1"].tune(table) == {"threshold": 7.0}


def test_rows_are_in_the_order_of_group_and_time_not_of_the_table():
    table = table_of([0, 1, 1, 0, 1, 0], [0, 0, 9, 0, 9, 9], [0, 0, 0, 1, 1, 1])
    moved = {**table, "id": np.array([4, 0, 5, 2, 1, 3])}
    assert number(AT_BEST["event_f1"], moved, tuned={"threshold": 5}) == 1
    without = DataSpec({"label": FIELDS["label"]}, 0, {})
    assert anomaly.event_f1(SPEC).reads == ("score", "label", "group", "time")
    assert anomaly.event_f1(without).reads == ("score", "label")
    assert anomaly.roc_auc(SPEC).reads == ("score", "label")


def test_a_threshold_that_is_given_is_not_tuned_and_without_one_there_is_no_number():
    table = table_of([0, 1, 1, 0], [0.1, 0.2, 0.3, 0.25])
    metric = anomaly.f1_best(SPEC, threshold=0.25)
    assert metric.tune is None
    assert number(metric, table) == pytest.approx(1 / 2)
    with pytest.raises(UndefinedError, match="validation split, which was not measured"):
        AT_BEST["f1_best"].prepare(table, {})


def test_a_window_is_anomalous_where_a_row_of_it_is():
    table = table_of([0, 0, 0], [1, 2, 3])
    table["target"] = np.array([[[0], [0]], [[0], [1]], [[1], [1]]], np.float32)
    spec = DataSpec({"target": jax.ShapeDtypeStruct((2, 1), np.float32)}, 3, {})
    assert number(anomaly.roc_auc(spec, label="target"), table) == 1
    assert number(anomaly.f1_best(spec, 3.0, label="target"), table) == pytest.approx(2 / 3)


def test_the_interval_of_the_area_is_delongs_around_it():
    random = np.random.default_rng(1)
    label = random.integers(0, 2, 200)
    table = table_of(label, label + random.normal(0, 1, 200))
    interval = ROWWISE["roc_auc"].interval(table)
    assert interval.point == pytest.approx(number(ROWWISE["roc_auc"], table))
    assert interval.low < interval.point < interval.high
    with pytest.raises(UndefinedError):
        ROWWISE["roc_auc"].interval(table_of([0, 0], [1, 2]))


def test_what_is_no_label_or_no_score_is_an_error():
    with pytest.raises(ConfigError, match="label='lable': the data has no such field; did you mean 'label'"):
        anomaly.event_f1(SPEC, label="lable")
    table = table_of([0, 2], [1, 2])
    for metric in (*ROWWISE.values(), anomaly.event_f1(SPEC, 1.0)):
        with pytest.raises(DataError, match="label='label' holds 0, 2; expected 0 normal, 1 anomalous"):
            metric.prepare(table, {})
    wide = {**table_of([0, 1], [1, 2]), "score": np.ones((2, 3))}
    with pytest.raises(DataError, match=r"score='score' has the shape \(2, 3\)"):
        ROWWISE["roc_auc"].prepare(wide, {})
    for metric in (*ROWWISE.values(), anomaly.event_f1(SPEC, 1.0)):
        assert number(metric, table_of([0, 1], [np.nan, 2])) is None
    assert AT_BEST["event_f1"].tune(table_of([0, 1], [np.nan, 2])) == {}
