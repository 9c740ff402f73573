"""Curves, their areas and tables of thresholds are scikit-learn's, with ties, extreme scores and weights of 0."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from jaxlab.core.errors import UndefinedError
from jaxlab.metrics import curves
from jaxlab.metrics.thresholds import best_threshold, threshold_table

SCORES = (-np.inf, -1e30, -1.0, -1e-310, 0.0, 5e-324, 1e-310, 0.3, 1.0, 1e30, np.inf)  # denormals among them
rows = st.lists(
    st.tuples(st.booleans(), st.sampled_from(SCORES) | st.floats(-3, 3, width=16), st.integers(0, 3)),
    min_size=1, max_size=40,
)  # fmt: skip
each_example = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


def columns(rows):
    positive, score, count = (np.array(column) for column in zip(*rows, strict=True))
    return positive, score, count.astype(np.float64)


def ranks(score):
    """Return the scores' order as integers, since scikit-learn refuses those that are not finite."""
    return np.unique(score, return_inverse=True)[1]


@pytest.fixture(autouse=True, params=[2, 1 << 14])
def _step(request, monkeypatch):
    """Cut rankings into many parts, and into one."""
    monkeypatch.setattr(curves, "_STEP", request.param)


@each_example
@given(rows)
def test_weighted_areas_are_scikit_learns_of_the_repeated_rows_or_undefined(rows):
    positive, score, count = columns(rows)
    times = count.astype(int)
    true, rank = np.repeat(positive, times), np.repeat(ranks(score), times)
    ranking = curves.rank(positive, score)
    if true.any() and not true.all():
        assert curves.roc_area(ranking.passed(count)) == pytest.approx(oracle.roc_auc_score(true, rank), abs=1e-12)
    else:
        with pytest.raises(UndefinedError, match=r"there is no (positive|negative) example"):
            curves.roc_area(ranking.passed(count))
    if true.any():
        assert curves.average_precision(ranking.passed(count)) == pytest.approx(
            oracle.average_precision_score(true, rank), abs=1e-12
        )
    else:
        with pytest.raises(UndefinedError, match="there is no positive example"):
            curves.average_precision(ranking.passed(count))


@each_example
@given(rows)
def test_whole_curves_are_scikit_learns(rows):
    positive, score, count = columns(rows)
    rank = ranks(score).astype(float)
    there = positive[count > 0]
    if there.any() and not there.all():
        found = curves.roc(positive, rank, count)
        for ours, theirs in zip(
            found, oracle.roc_curve(positive, rank, sample_weight=count, drop_intermediate=False), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
    if there.any():
        precision, recall, threshold = curves.precision_recall(positive, rank, count)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = oracle.precision_recall_curve(positive, rank, sample_weight=count)
        np.testing.assert_allclose(precision[::-1], theirs[0], atol=1e-12)
        np.testing.assert_allclose(recall[::-1], theirs[1], atol=1e-12)
        np.testing.assert_array_equal(threshold[:0:-1], theirs[2])


@each_example
@given(rows)
def test_rows_of_weight_0_are_as_absent(rows):
    positive, score, count = columns(rows)
    there = count > 0
    for curve in (curves.roc, curves.precision_recall):
        try:
            found = curve(positive, score, count)
        except UndefinedError:
            continue
        for ours, without in zip(found, curve(positive[there], score[there], count[there]), strict=True):
            np.testing.assert_array_equal(ours, without)


@each_example
@given(rows, st.sampled_from([0.1, 0.75, 3.0]))
def test_areas_do_not_depend_on_the_unit_of_the_weights(rows, unit):
    positive, score, count = columns(rows)
    ranking = curves.rank(positive, score)
    for area in (curves.roc_area, curves.average_precision):
        try:
            expected = area(ranking.passed(count))
        except UndefinedError:
            continue
        assert area(ranking.passed(unit * count)) == pytest.approx(expected, abs=1e-9)


def test_a_score_that_is_nan_has_no_rank():
    with pytest.raises(UndefinedError, match="1 of 2 scores are nan"):
        curves.rank(np.array([True, False]), np.array([np.nan, 1.0]))


def test_of_no_examples_nothing_is_defined():
    nothing = np.array([], bool), np.array([])
    for area in (curves.roc_area, curves.average_precision):
        with pytest.raises(UndefinedError):
            area(curves.rank(*nothing).passed(np.array([])))
    for curve in (curves.roc, curves.precision_recall, threshold_table, best_threshold):
        with pytest.raises(UndefinedError):
            curve(*nothing)


@each_example
@given(rows)
def test_the_table_of_thresholds_counts_what_each_gives_and_holds_the_best_f1(rows):
    positive, score, _ = columns(rows)
    table = threshold_table(positive, score)
    np.testing.assert_array_equal(table["threshold"], np.unique(score)[::-1])
    for k, threshold in enumerate(table["threshold"]):
        called = score >= threshold
        matrix = oracle.confusion_matrix(positive, called, labels=[False, True])
        names = ("true_negatives", "false_positives", "false_negatives", "true_positives")
        assert [table[name][k] for name in names] == matrix.reshape(-1).tolist()
        assert table["share_positive"][k] == pytest.approx(called.mean())
        assert table["precision"][k] == pytest.approx(oracle.precision_score(positive, called))
        if positive.any():
            assert table["recall"][k] == pytest.approx(oracle.recall_score(positive, called))
        assert table["f1"][k] == pytest.approx(oracle.f1_score(positive, called, zero_division=0))
    if positive.any():
        best = best_threshold(positive, score)
        assert best == table["threshold"][np.argmax(table["f1"])]
    short = threshold_table(positive, score, most=3)
    assert len(short["threshold"]) <= 3
    assert short["f1"].max() == table["f1"].max()


def test_a_table_of_many_thresholds_splits_the_examples_evenly():
    score = np.random.default_rng(0).normal(size=5000)
    table = threshold_table(score > 1, score, most=101)
    assert len(table["threshold"]) <= 101
    assert np.diff(table["share_positive"], prepend=0).max() <= 0.0103
    assert table["share_positive"][-1] == 1
    with pytest.raises(ValueError, match="most=1"):
        threshold_table(score > 1, score, most=1)
