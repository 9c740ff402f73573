"""Losses of tokens are their formulas in float64, count each token once, and see no padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_helpers import check_laws, data_of, judge, masked

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError
from jaxlab.data.packing import pack
from jaxlab.objectives import language, seq2seq

B, T, V = 6, 5, 7
random = np.random.default_rng(0)
LENGTHS = np.array([5, 3, 1, 4, 2, 5])
MASK = (np.arange(T) < LENGTHS[:, None]).astype(np.float32)
TOKENS = {"tokens": random.integers(1, V, (B, T)).astype(np.int32), "token_mask": MASK}
HIDDEN = {**TOKENS, "targets": TOKENS["tokens"][:, ::-1], "target_mask": MASK * random.integers(0, 2, (B, T))}
HIDDEN["target_mask"] = HIDDEN["target_mask"].astype(np.float32)
PAIRS = {
    "source": random.integers(1, V, (B, 3)).astype(np.int32), "source_mask": np.ones((B, 3), np.float32),
    "target": TOKENS["tokens"], "target_mask": MASK,
}  # fmt: skip
OUTPUTS = {"logits": random.normal(0, 2, (B, T, V)).astype(np.float32)}
SHORT = {"logits": OUTPUTS["logits"][:, 1:]}
OPTIONS = [{}, {"label_smoothing": 0.1}, {"z_loss": 1e-2}, {"label_smoothing": 0.3, "z_loss": 1e-3}]
MAKERS = {
    "causal": (language.causal, TOKENS, OUTPUTS),
    "packed": (language.causal, HIDDEN, OUTPUTS),
    "masked": (language.masked, HIDDEN, OUTPUTS),
    "seq2seq": (seq2seq.make, PAIRS, SHORT),
}
each_maker = pytest.mark.parametrize("name", MAKERS)


def by_formula(logits_BTV, target_BT, weight_BT, label_smoothing=0.0, z_loss=0.0):
    """Return total and weight token by token, the smoothed target written out."""
    total = weight = 0.0
    for logits_V, target, w in zip(
        logits_BTV.reshape(-1, V).astype(np.float64), target_BT.reshape(-1), weight_BT.reshape(-1), strict=True
    ):
        z = np.exp(logits_V).sum()
        wanted_V = np.eye(V)[target] * (1 - label_smoothing) + label_smoothing / V
        total += w * (-(wanted_V * np.log(np.exp(logits_V) / z)).sum() + z_loss * np.log(z) ** 2)
        weight += w
    return total, weight


def wanted(name, batch):
    """Return logits, targets and weights of the positions that count, as the docstrings say."""
    logits = MAKERS[name][2]["logits"]
    if name in ("packed", "masked"):
        return logits, batch["targets"], batch["target_mask"] * batch["mask"][:, None]
    if name == "seq2seq":
        return logits, batch["target"][:, 1:], batch["target_mask"][:, 1:] * batch["mask"][:, None]
    return logits[:, :-1], batch["tokens"][:, 1:], batch["token_mask"][:, 1:] * batch["mask"][:, None]


@each_maker
@pytest.mark.parametrize("options", OPTIONS)
def test_the_loss_is_its_formula(name, options):
    make, fields, outputs = MAKERS[name]
    batch = masked(fields)
    loss = judge(make(data_of(fields), **options), batch, outputs)
    total, weight = by_formula(*wanted(name, batch), **options)
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert float(loss.weight) == pytest.approx(weight)


@each_maker
def test_they_keep_the_laws(name):
    make, fields, outputs = MAKERS[name]
    check_laws(make(data_of(fields), label_smoothing=0.1, z_loss=1e-2), fields, outputs)


@each_maker
def test_results_are_those_that_metrics_read_and_know_neither_smoothing_nor_z(name):
    make, fields, outputs = MAKERS[name]
    loss = judge(make(data_of(fields), label_smoothing=0.5, z_loss=1.0), masked(fields), outputs)
    results = loss.outputs
    assert set(results) == {"logits", "target", "prediction", "token_loss", "token_weight"}
    shape = outputs["logits"].shape[:2]
    assert all(results[n].shape == shape for n in results if n != "logits")
    plain, _ = by_formula(outputs["logits"], np.asarray(results["target"]), np.asarray(results["token_weight"]))
    assert float((results["token_loss"] * results["token_weight"]).sum()) == pytest.approx(plain, rel=1e-5)
    counted = np.asarray(results["token_weight"]) > 0
    assert np.array_equal(np.asarray(results["prediction"])[counted], outputs["logits"].argmax(-1)[counted])
    assert loss.model_state == {"state": 3}


@each_maker
def test_a_large_vocabulary_of_bfloat16_logits_is_summed_in_float32(name):
    make, fields, outputs = MAKERS[name]
    wide = {"logits": jnp.full((*outputs["logits"].shape[:2], 3000), 8.0, jnp.bfloat16)}
    loss = judge(make(data_of(fields)), masked(fields), wide)
    assert float(loss.total / loss.weight) == pytest.approx(np.log(3000), rel=1e-5)


def test_without_a_mask_all_tokens_are_real():
    fields = {"tokens": TOKENS["tokens"]}
    loss = judge(language.causal(data_of(fields)), masked(fields, ()), OUTPUTS)
    assert float(loss.weight) == B * (T - 1)


def test_the_last_logits_and_those_at_padding_have_no_gradient_and_all_others_have_one():
    objective = language.causal(data_of(TOKENS))
    gradient = jax.grad(lambda logits: judge(objective, masked(TOKENS, ()), {"logits": logits}).total)(
        OUTPUTS["logits"]
    )
    moved = np.asarray(gradient).any(axis=-1)
    assert np.array_equal(moved, np.arange(T) < LENGTHS[:, None] - 1)


TABLE = random.normal(size=(V, V)).astype(np.float32)


@jax.jit
def total_of_bigrams(batch):
    """Judge logits that depend on a token alone: of a model that sees no other document, and not where one was cut."""
    return judge(language.causal(data_of(batch)), batch, {"logits": jnp.asarray(TABLE)[batch["tokens"]]})[:2]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, T), min_size=1, max_size=B), st.sampled_from(["best_fit", "concatenate"]))
def test_packed_documents_have_the_loss_of_the_documents_each_in_a_row_of_its_own(sizes, mode):
    alone = {"tokens": np.zeros((B, T), np.int32), "token_mask": np.zeros((B, T), np.float32)}
    documents = [random.integers(1, V, size).astype(np.int32) for size in sizes]
    for row, document in enumerate(documents):
        alone["tokens"][row, : len(document)] = document
        alone["token_mask"][row, : len(document)] = 1
    packed = pack(documents, T, mode)
    rows = len(packed["tokens"])
    packed = {name: np.pad(value, ((0, B - rows), (0, 0))) for name, value in packed.items()}
    packed = {**packed, "mask": (np.arange(B) < rows).astype(np.float32)}
    np.testing.assert_allclose(total_of_bigrams(packed), total_of_bigrams(masked(alone, ())), rtol=1e-5)


def test_teacher_forcing_hides_from_the_model_the_last_token_alone_and_keeps_the_order_of_the_inputs():
    called = []

    def apply(*inputs):
        called.append(inputs)
        return SHORT, {}

    names = ("target", "source_mask", "source", "target_mask")
    seq2seq.make(data_of(PAIRS), inputs=names)(apply, masked(PAIRS))
    for name, value in zip(names, called[0], strict=True):
        expected = PAIRS[name][:, :-1] if name.startswith("target") else PAIRS[name]
        assert np.array_equal(value, expected)


def test_a_begin_that_the_data_lacks_is_put_before_every_target():
    data = data_of(PAIRS, specials={"pad": 0, "bos": 2})
    called = []

    def apply(*inputs):
        called.append(inputs)
        return OUTPUTS, {}

    names = ("source", "source_mask", "target", "target_mask")
    loss = seq2seq.make(data, inputs=names, begin="bos")(apply, masked(PAIRS, ()))
    read_BT, read_mask_BT = called[0][2:]
    assert np.array_equal(read_BT[:, 0], np.full(B, 2))
    assert np.array_equal(read_BT[:, 1:], PAIRS["target"][:, :-1])
    assert np.array_equal(read_mask_BT[:, 1:], MASK[:, :-1])
    total, weight = by_formula(OUTPUTS["logits"], PAIRS["target"], MASK)
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert float(loss.weight) == weight == LENGTHS.sum()


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("language:causal", {"inputs": ("token",)}, "did you mean 'tokens'"),
        ("language:causal", {"tokens": "items"}, "'items'; the data has"),
        ("language:causal", {"token_mask": "item_mask"}, "'item_mask'; the data has"),
        ("language:causal", {"targets": "tragets"}, "'tragets'; the data has"),
        ("language:causal", {"z_loss": -1.0}, "z_loss=-1.0: expected a number of 0 or more"),
        ("language:causal", {"label_smoothing": 1.5}, "label_smoothing=1.5: expected a number from 0 to 1"),
        ("language:masked", {}, "'targets'; the data has"),
        ("language:masked", {"targets": "tokens", "target_mask": "token_mask", "z_loss": float("nan")}, "z_loss=nan"),
        ("seq2seq:make", {"inputs": ("source",)}, "the target's field 'target' among them"),
        ("seq2seq:make", {"begin": "boss"}, "begin='boss': .*did you mean 'bos'"),
        ("seq2seq:make", {"label_smoothing": -0.1}, "label_smoothing=-0.1"),
        ("seq2seq:make", {"target": "tagret", "inputs": ("tagret",)}, "did you mean 'target'"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_the_config_path(factory, options, message):
    data = data_of({**TOKENS, **PAIRS}, specials={"bos": 1})
    with pytest.raises(ConfigError, match=f"^config.objective: .*{message}"):
        configs.build(configs.spec(f"jaxlab.objectives.{factory}", **options), path="config.objective", data=data)


def test_a_model_without_logits_or_with_other_positions_is_an_error_that_says_so():
    objective = language.causal(data_of(TOKENS))
    with pytest.raises(ConfigError, match="the model's result 'logits'; it returns logit; did you mean 'logit'"):
        judge(objective, masked(TOKENS), {"logit": OUTPUTS["logits"]})
    with pytest.raises(ConfigError, match=r"the model's logits has the shape \(6, 4\)"):
        judge(objective, masked(TOKENS), SHORT)
