"""Metrics of counts are scikit-learn's or the paper's formula, for any classes, masks and cuts into batches."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, top_k_accuracy_score

from jaxlab.core.errors import ConfigError
from jaxlab.metrics import classify

PARTS = ("precision", "recall", "f1")


def outputs_of(seed, n, classes, spread=2.0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, spread, (n, classes)).astype(np.float32)
    target = generator.integers(0, classes, n).astype(np.int32)
    mask = (generator.random(n) < 0.8).astype(np.float32)
    return {"logits": logits, "target": target, "prediction": logits.argmax(-1).astype(np.int32)}, mask


@functools.cache
def made(factory, *arguments):
    """Return the metric that a factory makes: the same again, so that it is compiled once a shape."""
    return factory(*arguments)


@functools.cache
def jitted(metric):
    return jax.jit(metric.update)


def padded(value):
    """Return rows with as many more of no meaning as make 40."""
    return np.concatenate([value, np.ones((40 - len(value), *value.shape[1:]), value.dtype)])


def measured(metric, outputs, mask, cut=0):
    """Measure in two batches, cut where told and padded."""
    parts = []
    for rows in (slice(0, cut), slice(cut, None)):
        if len(mask[rows]):
            batch = {"mask": np.concatenate([mask[rows], np.zeros(40 - len(mask[rows]), np.float32)])}
            results = {name: padded(value[rows]) for name, value in outputs.items()}
            parts.append(jax.device_get(jitted(metric)(results, batch)))
    return metric.compute(jax.tree.map(lambda *sums: np.sum(sums, axis=0, dtype=np.float64), *parts))


cases = given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 6), st.integers(0, 40))


@pytest.mark.parametrize("average", ["macro", "weighted", "micro"])
@settings(deadline=None, max_examples=20)
@cases
def test_precision_recall_and_f1_are_scikit_learns(average, seed, n, classes, cut):
    outputs, mask = outputs_of(seed, n, classes)
    found = measured(made(classify.precision_recall_f1, average), outputs, mask, min(cut, n))
    real = mask > 0
    if not real.any():
        assert all(math.isnan(found[part]) for part in PARTS)
        return
    expected = precision_recall_fscore_support(
        outputs["target"][real], outputs["prediction"][real], average=average, zero_division=0
    )
    assert [found[part] for part in PARTS] == pytest.approx(expected[:3], abs=1e-6)


@pytest.mark.parametrize("average", ["macro", "weighted", "micro"])
@settings(deadline=None, max_examples=8)
@cases
def test_labels_are_counted_as_classes_are(average, seed, n, labels, cut):
    outputs, mask = outputs_of(seed, n, labels)
    target = np.random.default_rng(seed + 1).integers(0, 2, (n, labels)).astype(np.int32)
    outputs |= {"target": target, "prediction": (outputs["logits"] > 1).astype(np.int32)}
    real = mask > 0
    if not real.any():
        return
    target, prediction = target[real], outputs["prediction"][real]
    right = measured(made(classify.accuracy), outputs, mask, min(cut, n))
    assert right == pytest.approx(accuracy_score(target, prediction), abs=1e-6)
    there = np.flatnonzero((target + prediction).any(axis=0))
    found = measured(made(classify.precision_recall_f1, average), outputs, mask, min(cut, n))
    if target.any() and len(there):
        expected = precision_recall_fscore_support(
            target, prediction, labels=there, average=average, zero_division=np.nan if average == "micro" else 0
        )
        np.testing.assert_allclose([found[part] for part in PARTS], expected[:3], atol=1e-6)


@settings(deadline=None, max_examples=20)
@cases
def test_binary_scores_are_scikit_learns_or_undefined(seed, n, classes, cut):
    outputs, mask = outputs_of(seed, n, 2)
    found = measured(made(classify.precision_recall_f1, "binary"), outputs, mask, min(cut, n))
    real = mask > 0
    if not real.any():
        assert all(math.isnan(found[part]) for part in PARTS)
        return
    target, prediction = outputs["target"][real], outputs["prediction"][real]
    expected = precision_recall_fscore_support(target, prediction, labels=[1], average="macro", zero_division=np.nan)
    np.testing.assert_allclose([found[part] for part in PARTS], expected[:3], atol=1e-6)


@settings(deadline=None, max_examples=20)
@cases
def test_top_k_is_scikit_learns(seed, n, classes, cut):
    outputs, mask = outputs_of(seed, n, 7)
    real = mask > 0
    for k in (1, 3, 6):
        found = measured(made(classify.top_k, k), outputs, mask, min(cut, n))
        if real.any():
            rows = outputs["target"][real], outputs["logits"][real]
            assert found == pytest.approx(top_k_accuracy_score(*rows, k=k, labels=range(7)), abs=1e-6)
        else:
            assert math.isnan(found)


@settings(deadline=None, max_examples=20)
@cases
def test_brier_and_calibration_error_are_their_formulas_in_float64(seed, n, classes, cut):
    outputs, mask = outputs_of(seed, n, classes, spread=30.0 if seed % 3 == 0 else 1.0)
    real = mask > 0
    if not real.any():
        return
    logits, target = outputs["logits"][real].astype(np.float64), outputs["target"][real]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    brier = np.square(p - np.eye(classes)[target]).sum(axis=1).mean()
    assert measured(made(classify.brier), outputs, mask, min(cut, n)) == pytest.approx(brier, abs=1e-6)
    confidence, right = p.max(axis=1), outputs["prediction"][real] == target
    edges = np.linspace(0, 1, 11)
    inside = [(confidence > low) & (confidence <= high) for low, high in itertools.pairwise(edges)]
    if np.abs(confidence[:, None] - edges).min() > 1e-5:  # else float32 may put an example into the next bin
        expected = sum(abs(confidence[rows].sum() - right[rows].sum()) for rows in inside) / len(target)
        found = measured(made(classify.calibration_error, 10), outputs, mask, min(cut, n))
        assert found == pytest.approx(expected, abs=1e-6)


def test_padded_rows_may_hold_anything():
    outputs, mask = outputs_of(0, 30, 4)
    for metric in (classify.precision_recall_f1(), classify.top_k(2), classify.brier(), classify.calibration_error()):
        clean = measured(metric, outputs, mask)
        dirty = {name: value.copy() for name, value in outputs.items()}
        dirty["logits"][mask == 0], dirty["target"][mask == 0], dirty["prediction"][mask == 0] = np.nan, -1, 99
        assert measured(metric, dirty, mask) == pytest.approx(clean)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classify.top_k(0), "k=0; expected at least 1"),
        (lambda: classify.calibration_error(0), "bins=0; expected at least 1"),
        (lambda: classify.precision_recall_f1("makro"), "'makro'; expected one of .*did you mean 'macro'"),
    ],
)
def test_options_that_cannot_be_are_an_error(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
