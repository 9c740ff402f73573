"""Padding has no influence: not through the loss, not through batch statistics, whatever padded rows hold.

Shape letters: B batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlab.core.tree import named_leaves
from jaxlab.core.types import DataSpec
from jaxlab.metrics import classify as metrics
from jaxlab.models import cnn
from jaxlab.objectives import classify
from jaxlab.train.eval_step import make_eval_step
from jaxlab.train.step import init_state, make_train_step

BATCH = 12
DATA = DataSpec(
    {"image": jax.ShapeDtypeStruct((8, 8, 1), np.float32), "label": jax.ShapeDtypeStruct((), np.int32)},
    BATCH,
    {"classes": tuple("abc")},
)
METRICS = {"accuracy": metrics.accuracy(), "cross_entropy": metrics.cross_entropy()}
PLAIN, NORMED = ("image",), ("image", "mask")
PADDINGS = [0.0, 1e6, np.nan, np.inf, -np.inf]


def make_batch(padding=0.0):
    random = np.random.default_rng(0)
    mask = (np.arange(BATCH) % 3 > 0).astype(np.float32)
    image = random.normal(size=(BATCH, 8, 8, 1)).astype(np.float32)
    image[mask == 0] = padding
    label = random.integers(0, 3, BATCH)
    label[mask == 0] = 2
    arrays = {"image": image, "label": label.astype(np.int32), "mask": mask, "id": np.arange(BATCH, dtype=np.int32)}
    return {name: jnp.asarray(value) for name, value in arrays.items()}


def parts(inputs, dropout=0.0):
    """Return model, objective, optimizer and first state; the model has batch statistics where it gets the mask."""
    model = cnn.make(DATA, None, channels=(4,), depth=(1,), hidden=(8,), batch_norm="mask" in inputs, dropout=dropout)
    objective, optimizer = classify.make(DATA, inputs=inputs), optax.sgd(0.1)
    return model, objective, optimizer, init_state(model, objective, optimizer, make_batch(), 0, False)


@pytest.mark.parametrize("inputs", [PLAIN, NORMED], ids=["plain", "batch-norm"])
def test_a_step_is_bitwise_the_same_whatever_padded_rows_hold(inputs):
    model, objective, optimizer, state = parts(inputs, dropout=0.5)
    step = jax.jit(make_train_step(model, objective, METRICS, optimizer, seed=0))
    expected = named_leaves(step(state, make_batch()))
    assert all(np.isfinite(leaf).all() for leaf in expected.values())
    for padding in PADDINGS:
        found = named_leaves(step(state, make_batch(padding)))
        differing = [name for name in expected if not np.array_equal(expected[name], found[name])]
        assert not differing, f"with {padding} in padded rows"


@pytest.mark.parametrize("inputs", [PLAIN, NORMED], ids=["plain", "batch-norm"])
def test_the_gradient_of_the_step_with_respect_to_padded_inputs_is_zero(inputs):
    model, objective, optimizer, state = parts(inputs)
    step = make_train_step(model, objective, METRICS, optimizer, seed=0)
    batch = make_batch(padding=3.0)

    def everything(image):
        state_after, statistics = step(state, {**batch, "image": image})
        leaves = jax.tree.leaves((state_after.params, state_after.model_state, statistics["loss"]))
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves)

    gradient = np.asarray(jax.jit(jax.grad(everything))(batch["image"]))
    size_B = np.abs(gradient).reshape(BATCH, -1).max(axis=1)
    real_B = np.asarray(batch["mask"]) > 0
    assert (size_B[~real_B] == 0).all()
    assert (size_B[real_B] > 0).all()  # else the zeros would say nothing


def test_batch_statistics_would_see_padding_if_the_objective_did_not_pass_the_mask():
    model, objective, optimizer, state = parts(NORMED)
    careless = classify.make(DATA, inputs=PLAIN)
    steps = [jax.jit(make_train_step(model, o, METRICS, optimizer, seed=0)) for o in (objective, careless)]
    losses = [float(step(state, make_batch())[1]["loss"]["sum"]) for step in steps]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("inputs", [PLAIN, NORMED], ids=["plain", "batch-norm"])
def test_evaluation_is_the_same_whatever_padded_rows_hold(inputs):
    model, objective, _, state = parts(inputs)
    step = jax.jit(make_eval_step(model, objective, METRICS))
    expected, outputs = step(state, make_batch())
    for padding in PADDINGS:
        found, others = step(state, make_batch(padding))
        assert jax.tree.all(jax.tree.map(np.array_equal, expected, found)), f"with {padding} in padded rows"
        real_B = np.asarray(make_batch()["mask"]) > 0
        assert np.array_equal(np.asarray(outputs["logits"])[real_B], np.asarray(others["logits"])[real_B])


def test_a_batch_of_padding_alone_changes_no_parameter_and_weighs_nothing():
    model, objective, optimizer, state = parts(PLAIN)
    step = jax.jit(make_train_step(model, objective, METRICS, optimizer, seed=0))
    batch = make_batch(np.nan)
    after, statistics = step(state, {**batch, "mask": jnp.zeros(BATCH), "image": batch["image"] * jnp.nan})
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params, after.params))
    assert float(statistics["loss"]["weight"]) == 0
    assert float(statistics["loss"]["sum"]) == 0
