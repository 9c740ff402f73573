"""The classification loss is the weighted sum that scikit-learn and optax compute, and its gradient is its slope."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import log_loss

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.objectives import classify

B, C = 12, 4
DATA = DataSpec(
    {"image": jax.ShapeDtypeStruct((C,), np.float32), "label": jax.ShapeDtypeStruct((), np.int32)},
    B,
    {"classes": tuple("abcd")},
)
WEIGHTS = (0.5, 1.0, 2.0, 0.0)


def make_batch(seed=0, padded=()):
    generator = np.random.default_rng(seed)
    mask = np.ones(B, np.float32)
    mask[list(padded)] = 0
    label = np.arange(B, dtype=np.int32) % C
    return {"image": generator.normal(0, 2, (B, C)).astype(np.float32), "label": label, "mask": mask}


def apply(*inputs):
    """Stand in for a model: the logits are the sum of the inputs; the state is something to hand on."""
    return {"logits": sum(inputs), "embedding": inputs[0][:, :2]}, {"state": 3}


def loss_of(batch, **options):
    return jax.jit(lambda batch: classify.make(DATA, **options)(apply, batch)._replace(model_state=None))(batch)


def test_the_mean_is_scikit_learns_log_loss_over_the_real_rows_alone():
    batch = make_batch(padded=(1, 7))
    real = batch["mask"] > 0
    loss = loss_of(batch)
    probabilities = jax.nn.softmax(batch["image"][real])
    assert float(loss.weight) == real.sum()
    assert float(loss.total / loss.weight) == pytest.approx(log_loss(batch["label"][real], probabilities), rel=1e-5)


def test_class_weights_are_scikit_learns_sample_weights_and_a_class_of_weight_0_takes_no_part():
    batch = make_batch(padded=(2,))
    sample_weight = np.array(WEIGHTS)[batch["label"]] * batch["mask"]
    loss = loss_of(batch, class_weights=WEIGHTS)
    expected = log_loss(batch["label"], jax.nn.softmax(batch["image"]), sample_weight=sample_weight)
    assert float(loss.weight) == pytest.approx(sample_weight.sum())
    assert float(loss.total / loss.weight) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothing_is_optaxs_with_class_weights_and_mask(smoothing):
    batch = make_batch(padded=(0, 5))
    target_BC = optax.smooth_labels(jax.nn.one_hot(batch["label"], C), smoothing)
    each_B = optax.softmax_cross_entropy(batch["image"], target_BC)
    weight_B = jnp.array(WEIGHTS)[batch["label"]] * batch["mask"]
    loss = loss_of(batch, label_smoothing=smoothing, class_weights=WEIGHTS)
    np.testing.assert_allclose(loss.total, jnp.sum(each_B * weight_B), rtol=1e-5)


def test_the_gradient_is_the_slope_by_finite_differences():
    batch = make_batch(padded=(3,))
    objective = classify.make(DATA, label_smoothing=0.1, class_weights=WEIGHTS)

    @jax.jit
    def total(logits_BC):
        return objective(apply, {**batch, "image": logits_BC}).total

    with jax.enable_x64(True):
        logits_BC = np.asarray(batch["image"], np.float64)
        gradient = np.asarray(jax.grad(total)(logits_BC))
        for row, column in [(0, 0), (1, 2), (2, 3), (6, 1)]:
            step = np.zeros_like(logits_BC)
            step[row, column] = 1e-5
            slope = (total(logits_BC + step) - total(logits_BC - step)) / 2e-5
            assert float(slope) == pytest.approx(gradient[row, column], abs=1e-6)
    assert not gradient[3].any()  # padded
    assert gradient[6].any()


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_what_a_padded_row_holds_does_not_show_in_the_sums(garbage):
    batch = make_batch(padded=(4,))
    expected = loss_of(batch, label_smoothing=0.1)
    batch["image"][4] = garbage
    found = loss_of(batch, label_smoothing=0.1)
    assert float(found.total) == float(expected.total)
    assert float(found.weight) == float(expected.weight)


def test_the_sum_of_a_batch_is_the_sum_of_its_parts():
    batch = make_batch(padded=(4,))
    parts = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 5), slice(5, B))]
    whole, *halves = (loss_of(part, class_weights=WEIGHTS) for part in (batch, *parts))
    np.testing.assert_allclose(whole.total, sum(half.total for half in halves), rtol=1e-6)
    np.testing.assert_allclose(whole.weight, sum(half.weight for half in halves))


def test_results_hold_target_and_prediction_beside_what_the_model_returned():
    batch = make_batch()
    loss = classify.make(DATA)(apply, batch)
    assert np.array_equal(loss.outputs["prediction"], batch["image"].argmax(-1))
    assert np.array_equal(loss.outputs["target"], batch["label"])
    assert loss.outputs["prediction"].dtype == jnp.int32
    assert set(loss.outputs) == {"logits", "embedding", "target", "prediction"}
    assert loss.model_state == {"state": 3}


def test_the_model_is_called_with_the_named_fields_in_their_order():
    called = []

    def record(*inputs):
        called.append(inputs)
        return apply(inputs[0])

    batch = make_batch()
    classify.make(DATA, inputs=("image", "mask"))(record, batch)
    assert len(called) == 1
    assert [value is batch[name] for value, name in zip(called[0], ("image", "mask"), strict=True)] == [True, True]


@pytest.mark.parametrize("options", [{"inputs": ("imgae",)}, {"target": "lable"}, {"inputs": ("image", "wide")}])
def test_a_field_that_the_data_lacks_is_an_error_that_lists_those_it_has(options):
    with pytest.raises(ConfigError, match="the data has image, label"):
        classify.make(DATA, **options)


def test_class_weights_that_are_not_one_a_class_are_an_error():
    with pytest.raises(ConfigError, match=r"class_weights has 2 values; the data has 4 classes"):
        classify.make(DATA, class_weights=(1.0, 2.0))
