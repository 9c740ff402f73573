"""The classification loss is what scikit-learn, optax and the papers' formulas say, and its gradient is its slope."""

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


VARIANTS = {
    "plain": {},
    "smooth": {"label_smoothing": 0.2},
    "weighted": {"class_weights": WEIGHTS},
    "focal": {"focal_gamma": 2.0},
    "adjusted": {"logit_adjustment": 0.7, "class_priors": (0.5, 0.3, 0.15, 0.05)},
}
VARIANTS["all"] = {name: value for options in VARIANTS.values() for name, value in options.items()}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def make_soft(batch, seed=1):
    probs = np.random.default_rng(seed).dirichlet(np.ones(C), B).astype(np.float32)
    return {**batch, "label_probs": probs}


def by_formula(
    logits_BC, target_BC, mask_B, label_smoothing=0.0, class_weights=(1.0,) * C, focal_gamma=0.0, logit_adjustment=0.0,
    class_priors=(1.0,) * C,
):  # fmt: skip
    """Return total and weight, class by class as if it were the label, in float64."""
    total, weight = 0.0, 0.0
    for logits_C, probs_C, mask in zip(logits_BC.astype(np.float64), target_BC, mask_B, strict=True):
        adjusted_C = logits_C + logit_adjustment * np.log(np.array(class_priors) / np.sum(class_priors))
        p_C = np.exp(adjusted_C) / np.exp(adjusted_C).sum()
        for label in range(C):
            smooth_C = np.eye(C)[label] * (1 - label_smoothing) + label_smoothing / C
            loss = -(smooth_C * (1 - p_C) ** focal_gamma * np.log(p_C)).sum()
            total += mask * probs_C[label] * class_weights[label] * loss
            weight += mask * probs_C[label] * class_weights[label]
    return total, weight


@each_variant
def test_every_variant_is_its_formula_for_hard_and_soft_targets(options):
    batch = make_batch(padded=(2, 5))
    for target in (batch, make_soft(batch)):
        loss = loss_of(target, **options)
        probs_BC = target.get("label_probs", np.eye(C)[batch["label"]])
        total, weight = by_formula(batch["image"], probs_BC, batch["mask"], **options)
        assert float(loss.total) == pytest.approx(total, rel=1e-5)
        assert float(loss.weight) == pytest.approx(weight, rel=1e-5)


@each_variant
def test_a_soft_target_is_the_mixture_of_the_losses_of_its_two_labels(options):
    batch = make_batch(padded=(2, 5))
    other = {**batch, "label": (batch["label"] + 1) % C}
    probs = 0.3 * np.eye(C, dtype=np.float32)[batch["label"]] + 0.7 * np.eye(C, dtype=np.float32)[other["label"]]
    mixed, first, second = (loss_of(b, **options) for b in ({**batch, "label_probs": probs}, batch, other))
    np.testing.assert_allclose(mixed.total, 0.3 * first.total + 0.7 * second.total, rtol=1e-5)
    np.testing.assert_allclose(mixed.weight, 0.3 * first.weight + 0.7 * second.weight, rtol=1e-5)
    assert np.array_equal(mixed.outputs["target"], batch["label"])  # which accuracy reads


@each_variant
def test_the_sums_and_gradients_of_soft_targets_add_up_over_parts_and_padding_does_not_show(options):
    batch = make_soft(make_batch(padded=(4,)))
    for field in ("image", "label_probs"):
        batch[field][4] = np.nan
    halves = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 5), slice(5, B))]
    whole, *parts = (loss_of(part, **options) for part in (batch, *halves))
    np.testing.assert_allclose(whole.total, sum(part.total for part in parts), rtol=1e-5)
    np.testing.assert_allclose(whole.weight, sum(part.weight for part in parts), rtol=1e-5)


@each_variant
def test_every_variants_gradient_is_its_slope(options):
    batch = make_soft(make_batch(padded=(3,)))
    objective = classify.make(DATA, **options)

    @jax.jit
    def total(logits_BC):
        return objective(apply, {**batch, "image": logits_BC}).total

    with jax.enable_x64(True):
        logits_BC = jnp.asarray(batch["image"], jnp.float64)
        direction = np.random.default_rng(2).normal(size=(B, C))
        slope = (total(logits_BC + 1e-5 * direction) - total(logits_BC - 1e-5 * direction)) / 2e-5
        assert float(slope) == pytest.approx(float((jax.grad(total)(logits_BC) * direction).sum()), rel=1e-5)


def test_gamma_0_is_cross_entropy_to_the_bit_and_more_of_it_counts_right_examples_less():
    batch = make_batch()
    plain, focal = loss_of(batch), loss_of(batch, focal_gamma=0.0)
    assert float(plain.total) == float(focal.total)
    sure = {**batch, "image": 4 * np.eye(C, dtype=np.float32)[batch["label"]]}
    wrong = {**batch, "image": -sure["image"]}
    ratio = [float(loss_of(b, focal_gamma=2.0).total / loss_of(b).total) for b in (sure, wrong)]
    assert ratio[0] < 0.01
    assert ratio[1] > 0.9


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_gradient_is_finite_where_the_model_is_quite_sure(gamma):
    batch = make_batch()
    objective = classify.make(DATA, focal_gamma=gamma)
    slope = jax.jit(jax.grad(lambda logits: objective(apply, {**batch, "image": logits}).total))
    for scale in (-1e4, 1e4):
        logits = scale * jnp.eye(C)[batch["label"]]
        gradient = slope(logits)
        assert np.isfinite(gradient).all()
        assert gradient.any() == (scale < 0)


def test_logit_adjustment_learns_what_equally_frequent_classes_would_teach():
    """Where the loss is least the adjusted probabilities are the data's, the model's own those over the priors."""
    counts = np.array([60, 25, 10, 5])
    label = np.repeat(np.arange(C), counts).astype(np.int32)
    data = DATA._replace(meta={**DATA.meta, "class_counts": tuple(int(count) for count in counts)})
    batch = {"label": label, "mask": np.ones(100, np.float32)}
    objective = classify.make(data, logit_adjustment=1.0)
    assert float(objective(lambda _: ({"logits": jnp.zeros((100, C))}, {}), {**batch, "image": label}).total) == (
        pytest.approx(-(counts * np.log(counts / 100)).sum(), rel=1e-5)
    )

    def total(logits_C):
        return objective(lambda _: ({"logits": jnp.tile(logits_C, (100, 1))}, {}), {**batch, "image": label}).total

    np.testing.assert_allclose(jax.grad(total)(jnp.zeros(C)), 0, atol=1e-4)
    given = classify.make(DATA, logit_adjustment=1.0, class_priors=(0.6, 0.25, 0.1, 0.05))
    logits = np.random.default_rng(0).normal(size=(100, C)).astype(np.float32)
    results = [made(apply, {**batch, "image": logits}) for made in (objective, given)]
    assert float(results[0].total) == pytest.approx(float(results[1].total), rel=1e-6)
    assert np.array_equal(results[0].outputs["prediction"], logits.argmax(-1))  # of the logits as they are
    assert np.array_equal(results[0].outputs["logits"], logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"focal_gamma": -1.0}, r"focal_gamma=-1\.0"),
        ({"logit_adjustment": 1.0}, "needs class_priors"),
        ({"logit_adjustment": 1.0, "class_priors": (0.5, 0.5)}, "class_priors has 2 values; the data has 4 classes"),
        ({"logit_adjustment": 1.0, "class_priors": (0.5, 0.0, 0.2, 0.3)}, "class_priors: 0.0 for the class 'b'"),
    ],
)
def test_impossible_variants_are_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        classify.make(DATA, **options)
