"""The metrics of tokens and numbers are NumPy's over what counts, for any split into batches."""

import functools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_pinball_loss,
    mean_squared_error,
    r2_score,
)

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.data.tokenizers import ByteTokenizer, CharacterTokenizer
from jaxlab.metrics import language, regress

B, T = 8, 5
random = np.random.default_rng(0)
MASK = np.array([1, 1, 0, 1, 1, 1, 0, 1], np.float32)
WEIGHT = random.integers(0, 2, (B, T)).astype(np.float32)
TOKENS = {
    "target": random.integers(0, 3, (B, T)), "prediction": random.integers(0, 3, (B, T)), "token_weight": WEIGHT,
    "token_loss": random.random((B, T)).astype(np.float32),
}  # fmt: skip
NUMBERS = {name: random.normal(size=(B, T)).astype(np.float32) for name in ("target", "prediction")}
NUMBERS["target_weight"] = WEIGHT
COUNTED = (WEIGHT * MASK[:, None]) > 0
QUANTILES = np.sort(random.normal(size=(B, T, 3)).astype(np.float32))
NUMBERS["quantiles"] = QUANTILES
BYTES = DataSpec({}, B, {"pieces": (b"", b"a", "\u00e9".encode()), "specials": {"pad": 0}})
LOSS = TOKENS["token_loss"][COUNTED].mean()
TRUE, FOUND = (NUMBERS[name][COUNTED] for name in ("target", "prediction"))
PINBALL = np.mean([mean_pinball_loss(TRUE, QUANTILES[COUNTED][:, i], alpha=q) for i, q in enumerate((0.1, 0.5, 0.9))])
LOW, _, HIGH = QUANTILES[COUNTED].T
INSIDE = ((LOW <= TRUE) & (HIGH >= TRUE)).mean()
METRICS = {
    "token_accuracy": (language.token_accuracy(), TOKENS, (TOKENS["target"] == TOKENS["prediction"])[COUNTED].mean()),
    "cross_entropy": (language.cross_entropy(), TOKENS, LOSS),
    "perplexity": (language.perplexity(), TOKENS, np.exp(LOSS)),
    "bits_per_token": (language.bits_per_token(), TOKENS, LOSS / math.log(2)),
    "bits_per_byte": (
        language.bits_per_byte(BYTES), TOKENS, LOSS / math.log(2) / TOKENS["target"][COUNTED].mean(),
    ),
    "mse": (regress.mse(), NUMBERS, mean_squared_error(TRUE, FOUND)),
    "rmse": (regress.rmse(), NUMBERS, mean_squared_error(TRUE, FOUND) ** 0.5),
    "mae": (regress.mae(), NUMBERS, mean_absolute_error(TRUE, FOUND)),
    "mape": (regress.mape(), NUMBERS, mean_absolute_percentage_error(TRUE, FOUND)),
    "smape": (regress.smape(), NUMBERS, np.mean(2 * np.abs(FOUND - TRUE) / (np.abs(FOUND) + np.abs(TRUE)))),
    "r2": (regress.r2(), NUMBERS, r2_score(TRUE, FOUND)),
    "pinball": (regress.pinball(), NUMBERS, PINBALL),
    "pinball of the prediction": (
        regress.pinball((0.7,), output="none"), NUMBERS, mean_pinball_loss(TRUE, FOUND, alpha=0.7),
    ),
    "coverage": (regress.coverage(), NUMBERS, INSIDE),
}  # fmt: skip
compiled = functools.cache(jax.jit)
each_metric = pytest.mark.parametrize("name", METRICS)


def value_of(metric, outputs, *parts):
    update = compiled(metric.update)
    statistics = [update({n: x[rows] for n, x in outputs.items()}, {"mask": MASK[rows]}) for rows in parts]
    return metric.compute(jax.tree.map(lambda *leaves: sum(map(np.asarray, leaves)), *statistics))


@each_metric
def test_it_is_the_mean_over_what_counts_in_one_batch_or_several(name):
    metric, outputs, expected = METRICS[name]
    assert value_of(metric, outputs, slice(None)) == pytest.approx(expected, rel=1e-5)
    assert value_of(metric, outputs, slice(0, 3), slice(3, None)) == pytest.approx(expected, rel=1e-5)


@each_metric
def test_what_a_padded_row_or_a_missing_number_holds_does_not_show(name):
    metric, outputs, expected = METRICS[name]
    spoilt = {
        n: np.where(COUNTED.reshape(B, T, *(1,) * (x.ndim - 2)), x, np.nan if x.dtype.kind == "f" else 10**6)
        for n, x in outputs.items()
    }
    weight = "target_weight" if "target_weight" in outputs else "token_weight"
    spoilt[weight] = np.where(MASK[:, None] > 0, outputs[weight], np.nan)
    assert value_of(metric, spoilt, slice(None)) == pytest.approx(expected, rel=1e-5)


@each_metric
def test_of_nothing_it_is_not_a_number(name):
    metric, outputs, _ = METRICS[name]
    assert np.isnan(metric.compute(metric.update(outputs, {"mask": 0 * MASK})))


def test_a_perplexity_beyond_all_numbers_is_infinite():
    outputs = {"token_loss": np.full((1, 1), 1e4, np.float32), "token_weight": np.ones((1, 1), np.float32)}
    metric = language.perplexity()
    assert metric.compute(metric.update(outputs, {"mask": np.ones(1, np.float32)})) == np.inf


def values_of(target, prediction):
    """Return a row a number, all of which count."""
    outputs = {"target": target, "prediction": prediction, "target_weight": np.ones(len(target))}
    return {n: np.asarray(x, np.float32) for n, x in outputs.items()}


def measured(metric, outputs, cut=0):
    size = len(outputs["target"])
    statistics = [
        jax.device_get(compiled(metric.update)({n: x[rows] for n, x in outputs.items()}, {"mask": np.ones(size)[rows]}))
        for rows in (slice(0, cut), slice(cut, size))
        if rows.start < rows.stop
    ]
    return metric.compute(jax.tree.map(lambda *leaves: np.sum(leaves, axis=0, dtype=np.float64), *statistics))


OF_NUMBERS = {
    "mape": (regress.mape(), mean_absolute_percentage_error),
    "r2": (regress.r2(), r2_score),
    "pinball": (regress.pinball((0.2,)), functools.partial(mean_pinball_loss, alpha=0.2)),
}
OF_SMAPE, OF_R2 = regress.smape(), regress.r2()
finite = st.floats(-1e4, 1e4, width=32)


@pytest.mark.parametrize("name", OF_NUMBERS)
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(finite, finite), min_size=6, max_size=6), st.sampled_from([0, 1, 4]))
def test_of_any_numbers_it_is_scikit_learns(name, pairs, cut):
    target, prediction = np.array(pairs, np.float32).T
    metric, oracle = OF_NUMBERS[name]
    found = measured(metric, values_of(target, prediction), cut)
    expected = oracle(target.astype(np.float64), prediction.astype(np.float64))
    if name == "r2" and math.isnan(found):
        assert target.astype(np.float64).std() <= 2e-3 * np.abs(target).max()
        return
    error = 1e-5 * (1 + abs(expected))
    if name == "r2":
        error *= 1 + np.mean(np.square(target, dtype=np.float64)) / np.var(target, dtype=np.float64)
    assert found == pytest.approx(expected, rel=1e-5, abs=error)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(finite, finite), min_size=6, max_size=6), st.sampled_from([0, 2]))
def test_smape_lies_from_0_to_2_and_is_its_formula(pairs, cut):
    target, prediction = np.array(pairs, np.float32).T.astype(np.float64)
    size = np.abs(target) + np.abs(prediction)
    normal = (size == 0) | (size > 1e-30)  # what is smaller is 0 where a device flushes it
    if normal.all():
        terms = np.divide(2 * np.abs(target - prediction), size, out=np.zeros(6), where=size > 0)
        found = measured(OF_SMAPE, values_of(target, prediction), cut)
        assert found == pytest.approx(terms.mean(), abs=1e-5)
        assert 0 <= found <= 2


def test_the_largest_numbers_and_those_of_no_number_show_in_smape():
    assert measured(OF_SMAPE, values_of([3e38, 3e38], [3e38, -3e38])) == pytest.approx(1)
    assert math.isnan(measured(OF_SMAPE, values_of([1.0, 2.0], [np.nan, 2.0])))


def test_of_targets_that_are_all_the_same_there_is_no_coefficient_of_determination():
    for value in (0.0, 0.1, -7.3, 12345.678):
        assert math.isnan(measured(OF_R2, values_of(np.full(9, value), np.arange(9))))
    assert math.isnan(measured(OF_R2, values_of([2.0], [1.0])))


def test_a_centre_keeps_the_digits_of_targets_far_from_0():
    random = np.random.default_rng(1)
    target = (1e6 + random.normal(size=500)).astype(np.float32).astype(np.float64)
    prediction = (target + 0.25 * np.round(random.normal(size=500))).astype(np.float32)
    outputs, expected = values_of(target, prediction), r2_score(target, prediction)
    assert measured(regress.r2(centre=1e6), outputs) == pytest.approx(expected, abs=1e-4)
    assert math.isnan(measured(OF_R2, outputs))  # rather than a number that is rounding


def test_as_good_as_the_mean_is_0_and_perfect_is_1():
    target = np.random.default_rng(2).normal(5, 2, 100)
    assert measured(OF_R2, values_of(target, np.full(100, target.mean()))) == pytest.approx(0, abs=1e-5)
    assert measured(OF_R2, values_of(target, target)) == pytest.approx(1)


@pytest.mark.parametrize(
    "tokenizer", [ByteTokenizer(), CharacterTokenizer(("pad", "unk", "eos"), map(ord, "ab\u00e9\u65e5"))]
)
def test_bits_per_byte_are_over_the_bytes_of_the_text_and_special_tokens_have_none(tokenizer):
    text = "ab\u00e9\u65e5ba"
    ids = np.array([[*tokenizer.encode(text), tokenizer.special["eos"], 0]], np.int32)
    by_letter = {i: letter.encode() for letter in text for i in tokenizer.encode(letter) if tokenizer.kind != "byte"}
    first = len(tokenizer.specials)
    pieces = tuple(by_letter.get(i, bytes([max(0, i - first)])) for i in range(tokenizer.vocabulary_size))
    metric = language.bits_per_byte(DataSpec({}, 1, {"pieces": pieces, "specials": tokenizer.special}))
    loss = np.full(ids.shape, math.log(2), np.float32)
    outputs = {"target": ids, "token_loss": loss, "token_weight": np.ones(ids.shape, np.float32)}
    outputs["token_weight"][0, -1] = 0
    found = metric.compute(metric.update(outputs, {"mask": np.ones(1, np.float32)}))
    assert found == pytest.approx((ids.size - 1) / len(text.encode()))


def test_text_of_special_tokens_alone_has_no_bytes():
    outputs = {name: np.ones((1, 2), np.float32) for name in ("token_loss", "token_weight")}
    outputs["target"] = np.zeros((1, 2), np.int32)
    metric = language.bits_per_byte(BYTES)
    assert math.isnan(metric.compute(metric.update(outputs, {"mask": np.ones(1, np.float32)})))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: language.bits_per_byte(BYTES._replace(meta={"a": 1})), r"needs the data's fact 'pieces'.*it has a"),
        (lambda: regress.pinball(()), r"pinball with quantiles=\(\); expected numbers between 0 and 1"),
        (lambda: regress.pinball((0.5, 1.0)), r"quantiles=\(0.5, 1.0\)"),
        (lambda: regress.coverage(low=0.2), r"low=0.2: not among quantiles"),
        (lambda: regress.coverage(low=0.9, high=0.1), r"expected the lower one first"),
        (
            lambda: regress.pinball((0.5,)).update(NUMBERS, {"mask": MASK}),
            r"pinball reads the model's quantiles, of shape \(8, 5, 3\); expected \(8, 5, 1\) for 1 quantiles",
        ),
        (
            lambda: regress.coverage(output="none").update(NUMBERS, {"mask": MASK}),
            r"coverage reads the model's none \(there is none, so prediction is read\)",
        ),
    ],
)
def test_what_cannot_be_measured_is_an_error(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
