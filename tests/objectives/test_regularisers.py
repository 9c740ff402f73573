"""Penalties are their formulas, exact over microbatches, and compose; R-Drop's is none where passes are equal."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from objective_helpers import PADDED, check_laws, data_of, judge, masked, parts_of

from jaxlab.core import config as configs
from jaxlab.core import rng
from jaxlab.core.errors import ConfigError
from jaxlab.objectives import classify, language, regularise
from jaxlab.train.apply import Bound
from jaxlab.train.step import init_state, make_train_step

B, C, T, D = 8, 3, 4, 5
random = np.random.default_rng(0)
FIELDS = {"image": random.normal(size=(B, 6)).astype(np.float32), "label": np.arange(B, dtype=np.int32) % C}
DATA = data_of(FIELDS, classes=("a", "b", "c"))
BATCH = masked(FIELDS)
PLAIN = classify.make(DATA)
WEIGHTED = classify.make(DATA, class_weights=(0.5, 1.0, 3.0))
RULES = ((".*/kernel", 0.01), (".*/bias", 0.2))


class Model(nn.Module):
    """Two layers with dropout between."""

    rate: float

    @nn.compact
    def __call__(self, x_BD, *, train):
        h_BD = nn.Dropout(self.rate, deterministic=not train)(nn.tanh(nn.Dense(D)(x_BD)))
        return {"logits": nn.Dense(C)(h_BD), "embedding": h_BD}


PARAMS = Model(0.0).init(jax.random.key(0), BATCH["image"], train=False)["params"]


def bound(params=PARAMS, rate=0.0, train=True):
    return Bound(Model(rate), params, {}, rng.key(0, "train", 0) if train else None, None, train)


def penalty(params):
    return sum(c * float((np.asarray(layer[n], np.float64) ** 2).sum())
               for layer in params.values() for n, c in (("kernel", 0.01), ("bias", 0.2)))  # fmt: skip


@pytest.mark.parametrize("inner", [PLAIN, WEIGHTED])
def test_l2_adds_to_the_mean_what_its_rules_say(inner):
    params = jax.tree.map(lambda x: x + 0.3, PARAMS)
    plain, found = inner(bound(params), BATCH), regularise.l2(inner, RULES)(bound(params), BATCH)
    assert float(found.weight) == float(plain.weight)
    mean = float(plain.total / plain.weight)
    assert float(found.total / found.weight) == pytest.approx(mean + penalty(params), rel=1e-5)
    assert found.outputs.keys() == plain.outputs.keys()


def test_the_gradient_of_l2_is_twice_the_coefficient_times_the_parameter():
    def slope(objective):
        return jax.jit(jax.grad(lambda params: objective(bound(params), BATCH).total))(PARAMS)

    plain, found = slope(PLAIN), slope(regularise.l2(PLAIN, ((".*1/kernel", 0.5), (".*", 0.0))))
    extra = jax.tree.map(lambda a, b: (a - b) / BATCH["mask"].sum(), found, plain)
    np.testing.assert_allclose(extra["Dense_1"]["kernel"], PARAMS["Dense_1"]["kernel"], atol=1e-5)
    assert not np.any(extra["Dense_0"]["kernel"])
    assert not np.any(extra["Dense_1"]["bias"])


def test_the_activation_penalty_is_the_mean_square_of_a_result():
    outputs = {"logits": random.normal(size=(B, C)).astype(np.float32), "embedding": random.normal(size=(B, T, D))}
    outputs["embedding"] = outputs["embedding"].astype(np.float32)
    plain = judge(PLAIN, BATCH, outputs)
    found = judge(regularise.activation(PLAIN, coefficient=0.7), BATCH, outputs)
    square = (outputs["embedding"][BATCH["mask"] > 0].astype(np.float64) ** 2).mean()
    assert float(found.total / found.weight) == pytest.approx(
        float(plain.total / plain.weight) + 0.7 * square, rel=1e-5
    )


def test_the_activation_penalty_of_tokens_is_the_mean_over_tokens():
    fields = {"tokens": random.integers(0, C, (B, T)).astype(np.int32)}
    fields["token_mask"] = (np.arange(T) < random.integers(1, T + 1, B)[:, None]).astype(np.float32)
    outputs = {"logits": random.normal(size=(B, T, C)), "hidden": random.normal(size=(B, T, D))}
    outputs = {name: x.astype(np.float32) for name, x in outputs.items()}
    inner = language.causal(data_of(fields))
    objective = regularise.activation(inner, "hidden", 0.7, "token_weight")
    plain, found = (judge(x, masked(fields), outputs) for x in (inner, objective))
    counted = np.asarray(plain.outputs["token_weight"]) > 0
    square = (outputs["hidden"][counted].astype(np.float64) ** 2).mean()
    assert float(found.total / found.weight) == pytest.approx(
        float(plain.total / plain.weight) + 0.7 * square, rel=1e-5
    )
    check_laws(objective, fields, outputs)


def test_consistency_is_the_mean_of_two_passes_and_half_of_both_divergences():
    """Against the paper's loss, -log p - log q + alpha (KL(p, q) + KL(q, p)) / 2, of the same two passes."""
    apply = bound(rate=0.5)
    logits = [np.asarray(apply(BATCH["image"])[0]["logits"], np.float64) for _ in range(2)]
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in logits)
    assert not np.allclose(p, q)
    alpha, right = 1.4, (np.arange(B), FIELDS["label"])
    divergence = ((p * np.log(p / q)).sum(axis=1) + (q * np.log(q / p)).sum(axis=1)) / 2
    paper = ((-np.log(p[right]) - np.log(q[right]) + alpha * divergence) * BATCH["mask"]).sum()
    found = regularise.consistency(PLAIN, coefficient=alpha / 2)(bound(rate=0.5), BATCH)
    assert float(found.total) == pytest.approx(paper / 2, rel=1e-5)
    assert float(found.weight) == BATCH["mask"].sum()


def test_where_both_passes_are_equal_consistency_adds_nothing():
    plain = PLAIN(bound(rate=0.5, train=False), BATCH)
    found = regularise.consistency(PLAIN, coefficient=10.0)(bound(rate=0.5, train=False), BATCH)
    assert float(found.total) == float(plain.total)
    assert float(found.weight) == float(plain.weight)
    jax.tree.map(np.testing.assert_array_equal, found.outputs, plain.outputs)


def test_they_compose_in_any_order():
    one = regularise.l2(regularise.activation(regularise.consistency(PLAIN), coefficient=0.5), RULES)
    other = regularise.consistency(regularise.l2(PLAIN, RULES))
    third = regularise.l2(regularise.consistency(PLAIN), RULES)
    totals = [float(objective(bound(rate=0.5), BATCH).total) for objective in (other, third)]
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)
    first = PLAIN(bound(rate=0.5), BATCH).outputs["embedding"]
    square = float((jnp.square(first).mean(axis=1) * BATCH["mask"]).sum())
    assert float(one(bound(rate=0.5), BATCH).total) == pytest.approx(totals[1] + 0.5 * square, rel=1e-5)


REGULARISED = {
    "l2": regularise.l2(WEIGHTED, RULES), "activation": regularise.activation(WEIGHTED, coefficient=0.5),
    "consistency": regularise.consistency(WEIGHTED),
}  # fmt: skip


@pytest.mark.parametrize("name", REGULARISED)
def test_their_sums_add_up_and_padding_neither_shows_nor_has_a_gradient(name):
    objective = REGULARISED[name]
    whole = objective(bound(), BATCH)
    halves = [objective(bound(), parts_of(BATCH, rows)) for rows in (slice(0, 3), slice(3, None))]
    assert float(sum(half.total for half in halves)) == pytest.approx(float(whole.total), rel=1e-5)
    other = {**BATCH, "image": BATCH["image"].copy()}
    other["image"][list(PADDED)] = np.nan
    assert float(objective(bound(), other).total) == float(whole.total)


@pytest.mark.parametrize("name", REGULARISED)
def test_a_step_in_microbatches_is_the_step_of_the_whole_batch(name):
    optimizer, model = optax.sgd(0.1), Model(0.0)
    state = init_state(model, REGULARISED[name], optimizer, BATCH, 0, False)
    steps = [
        jax.jit(make_train_step(model, REGULARISED[name], {}, optimizer, seed=0, grad_accumulation=count))(state, BATCH)
        for count in (1, 4)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), steps[0][0].params, steps[1][0].params)
    np.testing.assert_allclose(steps[0][1]["loss"]["sum"], steps[1][1]["loss"]["sum"], rtol=1e-5)


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("l2", {"rules": ((".*", -1.0),)}, r"rules: '\.\*'=-1.0: expected a number of 0 or more"),
        ("l2", {"rules": (("(", 1.0),)}, r"rule '\(' is not a regular expression"),
        ("l2", {"rules": ((".*", "much"),)}, r"rules: 'much' for '\.\*'"),
        ("activation", {"coefficient": -1.0}, "coefficient=-1.0"),
        ("consistency", {"coefficient": float("inf")}, "coefficient=inf"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_the_config_path(factory, options, message):
    inner = configs.spec("jaxlab.objectives.classify:make")
    node = configs.spec(f"jaxlab.objectives.regularise:{factory}", objective=inner, **options)
    with pytest.raises(ConfigError, match=f"^config.objective: .*{message}"):
        configs.build(node, path="config.objective", data=DATA)


def test_an_error_of_what_is_wrapped_names_its_own_path():
    inner = configs.spec("jaxlab.objectives.classify:make", label_smoothing=2.0)
    node = configs.spec("jaxlab.objectives.regularise:l2", objective=inner)
    with pytest.raises(ConfigError, match=r"^config.objective.objective: label_smoothing=2.0: .* from 0 to 1"):
        configs.build(node, path="config.objective", data=DATA)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (regularise.l2(PLAIN, ((".*/kernel", 0.1),)), "no rule covers the parameter 'Dense_0/bias'"),
        (regularise.activation(PLAIN, "embeding"), "did you mean 'embedding'"),
        (regularise.activation(PLAIN, weights="maks"), "weights='maks': .*did you mean 'mask'"),
        (regularise.consistency(PLAIN, output="logit"), "did you mean 'logits'"),
    ],
)
def test_what_shows_when_first_called_is_an_error_that_lists_what_there_is(objective, message):
    with pytest.raises(ConfigError, match=message):
        objective(bound(), BATCH)
