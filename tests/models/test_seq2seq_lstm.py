"""The recurrent model with attention: padding of the source has no weight, and decoding by steps is teacher forcing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models import seq2seq_lstm
from jaxlab.models.recurrent import length_mask

pytestmark = pytest.mark.slow  # compiles much; the contracts try every model in the quick part too

B, S, T, V = 3, 6, 5, 11
LENGTHS = np.array([6, 3, 0])
DATA = DataSpec({}, 10, {"vocabulary_size": V})
OPTIONS = {
    "general": {"score": "general", "layers": 2},
    "dot": {"score": "dot", "bidirectional": False, "shared": False},
    "additive, gru": {"score": "additive", "cell": "gru"},
}
each_model = pytest.mark.parametrize("name", OPTIONS)
_random = np.random.default_rng(0)
SOURCE, TARGET = (_random.integers(0, V, (B, steps)).astype(np.int32) for steps in (S, T))


@functools.cache
def model_of(name):
    return seq2seq_lstm.make(DATA, width=4, features=6, dropout=0.5, **OPTIONS[name])


@functools.cache
def variables_of(name):
    shapes = jax.eval_shape(lambda: model_of(name).init(jax.random.key(0), SOURCE, None, TARGET, train=False))
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda x: generator.normal(0, 0.7, x.shape).astype(np.float32), shapes)


@functools.cache
def in_evaluation(name):
    """Return the compiled function from (source, mask, target) to the logits and the attention's weights."""

    @jax.jit
    def function(source, mask, target):
        outputs, found = model_of(name).apply(
            variables_of(name), source, mask, target, train=False, mutable="intermediates"
        )
        return outputs["logits"], found["intermediates"]["attention"]["weights"][0]

    return function


@each_model
def test_attention_adds_up_to_1_over_the_source_s_tokens_and_is_0_at_padding(name):
    logits, weight_BTS = in_evaluation(name)(SOURCE, length_mask(LENGTHS, S), TARGET)
    assert logits.shape == (B, T, V)
    assert np.isfinite(logits).all()
    assert not np.asarray(weight_BTS)[np.broadcast_to(length_mask(LENGTHS, S)[:, None] == 0, (B, T, S))].any()
    np.testing.assert_allclose(weight_BTS.sum(axis=-1), np.repeat([[1.0], [1.0], [0.0]], T, axis=1), atol=1e-6)
    assert (np.asarray(weight_BTS)[1, :, :3] > 0).all()
    assert np.ptp(np.asarray(weight_BTS)[0], axis=0).max() > 1e-3  # it moves from token to token


@each_model
def test_padding_of_the_source_changes_nothing_and_every_token_of_it_counts(name):
    mask = length_mask(LENGTHS, S)
    first, _ = in_evaluation(name)(SOURCE, mask, TARGET)
    changed, _ = in_evaluation(name)(np.where(mask > 0, SOURCE, (SOURCE + 1) % V), mask, TARGET)
    np.testing.assert_array_equal(changed, first)
    longer = np.concatenate([SOURCE, SOURCE[:, :2]], axis=1)
    np.testing.assert_allclose(in_evaluation(name)(longer, length_mask(LENGTHS, S + 2), TARGET)[0], first, atol=1e-6)
    for s in range(3):
        other = SOURCE.copy()
        other[1, s] = (other[1, s] + 1) % V
        difference = np.abs(in_evaluation(name)(other, mask, TARGET)[0] - first).max(axis=-1)
        assert (difference[1] > 0).all()
        assert not difference[[0, 2]].any()


@each_model
def test_a_target_s_logits_see_no_later_token(name):
    mask = length_mask(LENGTHS, S)
    first, _ = in_evaluation(name)(SOURCE, mask, TARGET)
    for t in range(T):
        changed = TARGET.copy()
        changed[:, t] = (changed[:, t] + 1) % V
        same = np.isclose(in_evaluation(name)(SOURCE, mask, changed)[0], first, atol=1e-7).all(axis=(0, 2))
        assert same.tolist() == [True] * t + [False] * (T - t)


@each_model
def test_decoding_by_steps_is_teacher_forcing(name):
    mask = length_mask(LENGTHS, S)
    expected, _ = in_evaluation(name)(SOURCE, mask, TARGET)
    apply = functools.partial(model_of(name).apply, variables_of(name))
    carry = jax.jit(functools.partial(apply, method="encode"))(SOURCE, mask)
    step = jax.jit(functools.partial(apply, method="decode_step"))
    for t in range(T):
        logits, carry = step(carry, TARGET[:, t])
        np.testing.assert_allclose(logits, expected[:, t], atol=1e-5)


@pytest.mark.slow
@each_model
def test_every_parameter_has_a_part_and_dropout_acts_in_training_alone(name):
    @jax.jit
    def in_training(variables, key):
        def score(variables):
            mask = np.ones((B, S), np.float32)
            options = {"train": True, "rngs": {"dropout": key}}
            return jnp.sum(jnp.sin(model_of(name).apply(variables, SOURCE, mask, TARGET, **options)["logits"]))

        return jax.value_and_grad(score)(variables)

    (first, gradient), (again, _), (other, _) = (
        in_training(variables_of(name), jax.random.key(seed)) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "dott"}, "config.model.score='dott'.*did you mean 'dot'"),
        ({"score": "dot"}, "did you mean 'general'"),
        ({"cell": "rnn"}, "config.model.cell='rnn'"),
        ({"vocabulary_size": 3}, "vocabulary too small"),
        ({"dropout": 2.0}, "config.model.dropout=2.0"),
        ({"width": 0}, "config.model.width=0"),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(options, message):
    with pytest.raises(ConfigError, match=message):
        seq2seq_lstm.make(DATA, **options)
