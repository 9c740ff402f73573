"""What one step keeps: the average's formula, randomness as a function of seed and step, float32 around bfloat16."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.metrics import classify as metrics
from jaxlab.models import mlp
from jaxlab.objectives import classify
from jaxlab.train.eval_step import make_eval_step
from jaxlab.train.evaluate import summarise
from jaxlab.train.step import init_state, make_train_step

BATCH = 8
DATA = DataSpec(
    {"image": jax.ShapeDtypeStruct((4,), np.float32), "label": jax.ShapeDtypeStruct((), np.int32)},
    BATCH,
    {"classes": tuple("abc")},
)
METRICS = {"accuracy": metrics.accuracy(), "cross_entropy": metrics.cross_entropy()}
OBJECTIVE, OPTIMIZER = classify.make(DATA), optax.sgd(0.1)


def make_batch(seed=0):
    random = np.random.default_rng(seed)
    fields = {
        "image": random.normal(size=(BATCH, 4)).astype(np.float32),
        "label": random.integers(0, 3, BATCH).astype(np.int32),
        "mask": np.ones(BATCH, np.float32),
        "id": np.arange(BATCH, dtype=np.int32),
    }
    return {name: jnp.asarray(value) for name, value in fields.items()}


def make(dropout=0.0, ema=None, seed=0, **options):
    """Return a compiled step and the state before the first."""
    model = mlp.make(DATA, None, hidden=(16,), dropout=dropout)
    state = init_state(model, OBJECTIVE, OPTIMIZER, make_batch(), seed, ema is not None)
    step = make_train_step(model, OBJECTIVE, METRICS, OPTIMIZER, seed=seed, ema=ema, **options)
    return jax.jit(step), state


def equal(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_the_average_is_that_of_the_parameters_by_hand():
    step, state = make(ema=0.6)
    average = jax.tree.map(np.asarray, state.params)
    assert equal(state.ema, average)
    for number in range(5):
        state, _ = step(state, make_batch(number))
        average = jax.tree.map(lambda a, p: 0.6 * a + 0.4 * np.asarray(p), average, state.params)
        jax.tree.map(lambda a, e: np.testing.assert_allclose(e, a, rtol=1e-5, atol=1e-7), average, state.ema)


def test_evaluation_uses_the_average_where_there_is_one():
    step, state = make(ema=0.9)
    for number in range(3):
        state, _ = step(state, make_batch(number))
    evaluate = jax.jit(make_eval_step(mlp.make(DATA, None, hidden=(16,)), OBJECTIVE, METRICS))
    _, averaged = evaluate(state, make_batch())
    _, expected = evaluate(state.replace(params=state.ema, ema=None), make_batch())
    _, raw = evaluate(state.replace(ema=None), make_batch())
    assert equal(averaged, expected)
    assert not np.array_equal(averaged["logits"], raw["logits"])


def test_a_step_is_plain_gradient_descent_on_the_mean_loss():
    step, state = make()
    batch = make_batch()

    def mean_loss(params):
        logits = mlp.make(DATA, None, hidden=(16,)).apply({"params": params}, batch["image"], train=True)["logits"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, jax.grad(mean_loss)(state.params))
    after, statistics = step(state, batch)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-7), after.params, expected)
    row = summarise(jax.device_get(statistics), METRICS, "train")
    assert row["train/loss"] == pytest.approx(float(mean_loss(state.params)), rel=1e-6)
    assert int(after.step) == 1


def test_dropout_is_a_function_of_seed_and_step_alone():
    step, state = make(dropout=0.5)
    again, _ = make(dropout=0.5)
    batch = make_batch()
    first = step(state, batch)
    assert equal(first, again(state, batch))
    later = step(state.replace(step=state.step + 1), batch)
    assert not np.array_equal(first[1]["loss"]["sum"], later[1]["loss"]["sum"])
    other_seed, _ = make(dropout=0.5, seed=1)
    assert not np.array_equal(first[1]["loss"]["sum"], other_seed(state, batch)[1]["loss"]["sum"])


def test_without_dropout_the_step_number_and_the_seed_of_the_step_change_nothing():
    step, state = make()
    other, _ = make(seed=1)
    batch = make_batch()
    first = step(state, batch)[0].params
    assert equal(first, step(state.replace(step=state.step + 7), batch)[0].params)
    assert equal(first, other(state, batch)[0].params)


def test_microbatches_drop_different_units():
    step, state = make(dropout=0.5, grad_accumulation=2)
    batch = {name: jnp.repeat(value[:4], 2, axis=0) for name, value in make_batch().items()}  # two equal microbatches
    whole, _ = make(dropout=0.5)
    halved = {name: value[::2] for name, value in batch.items()}
    accumulated = float(step(state, batch)[1]["loss"]["sum"])
    assert accumulated != pytest.approx(2 * float(whole(state, halved)[1]["loss"]["sum"]), rel=1e-6)
    plain, _ = make(grad_accumulation=2)
    without, _ = make()
    assert float(plain(state, batch)[1]["loss"]["sum"]) == pytest.approx(
        2 * float(without(state, halved)[1]["loss"]["sum"]), rel=1e-6
    )


def test_bfloat16_is_computed_in_between_while_state_and_outputs_stay_float32():
    step, state = make(precision="bfloat16", ema=0.5)
    plain, _ = make(ema=0.5)
    text = str(jax.make_jaxpr(step)(state, make_batch()))
    assert "bf16[8,16]" in text  # the hidden layer
    after, statistics = step(state, make_batch())
    expected, expected_statistics = plain(state, make_batch())
    kinds = {x.dtype for x in jax.tree.leaves((after.params, after.ema, statistics))}
    assert kinds == {np.dtype(np.float32)}
    assert float(statistics["loss"]["sum"]) == pytest.approx(float(expected_statistics["loss"]["sum"]), rel=0.02)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=0.01), after.params, expected.params)
    evaluate = make_eval_step(mlp.make(DATA, None, hidden=(16,)), OBJECTIVE, METRICS, precision="bfloat16")
    _, outputs = jax.jit(evaluate)(state, make_batch())
    assert outputs["logits"].dtype == np.float32


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match=r"config.train.precision='float16'.*float32, bfloat16"):
        make(precision="float16")
