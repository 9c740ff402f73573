"""Metrics of classes from the prediction store are scikit-learn's, weighted as the repeated table, or say why not."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from jaxlab.core.errors import ConfigError, DataError, UndefinedError
from jaxlab.core.types import DataSpec
from jaxlab.metrics import agreement, scores, thresholds
from jaxlab.metrics.intervals import bootstrap, examples

each_example = settings(deadline=None, max_examples=25)
seeds, sizes, spreads = st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([1.0, 8.0])


def data_of(classes):
    return DataSpec({}, 0, {"classes": tuple("abcdefgh"[:classes])})


def table_of(seed, n, classes, spread=1.0, labels=False):
    """Return a table whose scores are better than chance and tied here and there."""
    random = np.random.default_rng(seed)
    target = random.integers(0, 2, (n, classes)) if labels else random.integers(0, classes, n)
    right = target if labels else np.eye(classes)[target]
    logits = (np.round(random.normal(0, spread, (n, classes)), 1) + right).astype(np.float32)
    prediction = (logits > 0).astype(np.int32) if labels else logits.argmax(axis=1).astype(np.int32)
    return {"logits": logits, "target": target.astype(np.int32), "prediction": prediction}


def value(metric, table, weights=None, tuned=None):
    weights = np.ones(len(table["target"])) if weights is None else np.asarray(weights, np.float64)
    return metric.prepare(table, tuned or {})(weights)


def softmax(logits):
    p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


ORACLES = {"roc_auc": oracle.roc_auc_score, "average_precision": oracle.average_precision_score}
each_area = pytest.mark.parametrize("name", ORACLES)


@each_area
@pytest.mark.parametrize("average", ["macro", "weighted", "micro"])
@pytest.mark.parametrize("kind", ["binary", "classes", "labels"])
@each_example
@given(seeds, sizes, spreads)
def test_areas_are_scikit_learns(name, average, kind, seed, n, spread):
    classes = 2 if kind == "binary" else 4
    table = table_of(seed, n, classes, spread, labels=kind == "labels")
    metric = getattr(scores, name)(data_of(classes), average)
    weights = np.random.default_rng(seed).integers(0, 3, n)
    there = weights > 0
    if kind == "binary":
        positive, score, options = table["target"], table["logits"].astype(np.float64) @ [-1, 1], {}
    else:
        positive = table["target"] if kind == "labels" else np.eye(classes)[table["target"]]
        options = {"average": average}
        score = table["logits"] if kind == "labels" else scores.log_odds(table["logits"])
    counted = np.atleast_2d(positive[there].T) > 0
    enough = counted.any(axis=1) & (~counted.all(axis=1) | (name == "average_precision"))
    if counted.size and enough.all():
        expected = ORACLES[name](positive, score, sample_weight=weights, **options)
        assert value(metric, table, weights) == pytest.approx(expected, abs=1e-9)
    elif average == "macro":
        with pytest.raises(UndefinedError):
            value(metric, table, weights)


def test_roc_auc_of_classes_is_scikit_learns_one_against_the_rest():
    table = table_of(0, 60, 4)
    expected = oracle.roc_auc_score(table["target"], softmax(table["logits"]), multi_class="ovr")
    assert value(scores.roc_auc(data_of(4)), table) == pytest.approx(expected, abs=1e-9)


@each_area
def test_what_is_missing_is_named(name):
    metric = getattr(scores, name)(data_of(3))
    table = table_of(0, 20, 3)
    with pytest.raises(UndefinedError, match="no positive example of class 'b'"):
        value(metric, table, table["target"] != 1)
    labelled = table_of(0, 20, 3, labels=True)
    with pytest.raises(UndefinedError, match="no positive example of label 'c'"):
        value(metric, labelled, labelled["target"][:, 2] == 0)
    binary = table_of(0, 20, 2)
    with pytest.raises(UndefinedError, match="no positive example of class 'b'"):
        value(getattr(scores, name)(data_of(2)), binary, binary["target"] == 0)
    for weights in (np.zeros(20), np.eye(20)[0]):
        with pytest.raises(UndefinedError):
            value(metric, table, weights)


@pytest.mark.parametrize("extreme", [np.inf, 1e30, 1e-40])
def test_extreme_logits_rank_as_their_probabilities_would_without_rounding(extreme):
    target = np.array([0, 1, 1, 0, 1], np.int32)
    other = np.array([-extreme, extreme, 1.0, -1.0, 0.0], np.float32)
    table = {"logits": np.stack([np.zeros(5, np.float32), other], axis=1), "target": target}
    expected = oracle.roc_auc_score(target, np.unique(other, return_inverse=True)[1])
    assert value(scores.roc_auc(data_of(2)), table) == pytest.approx(expected)
    three = {"logits": np.concatenate([table["logits"], np.full((5, 1), -2.0, np.float32)], axis=1), "target": target}
    odds = scores.log_odds(three["logits"])
    assert not np.isnan(odds).any()
    assert (np.diff(odds[np.argsort(other), 1]) >= -1e-12).all()


def test_log_odds_are_those_of_the_probabilities_and_keep_what_those_round_off():
    logits = np.random.default_rng(0).normal(0, 3, (50, 5))
    p = softmax(logits)
    np.testing.assert_allclose(scores.log_odds(logits), np.log(p / (1 - p)), rtol=1e-9, atol=1e-12)
    sure = scores.log_odds(np.array([[100.0, 0.0, 0.0], [200.0, 0.0, 0.0]]))[:, 0]
    np.testing.assert_allclose(sure, [100 - np.log(2), 200 - np.log(2)])


def test_two_infinite_logits_have_no_order_and_so_no_area():
    table = table_of(0, 10, 2)
    table["logits"][3] = np.inf
    for name in ORACLES:
        with pytest.raises(UndefinedError, match="1 of 10 scores are nan"):
            value(getattr(scores, name)(data_of(2)), table)
    with pytest.raises(UndefinedError, match="nan"):
        scores.roc_auc(data_of(2)).interval(table)


def test_delongs_interval_is_near_the_bootstraps_and_for_two_classes_alone():
    table = table_of(0, 300, 2)
    metric = scores.roc_auc(data_of(2))
    interval = metric.interval(table)
    numbers = metric.prepare(table, {})
    drawn = bootstrap([lambda weights: {"": numbers(weights)}], examples(300), resamples=500)[""]
    assert interval.point == pytest.approx(value(metric, table))
    assert interval[1:3] == pytest.approx(drawn[1:3], abs=0.01)
    for other in (table_of(0, 30, 3), table_of(0, 30, 2, labels=True)):
        with pytest.raises(UndefinedError, match="two classes"):
            metric.interval(other)


@each_example
@given(seeds, sizes, st.integers(2, 5))
def test_agreement_is_scikit_learns_or_undefined(seed, n, classes):
    table, weights = table_of(seed, n, classes), np.random.default_rng(seed).integers(0, 3, n)
    target, prediction = (np.repeat(table[name], weights) for name in ("target", "prediction"))
    data = data_of(classes)
    if len(np.unique(target)) > 1 and len(np.unique(prediction)) > 1:
        expected = oracle.matthews_corrcoef(target, prediction)
        assert value(agreement.matthews(data), table, weights) == pytest.approx(expected, abs=1e-9)
    else:
        with pytest.raises(UndefinedError):
            value(agreement.matthews(data), table, weights)
    for name in ("none", "linear", "quadratic"):
        metric = agreement.cohen_kappa(data, name)
        if len({*target, *prediction}) > 1:
            options = {"labels": range(classes), "weights": None if name == "none" else name}
            expected = oracle.cohen_kappa_score(target, prediction, **options)
            assert value(metric, table, weights) == pytest.approx(expected, abs=1e-9)
        else:
            with pytest.raises(UndefinedError):
                value(metric, table, weights)


@each_example
@given(seeds, sizes)
def test_tuned_f1_is_the_highest_of_all_thresholds_on_validation_and_scikit_learns_elsewhere(seed, n):
    metric, valid, test = thresholds.f1_tuned(data_of(2)), table_of(seed, n, 2), table_of(seed + 1, n, 2)
    if not valid["target"].any():
        with pytest.raises(UndefinedError, match="no threshold: there is no positive example of class 'b'"):
            metric.tune(valid)
        return
    tuned = metric.tune(valid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = max(
            oracle.f1_score(valid["target"], softmax(valid["logits"])[:, 1] >= threshold - 1e-9)
            for threshold in softmax(valid["logits"])[:, 1]
        )
    assert value(metric, valid, tuned=tuned)["f1"] == pytest.approx(best)
    called = softmax(test["logits"])[:, 1] >= tuned["threshold"] - 1e-9
    if test["target"].any() and called.any():
        found = value(metric, test, tuned=tuned)
        expected = oracle.precision_recall_fscore_support(test["target"], called, average="binary")
        assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    else:
        with pytest.raises(UndefinedError):
            value(metric, test, tuned=tuned)


def test_labels_have_a_threshold_each_and_means_of_their_scores():
    metric, table = thresholds.f1_tuned(data_of(3)), table_of(0, 50, 3, labels=True)
    tuned = metric.tune(table)
    called = 1 / (1 + np.exp(-table["logits"].astype(np.float64))) >= np.array(tuned["threshold"]) - 1e-9
    expected = oracle.precision_recall_fscore_support(table["target"], called, average="macro")
    found = value(metric, table, tuned=tuned)
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    assert found["f1"] >= oracle.f1_score(table["target"], table["prediction"], average="macro")


def test_without_a_threshold_there_is_no_tuned_f1():
    metric, table = thresholds.f1_tuned(data_of(2)), table_of(0, 10, 2)
    with pytest.raises(UndefinedError, match="no threshold: none was chosen"):
        metric.prepare(table, {})
    with pytest.raises(DataError, match="2 thresholds from the validation split for 1"):
        metric.prepare(table, {"threshold": [0.1, 0.2]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: scores.roc_auc(data_of(2), "makro"), "roc_auc with average='makro'.*did you mean 'macro'"),
        (lambda: scores.average_precision(data_of(2), "mean"), "average_precision with average='mean'; expected one"),
        (lambda: agreement.cohen_kappa(data_of(2), "square"), "weights='square'; expected one of none, linear"),
    ],
)
def test_options_that_cannot_be_are_an_error(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_class_that_does_not_exist_is_an_error():
    table = {**table_of(0, 10, 3), "target": np.full(10, 7, np.int32)}
    with pytest.raises(DataError, match="target: the class 7; expected 0 to 2"):
        agreement.matthews(data_of(3)).prepare(table, {})
