"""Beam search finds what a list-based one finds, never less than greedy decoding, and all there is if it is wide."""

import jax
import numpy as np
import pytest
from toy_continuation import EOS, READ, TRACED, Script, Toy, all_texts, log_probabilities, norm, textbook_beam, toy_of

from jaxlab.core.errors import ConfigError
from jaxlab.models.beam import beam_search
from jaxlab.models.generate import greedy

pytestmark = pytest.mark.slow  # compiles much; the contracts try every model in the quick part too

T = 6


def search(*args, **options):
    return jax.device_get(beam_search(Toy(), *args, **{"max_length": T, "eos": EOS, **options}))


def plainly(*args, max_length):
    return jax.device_get(greedy(Toy(), *args, max_length=max_length, eos=EOS))


def read(texts, row, place=0):
    return tuple(texts.tokens[row, place, : texts.lengths[row, place]].tolist())


@pytest.mark.parametrize("keep_greedy", [True, False])
def test_of_width_1_it_is_greedy(keep_greedy):
    for seed in range(10):
        variables, inputs = toy_of(seed, rows=64, vocabulary_size=8, scale=1.0)
        expected = plainly(variables, inputs, max_length=12)
        found = search(variables, inputs, width=1, keep_greedy=keep_greedy, max_length=12)
        np.testing.assert_array_equal(found.tokens[:, 0], expected.tokens)
        np.testing.assert_array_equal(found.lengths[:, 0], expected.lengths)
        np.testing.assert_allclose(found.scores[:, 0], expected.scores, rtol=1e-5)


@pytest.mark.parametrize(("width", "penalty"), [(2, 0.0), (2, 1.0), pytest.param(4, 0.0, marks=pytest.mark.slow)])
def test_no_score_is_below_that_of_greedy_decoding(width, penalty):
    better = 0
    for seed in range(20):
        variables, inputs = toy_of(seed, rows=64, vocabulary_size=8, scale=1.0)
        plain = plainly(variables, inputs, max_length=12)
        expected = plain.scores / norm(plain.lengths, penalty)
        found = search(variables, inputs, width=width, length_penalty=penalty, max_length=12).scores[:, 0]
        assert (found >= expected - 1e-5 * (1 + np.abs(expected))).all()
        better += int((found > expected + 1e-3).sum())
    assert better > 100


def test_without_its_place_the_greedy_text_can_be_lost():
    variables, inputs = toy_of(0, rows=64, vocabulary_size=8, scale=1.0)
    plain = plainly(variables, inputs, max_length=12).scores
    found = search(variables, inputs, width=2, keep_greedy=False, max_length=12).scores[:, 0]
    assert (found < plain - 1e-2).any()


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.5])
def test_as_wide_as_there_are_texts_it_finds_the_best_of_all_in_order(penalty):
    V, length, best = 3, 4, 5
    for seed in range(5):
        variables, inputs = toy_of(seed, rows=2, vocabulary_size=V)
        found = search(variables, inputs, width=V**length, best=best, length_penalty=penalty, max_length=length)
        for row in range(2):
            expected = all_texts(variables, inputs[0][row], length, penalty)
            assert [read(found, row, place) for place in range(best)] == [text for _, text in expected[:best]]
            np.testing.assert_allclose(found.scores[row], [score for score, _ in expected[:best]], rtol=1e-4)


@pytest.mark.parametrize(("width", "penalty"), [(3, 0.0), (3, 1.0)])
def test_it_agrees_with_a_search_by_lists_that_never_ends_early(width, penalty):
    for seed in range(10):
        variables, inputs = toy_of(seed, scale=1.0)
        found = search(variables, inputs, width=width, length_penalty=penalty, keep_greedy=False)
        for row, state_H in enumerate(inputs[0]):
            score, text = textbook_beam(variables, state_H, T, width, penalty)
            assert read(found, row) == text
            assert found.scores[row, 0] == pytest.approx(score, rel=1e-4)


def test_the_texts_are_different_ordered_and_their_scores_are_the_models():
    variables, inputs = toy_of(3, scale=1.0)
    found = search(variables, inputs, width=3, best=3, length_penalty=0.8)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for row, state_H in enumerate(inputs[0]):
        texts = [read(found, row, place) for place in range(3)]
        assert len(set(texts)) == 3
        for place, text in enumerate(texts):
            assert EOS not in text[:-1]
            assert text[-1] == EOS or len(text) == T
            gains = [log_probabilities(variables, state_H, text[:n])[token] for n, token in enumerate(text)]
            assert found.scores[row, place] == pytest.approx(sum(gains) / norm(len(text), 0.8), rel=1e-4)
            assert not found.tokens[row, place, len(text) :].any()


def test_a_penalty_prefers_longer_texts():
    def mean_length(penalty):
        return search(
            *toy_of(0, rows=64, vocabulary_size=8, scale=1.0), width=2, max_length=12, length_penalty=penalty
        ).lengths.mean()

    assert mean_length(0.0) + 0.5 < mean_length(2.0)


def test_where_there_are_fewer_texts_the_rest_is_empty():
    logits = np.full((1, 3, 4), -np.inf, np.float32)
    logits[:, :, EOS] = 0.0  # the only text there is
    found = beam_search(Script(), {}, (logits,), max_length=3, width=3, best=3, eos=EOS, pad=2)
    np.testing.assert_array_equal(found.lengths, [[1, 0, 0]])
    np.testing.assert_array_equal(found.scores, [[0, -np.inf, -np.inf]])
    np.testing.assert_array_equal(found.tokens, [[[EOS, 2, 2], [2, 2, 2], [2, 2, 2]]])


def test_it_ends_when_no_open_text_can_beat_the_best_and_not_before():
    def steps(logits, **options):
        READ.clear()
        found = beam_search(Counted(), {}, (logits,), max_length=10, width=2, eos=EOS, **options)
        jax.block_until_ready(found)
        jax.effects_barrier()
        return len(READ), found

    logits = np.zeros((1, 10, 3), np.float32)
    logits[:, 0, EOS] = 2.0  # at once the end is likelier than anything else
    assert steps(logits)[0] == 0
    reads, found = steps(logits, length_penalty=2.5)  # a long one might still be better
    assert reads == 1
    assert found.lengths[0, 0] == 1
    assert steps(logits, best=2)[0] > 0  # a second text is wanted
    logits[:] = [0.0, -9.0, 0.0]
    assert steps(logits)[0] == 9
    logits[:, 2] = [-9.0, 3.0, -9.0]  # every text ends with the third token
    assert steps(logits)[0] == 2


class Counted(Script):
    """A script that counts the tokens it reads."""

    def step(self, variables, carry, token_B):
        jax.debug.callback(READ.append, token_B)
        return super().step(variables, carry, token_B)


def test_a_rows_texts_do_not_depend_on_the_other_rows():
    options = {"length_penalty": 1.0, "best": 2}
    variables, (state,) = toy_of(5, scale=1.0)
    together = search(variables, (state,), width=3, **options)
    for row in range(4):
        alone = search(variables, (state[row : row + 1],), width=3, **options)
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


def test_another_batch_of_the_same_shape_compiles_nothing_anew():
    found = search(*toy_of(0, scale=1.0), width=3)
    TRACED.clear()
    other = search(*toy_of(1, scale=1.0), width=3)
    assert TRACED == []
    assert (found.tokens != other.tokens).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width=0: expected 1 or more"),
        ({"best": 3}, "best=3: expected 1 to width=2"),
        ({"best": 0}, "best=0: expected 1 to width=2"),
        ({"length_penalty": -0.5}, "length_penalty=-0.5: expected 0 or more"),
        ({"length_penalty": float("nan")}, "length_penalty=nan: expected 0 or more"),
        ({"max_length": 0}, "max_length=0: expected 1 or more"),
        ({"eos": 5}, "eos=5: expected one of the model's 5 token ids, or -1"),
        ({"pad": -1}, "pad=-1: expected one of the model's 5 token ids"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        search(*toy_of(0), **{"width": 2, **options})
