"""The metrics of tokens and numbers are NumPy's over what counts, for any split into batches."""

import jax
import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error

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
LOSS = TOKENS["token_loss"][COUNTED].mean()
TRUE, FOUND = (NUMBERS[name][COUNTED] for name in ("target", "prediction"))
METRICS = {
    "token_accuracy": (language.token_accuracy(), TOKENS, (TOKENS["target"] == TOKENS["prediction"])[COUNTED].mean()),
    "cross_entropy": (language.cross_entropy(), TOKENS, LOSS),
    "perplexity": (language.perplexity(), TOKENS, np.exp(LOSS)),
    "mse": (regress.mse(), NUMBERS, mean_squared_error(TRUE, FOUND)),
    "rmse": (regress.rmse(), NUMBERS, mean_squared_error(TRUE, FOUND) ** 0.5),
    "mae": (regress.mae(), NUMBERS, mean_absolute_error(TRUE, FOUND)),
}
each_metric = pytest.mark.parametrize("name", METRICS)


def value_of(metric, outputs, *parts):
    update = jax.jit(metric.update)
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
    spoilt = {n: np.where(COUNTED, x, np.nan) if x.dtype.kind == "f" else x for n, x in outputs.items()}
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
