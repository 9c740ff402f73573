"""Texts are those of the whole model, drawn by its probabilities, of their own row alone, and end when they should."""

import dataclasses
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from toy_continuation import EOS, READ, TRACED, Script, Toy, toy_of

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models import decoder, encoder_decoder, lstm, seq2seq_lstm
from jaxlab.models.beam import beam_search
from jaxlab.models.continuation import Cached, Recomputed, Recurrent, RecurrentTranslator, Translator
from jaxlab.models.generate import Texts, greedy, row_keys, sample, truncate

pytestmark = pytest.mark.slow  # compiles much; the contracts try every model in the quick part too

B, P, T, V = 3, 4, 6, 13
DATA = DataSpec({}, 10, {"vocabulary_size": V})
TINY = {"width": 8, "depth": 2, "heads": 4, "max_length": P + T - 1}
SHALLOW = {**TINY, "depth": 1}
LSTM = {"width": 6, "features": 6, "layers": 2}
WRITERS = {
    "gpt2": Cached(decoder.gpt2(DATA, **SHALLOW)),
    "gpt2, scan": Cached(decoder.gpt2(DATA, **TINY, scan=True)),
    "modern": Cached(decoder.make(DATA, **SHALLOW, kv_heads=2)),
    "modern, scan": Cached(decoder.make(DATA, **TINY, kv_heads=2, scan=True)),
    "original": Translator(encoder_decoder.make(DATA, **TINY)),
    "rotary, scan": Translator(encoder_decoder.make(DATA, **TINY, positions="rotary", pre_norm=True, scan=True)),
    "lstm": Recurrent(lstm.language(DATA, **LSTM)),
    "gru": Recurrent(lstm.language(DATA, **LSTM, cell="gru")),
    "attentive lstm": RecurrentTranslator(seq2seq_lstm.make(DATA, **LSTM)),
    "attentive gru": RecurrentTranslator(seq2seq_lstm.make(DATA, **LSTM, cell="gru", bidirectional=False)),
}
FAST = ("modern", "gpt2, scan", "rotary, scan", "lstm", "attentive lstm")


def writers(*quick: str) -> pytest.MarkDecorator:
    """Return every writer as a parameter; further variants of a kind are left to the exhaustive part."""

    def mark(name):
        return () if name in quick else pytest.mark.slow if name in FAST else pytest.mark.exhaustive

    return pytest.mark.parametrize("name", [pytest.param(name, marks=mark(name)) for name in WRITERS])


_random = np.random.default_rng(0)
PROMPT, SOURCE = (_random.integers(3, V, (B, steps)).astype(np.int32) for steps in (P, 5))
SOURCE_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], np.float32)
KEYS = row_keys(jax.random.key(0), np.arange(B))


def inputs_of(name, prompt=PROMPT, mask=None, rows=slice(None)):
    texts = (prompt[rows], None if mask is None else mask[rows])
    reads = isinstance(WRITERS[name], Translator | RecurrentTranslator)
    return (SOURCE[rows], SOURCE_MASK[rows], *texts) if reads else texts


@functools.cache
def variables_of(name):
    model, inputs = WRITERS[name].model, [x for x in inputs_of(name) if x is not None]
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))["params"]
    generator = np.random.default_rng(1)
    return {"params": jax.tree.map(lambda x: generator.normal(0, 0.7, x.shape).astype(np.float32), shapes)}


@functools.cache
def whole(name):
    """Return the function from texts [B, T] to the log-probabilities [B, T, V], which reads all at once."""
    *others, prompt, _ = inputs_of(name)

    @jax.jit
    def function(variables, tokens_BT):
        text = jnp.concatenate([prompt, tokens_BT[:, :-1]], axis=1)
        logits = WRITERS[name].model.apply(variables, *others, text, train=False)["logits"]
        return jax.nn.log_softmax(logits[:, P - 1 :])

    return lambda tokens_BT: jax.device_get(function(variables_of(name), tokens_BT))


def real(texts):
    return np.arange(T) < np.asarray(texts.lengths)[..., None]


def scored(name, texts):
    gain = np.take_along_axis(whole(name)(texts.tokens), texts.tokens[:, :, None], axis=2)[:, :, 0]
    return np.where(real(texts), gain, 0).sum(axis=1)


@writers(*FAST)
def test_greedy_texts_are_the_likeliest_tokens_of_the_whole_text_read_at_once(name):
    texts = jax.device_get(greedy(WRITERS[name], variables_of(name), inputs_of(name), max_length=T, eos=EOS))
    np.testing.assert_array_equal(texts.tokens, np.where(real(texts), whole(name)(texts.tokens).argmax(axis=2), 0))
    np.testing.assert_allclose(texts.scores, scored(name, texts), atol=1e-4)


@writers("gpt2, scan")
def test_beams_have_the_scores_of_the_whole_text_read_at_once(name):
    writer, variables, inputs = WRITERS[name], variables_of(name), inputs_of(name)
    beams = jax.device_get(beam_search(writer, variables, inputs, max_length=T, eos=EOS, width=3, best=2))
    for place in range(2):
        texts = Texts(*(field[:, place] for field in beams))
        np.testing.assert_allclose(texts.scores, scored(name, texts), atol=1e-4)


@writers("lstm")
def test_drawn_texts_have_the_scores_of_the_whole_text_read_at_once(name):
    writer, variables, inputs = WRITERS[name], variables_of(name), inputs_of(name)
    drawn = jax.device_get(sample(writer, variables, inputs, KEYS, max_length=T, eos=EOS, temperature=2.0))
    np.testing.assert_allclose(drawn.scores, scored(name, drawn), atol=1e-4)
    assert len(np.unique(drawn.tokens)) > 3


@pytest.mark.parametrize(
    "name", ["modern", *(pytest.param(x, marks=pytest.mark.exhaustive) for x in ("gpt2", "gpt2, scan"))]
)
def test_with_and_without_a_cache_the_texts_of_padded_prompts_are_the_same(name):
    inputs = inputs_of(name, mask=np.array([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 0]]))
    ways = (WRITERS[name], Recomputed(WRITERS[name].model))
    found, expected = (greedy(way, variables_of(name), inputs, max_length=T, eos=EOS) for way in ways)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["lstm", "rotary, scan", *(pytest.param(x, marks=pytest.mark.exhaustive) for x in ("modern", "attentive lstm"))],
)
def test_prompts_of_different_lengths_padded_on_either_side_are_as_alone(name):
    mask = np.array([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]])
    prompt = np.where(mask > 0, PROMPT, 0)
    write = functools.partial(sample, WRITERS[name], variables_of(name), max_length=T, eos=EOS, temperature=1.5)
    together = write(inputs_of(name, prompt, mask), KEYS)
    for row in (1, 2):
        alone = write(inputs_of(name, prompt[:, mask[row] > 0], None, slice(row, row + 1)), KEYS[row : row + 1])
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-4)


def test_what_is_compiled_is_kept_by_the_model_and_works_inside_jit():
    again, other = Recurrent(WRITERS["lstm"].model), Recurrent(WRITERS["gru"].model)
    assert again == WRITERS["lstm"] != other
    assert hash(again) == hash(WRITERS["lstm"])
    write = functools.partial(greedy, again, max_length=T, eos=EOS)
    inside = jax.jit(write)(variables_of("lstm"), inputs_of("lstm"))
    np.testing.assert_array_equal(inside.tokens, write(variables_of("lstm"), inputs_of("lstm")).tokens)


@pytest.mark.parametrize("name", ["modern", "original"])
def test_texts_longer_than_the_models_positions_are_refused(name):
    kinds = [WRITERS[name], *([Recomputed(WRITERS[name].model)] if name == "modern" else [])]
    for kind in kinds:
        with pytest.raises(ConfigError, match=r"max_length=7: expected 6 or less after a prompt of 4 tokens .*=9"):
            greedy(kind, variables_of(name), inputs_of(name), max_length=T + 1)


@pytest.mark.parametrize("name", ["attentive lstm", "modern"])
def test_half_precision_fits_together(name):
    variables = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables_of(name))
    texts = jax.eval_shape(lambda: greedy(WRITERS[name], variables, inputs_of(name), max_length=3))
    assert texts.scores.dtype == jnp.float32


# What follows is of the choice of tokens and the loop, whatever the model.


def written(logits_V, rows=20000, seed=0, **options):
    """Return the relative frequency of each token [V] among many rows with a key of their own."""
    keys = row_keys(jax.random.key(seed), np.arange(rows))
    logits = np.broadcast_to(np.float32(logits_V), (rows, 2, len(logits_V)))
    tokens = np.asarray(sample(Script(), {}, (logits,), keys, max_length=2, **options).tokens)
    return np.stack([np.bincount(tokens[:, place], minlength=len(logits_V)) for place in range(2)])


LOGITS = [0.3, 2.0, -1.0, 0.9, 0.0, 1.4]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"temperature": 0.5}, [0, 1, 2, 3, 4, 5]),
        ({"temperature": 3.0}, [0, 1, 2, 3, 4, 5]),
        ({"top_k": 3}, [1, 3, 5]),
        ({"top_k": 99}, [0, 1, 2, 3, 4, 5]),
        ({"top_p": 0.7}, [1, 3, 5]),
        ({"top_p": 0.7, "temperature": 0.5}, [1, 5]),
        ({"top_k": 3, "top_p": 0.8}, [1, 5]),
    ],
)
def test_tokens_are_as_frequent_as_the_softmax_of_what_is_kept_says(options, kept):
    counts = written(LOGITS, **options)
    p = np.zeros(6)
    p[kept] = np.exp(np.array(LOGITS)[kept] / options.get("temperature", 1.0))
    p /= p.sum()
    for count in counts:
        assert not count[p == 0].any()
        assert scipy.stats.chisquare(count[kept], p[kept] * count.sum()).pvalue > 1e-3
    first, second = counts
    assert (first != second).any()


def test_the_test_of_frequencies_can_fail():
    count = written(LOGITS, temperature=1.1)[0]
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()
    assert scipy.stats.chisquare(count, p * count.sum()).pvalue < 1e-3


def test_top_p_keeps_the_smallest_set_that_reaches_it_and_top_k_as_many_as_it_says():
    logits = np.random.default_rng(0).normal(0, 2, (50, 9)).astype(np.float32)
    logits[0] = 0.0  # all equally likely
    p = np.asarray(jax.nn.softmax(logits))
    for top_p in (0.05, 0.3, 0.5, 0.9, 0.999):
        kept = np.isfinite(jax.jit(truncate)(logits, 0, top_p))
        for row in range(50):
            least = p[row][kept[row]].min()
            assert p[row][kept[row]].sum() >= top_p - 1e-6
            assert p[row][kept[row]].sum() - least < top_p + 1e-6  # one fewer would not do
            assert least >= p[row][~kept[row]].max(initial=0)
    for top_k in (1, 4, 9, 20):
        assert (np.isfinite(jax.jit(truncate)(logits, top_k, 1.0)).sum(axis=1) == min(top_k, 9)).all()
    np.testing.assert_array_equal(jax.jit(truncate)(logits * 30, 0, 1.0), logits * 30)
    np.testing.assert_array_equal(np.isfinite(truncate(logits[:1], 3, 1.0))[0], np.arange(9) < 3)  # the first of equals


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1e-38}, {"top_k": 1}, {"top_p": 1e-9}])
def test_cold_or_cut_to_one_token_drawing_is_greedy(options):
    for seed in range(5):
        variables, inputs = toy_of(seed, rows=8)
        keys = row_keys(jax.random.key(seed), np.arange(8))
        found = sample(Toy(), variables, inputs, keys, max_length=T, eos=EOS, **options)
        expected = greedy(Toy(), variables, inputs, max_length=T, eos=EOS)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_a_rows_text_depends_on_its_own_key_and_beginning_alone():
    write = functools.partial(sample, Toy(), max_length=T, eos=EOS)
    variables, (state,) = toy_of(0, rows=8, scale=0.5)
    key, ids = jax.random.key(3), np.array([4, 90, 17, 8, 11, 2, 70, 5])
    together = write(variables, (state,), row_keys(key, ids))
    others = np.arange(8) % 2 == 1
    among_others = write(variables, (np.where(others[:, None], -state, state),), row_keys(key, ids + 100 * others))
    np.testing.assert_array_equal(among_others.tokens[::2], together.tokens[::2])
    np.testing.assert_array_equal(among_others.scores[::2], together.scores[::2])
    in_reverse = write(variables, (state[::-1],), row_keys(key, ids[::-1]))
    np.testing.assert_array_equal(in_reverse.tokens[::-1], together.tokens)
    of_one_state = write(variables, (state[[0] * 8],), row_keys(key, ids))
    assert len(np.unique(of_one_state.tokens, axis=0)) > 4


SCRIPT = np.zeros((3, 10, 4), np.float32)  # the likeliest tokens: row 0 ends at once, 1 after four, 2 after three
SCRIPT[..., 3] = 1.0
for _row, _place in enumerate((0, 3, 2)):
    SCRIPT[_row, _place, EOS] = 2.0


@dataclasses.dataclass(frozen=True)
class Counted(Script):
    """A script that counts the tokens it reads."""

    def step(self, variables, carry, token_B):
        jax.debug.callback(lambda token_B: READ.append(token_B.tolist()), token_B)
        return super().step(variables, carry, token_B)


def test_a_text_ends_with_eos_then_there_is_pad_and_the_loop_ends_with_the_last_row():
    READ.clear()
    texts = jax.device_get(greedy(Counted(), {}, (SCRIPT,), max_length=10, eos=EOS, pad=2))
    jax.effects_barrier()
    expected = [[EOS, 2, 2, 2], [3, 3, 3, EOS], [3, 3, EOS, 2]]
    np.testing.assert_array_equal(texts.tokens, [[*row, *[2] * 6] for row in expected])
    np.testing.assert_array_equal(texts.lengths, [1, 4, 3])
    assert READ == [[EOS, 3, 3], [2, 3, 3], [2, 3, EOS]]  # the end itself is read by none
    log_p = SCRIPT - np.log(np.exp(SCRIPT).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(
        texts.scores,
        [log_p[row, range(len(x)), x][: texts.lengths[row]].sum() for row, x in enumerate(expected)],
        rtol=1e-5,
    )


def test_without_eos_or_before_it_a_text_ends_at_max_length():
    READ.clear()
    texts = greedy(Counted(), {}, (SCRIPT,), max_length=10)
    jax.effects_barrier()
    np.testing.assert_array_equal(texts.lengths, [10, 10, 10])
    assert len(READ) == 9
    short = greedy(Counted(), {}, (SCRIPT,), max_length=2, eos=EOS)
    np.testing.assert_array_equal(short.tokens, [[EOS, 0], [3, 3], [3, 3]])
    np.testing.assert_array_equal(short.lengths, [1, 2, 2])
    one = greedy(Counted(), {}, (SCRIPT,), max_length=1, eos=EOS)
    np.testing.assert_array_equal(one.tokens, [[EOS], [3], [3]])


def test_a_model_may_pad_with_its_eos():
    texts = greedy(Script(), {}, (SCRIPT,), max_length=10, eos=EOS, pad=EOS)
    np.testing.assert_array_equal(texts.lengths, [1, 4, 3])
    np.testing.assert_array_equal((np.asarray(texts.tokens) == EOS).sum(axis=1), [10, 7, 8])


def test_another_batch_of_the_same_shape_or_another_temperature_compiles_nothing_anew():
    def both(seed, **options):
        variables, inputs = toy_of(seed, rows=8)
        keys = row_keys(jax.random.key(seed), np.arange(8))
        drawn = sample(Toy(), variables, inputs, keys, max_length=T, eos=EOS, **options)
        return greedy(Toy(), variables, inputs, max_length=T, eos=EOS), drawn

    first = both(0, top_k=2)
    TRACED.clear()
    second = both(1, temperature=0.7, top_k=3, top_p=0.5)
    assert TRACED == []
    assert all((np.asarray(a.tokens) != b.tokens).any() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1: expected 0 or more"),
        ({"temperature": float("nan")}, "temperature=nan: expected 0 or more"),
        ({"top_k": -1}, "top_k=-1: expected 1 or more, or 0 for all"),
        ({"top_p": 0.0}, "top_p=0.0: expected above 0 and up to 1"),
        ({"top_p": 1.1}, "top_p=1.1: expected above 0 and up to 1"),
        ({"max_length": 0}, "max_length=0: expected 1 or more"),
        ({"eos": 5}, "eos=5: expected one of the model's 5 token ids, or -1"),
        ({"eos": -2}, "eos=-2: expected one of the model's 5 token ids, or -1"),
        ({"pad": 5}, "pad=5: expected one of the model's 5 token ids"),
    ],
)
def test_bad_options_are_refused(options, message):
    keys = row_keys(jax.random.key(0), np.arange(4))
    with pytest.raises(ConfigError, match=message):
        sample(Toy(), *toy_of(0), keys, **{"max_length": 3, **options})
    if not options.keys() & {"temperature", "top_k", "top_p"}:
        with pytest.raises(ConfigError, match=message):
            greedy(Toy(), *toy_of(0), **{"max_length": 3, **options})


def test_one_key_for_all_rows_is_refused():
    with pytest.raises(ValueError, match="one random key a row, as by row_keys"):
        sample(Toy(), *toy_of(0), jax.random.key(0), max_length=3)


@pytest.mark.slow
def test_the_examples_of_the_page_run():
    page = (Path(__file__).parents[2] / "docs/decoding.md").read_text()
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, "decoding.md", "exec"), names)
