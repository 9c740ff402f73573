"""BERT, GPT-2, the modern decoder and the encoder-decoder: their sizes, and that cached decoding is decoding."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models import decoder, encoder, encoder_decoder
from jaxlab.models.slots import take_rows

B, T, V, C = 2, 6, 20, 3
TOKENS = np.random.default_rng(0).permuted(np.tile(np.arange(V, dtype=np.int32), (B, 1)), axis=1)[:, :T]
SOURCE = TOKENS[::-1, ::-1]
SOURCE_MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], np.float32)
TINY = {"width": 8, "depth": 2, "heads": 4, "max_length": 10}


def data(length=T, vocabulary_size=V, fields=("tokens",)):
    example = {name: jax.ShapeDtypeStruct((length,), np.int32) for name in fields}
    return DataSpec(example, 10, {"vocabulary_size": vocabulary_size, "classes": tuple("abc")})


DECODERS = {
    "modern": decoder.make(data(), **TINY, kv_heads=2),
    "gpt2": decoder.gpt2(data(), **TINY, dropout=0.5, scan=True),
    "sinusoidal": decoder.make(data(), **TINY, kv_heads=1, positions="sinusoidal", pre_norm=False, tied=False),
}
SMALL = {**TINY, "depth": 1}
TRANSLATORS = {
    "original": encoder_decoder.make(data(), **SMALL, dropout=0.5),
    "modern": encoder_decoder.make(
        data(), **TINY, pre_norm=True, norm="rms", positions="rotary", shared=False, tied=False, scan=True
    ),
}
READERS = {
    "bert": encoder.masked(data(), **SMALL),
    "mean": encoder.make(data(), **SMALL, dropout=0.5),
    "first": encoder.make(data(), **TINY, pooling="first", pre_norm=True, positions="rotary", types=0, scan=True),
}
each_decoder = pytest.mark.parametrize("name", DECODERS)
each_translator = pytest.mark.parametrize("name", TRANSLATORS)


def shapes_of(model, *inputs):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))["params"]


@functools.cache
def variables_of(model):
    inputs = (SOURCE, SOURCE_MASK, TOKENS) if isinstance(model, encoder_decoder.EncoderDecoder) else (TOKENS,)
    generator = np.random.default_rng(1)
    shapes = shapes_of(model, *inputs)
    return {"params": jax.tree.map(lambda x: generator.normal(0, 0.4, x.shape).astype(np.float32), shapes)}


def jitted(model, **options):
    return jax.jit(functools.partial(model.apply, variables_of(model), train=False, **options))


def count(model, *inputs):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(model, *inputs)))


def test_learned_positions_and_tables_are_as_many_as_are_chosen():
    shared, apart = (encoder_decoder.make(data(), **TINY, positions="learned", shared=s) for s in (True, False))
    assert count(apart, SOURCE, None, TOKENS) - count(shared, SOURCE, None, TOKENS) == (V + 10) * 8
    bare, learned = (decoder.make(data(), **TINY, kv_heads=2, positions=p) for p in ("none", "learned"))
    assert count(learned, TOKENS) - count(bare, TOKENS) == 10 * 8


@pytest.mark.parametrize("scan", [False, True])
def test_the_published_models_have_exactly_their_number_of_parameters(scan):
    assert count(decoder.gpt2(data(), vocabulary_size=50257, scan=scan), TOKENS) == 124_439_808
    assert count(encoder.masked(data(), vocabulary_size=30522, head=False, scan=scan), TOKENS) == 109_482_240
    head = 768 * 768 + 768 + 2 * 768 + 30522  # transformation, its normalisation and the output's bias
    assert count(encoder.masked(data(), vocabulary_size=30522, scan=scan), TOKENS) == 109_482_240 + head
    attention, norm, wide = 4 * (512 * 512 + 512), 2 * 512, 2 * 512 * 2048 + 2048 + 512
    layer = attention + wide + 2 * norm
    expected = 37000 * 512 + 6 * layer + 6 * (layer + attention + norm)
    assert count(encoder_decoder.make(data(), vocabulary_size=37000, scan=scan), SOURCE, None, TOKENS) == expected


def test_a_decoder_like_llama_has_the_papers_number_of_parameters():
    spec = data(vocabulary_size=32000)
    options = {"width": 4096, "depth": 32, "heads": 32, "kv_heads": 0, "hidden": 11008, "tied": False, "scan": True}
    assert count(decoder.make(spec, **options), TOKENS) == 6_738_415_616  # LLaMA-7B


@pytest.mark.parametrize("model", [*DECODERS.values(), *READERS.values()], ids=[*DECODERS, *READERS])
def test_a_model_returns_finite_results_for_each_row(model):
    outputs = jitted(model)(TOKENS)
    expected = {"logits": (B, C) if isinstance(model, encoder.Classifier) else (B, T, V)}
    if isinstance(model, encoder.Masked):
        expected |= {"hidden": (B, T, 8), "pooled": (B, 8)}
    assert {name: value.shape for name, value in outputs.items()} == expected
    assert all(np.isfinite(value).all() for value in outputs.values())


@each_decoder
def test_a_decoders_logits_depend_on_the_past_of_the_same_document_alone(name):
    model, segments = DECODERS[name], np.array([[1, 1, 1, 2, 2, 0]] * B)
    positions = np.array([[0, 1, 2, 0, 1, 0]] * B)
    apply = jitted(model)
    whole = apply(TOKENS, segments, positions)["logits"]
    for place in range(T):
        other = TOKENS.copy()
        other[:, place] = (other[:, place] + 7) % V
        changed = np.abs(apply(other, segments, positions)["logits"] - whole).max(axis=(0, 2)) > 0
        expected = (segments[0] == segments[0, place]) & (np.arange(T) >= place)
        np.testing.assert_array_equal(changed, expected)
    alone = apply(np.roll(TOKENS, -3, axis=1), np.array([[1, 1, 2, 2, 2, 2]] * B), np.roll(positions, -3, axis=1))
    np.testing.assert_allclose(alone["logits"][:, :2], whole[:, 3:5], atol=1e-5)  # a document packed is as alone


def decode(model, tokens, chunks, mask=None, first=(), **options):
    """Return the logits of decoding the tokens in chunks of the given lengths, and the cache."""
    variables, parts, start = variables_of(model), [], 0
    mask = np.ones(tokens.shape) if mask is None else mask
    for number, length in enumerate(chunks):
        part = slice(start, start + length)
        rest = first if number == 0 else ()
        outputs, cache = model.apply(
            variables, tokens[:, part], mask[:, part], *rest, method="decode", mutable=["cache"], **options
        )
        variables = {**variables, **cache}
        parts.append(outputs["logits"])
        start += length
    return jnp.concatenate(parts, axis=1), variables["cache"]


@each_decoder
def test_decoding_with_a_cache_gives_the_logits_of_the_whole_row(name):
    model = DECODERS[name]
    expected = jitted(model)(TOKENS)["logits"]
    chunks, capacity = ((4, 1, 1), 0) if name == "modern" else ((1, 5), T)
    found, cache = jax.jit(lambda: decode(model, TOKENS, chunks, capacity=capacity))()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert cache["slots"]["filled"].shape == (B, capacity or TINY["max_length"])
    assert cache["slots"]["slot"] == T


@pytest.mark.parametrize("name", ["modern", "gpt2"])
def test_prompts_padded_on_either_side_are_decoded_as_if_they_were_alone(name):
    model = DECODERS[name]
    mask = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1]])
    tokens = np.zeros_like(mask)
    for row in range(B):
        tokens[row, mask[row] > 0] = TOKENS[row, : mask[row].sum()]
    found, cache = jax.jit(lambda: decode(model, tokens, (4, 2), mask))()
    alone = jitted(model)(TOKENS)["logits"]
    for row in range(B):
        real = mask[row] > 0
        np.testing.assert_allclose(found[row, real], alone[row, : real.sum()], atol=1e-5)
    np.testing.assert_array_equal(cache["slots"]["length"], mask.sum(axis=1))


def test_tokens_beyond_the_caches_capacity_give_nan_and_a_cache_beyond_the_models_length_is_an_error():
    model = DECODERS["modern"]
    found, _ = jax.jit(lambda: decode(model, TOKENS, (4, 2), capacity=5))()
    assert np.isfinite(found[:, :4]).all()
    assert np.isnan(found[:, 4:]).all()  # all of the call that did not fit
    with pytest.raises(ConfigError, match=r"config\.model\.max_length=10"):
        decode(model, TOKENS, (4,), capacity=11)


@pytest.mark.parametrize("name", ["modern", "gpt2"])
def test_rows_taken_from_a_cache_go_on_as_those_rows(name):
    model, rows = DECODERS[name], np.array([1, 1, 0])

    @jax.jit
    def go_on():
        _, cache = decode(model, TOKENS, (4,))
        variables = {**variables_of(model), "cache": take_rows(cache, rows)}
        return model.apply(variables, TOKENS[rows, 4:], method="decode", mutable=["cache"])[0]["logits"]

    np.testing.assert_allclose(go_on(), jitted(model)(TOKENS)["logits"][rows, 4:], atol=1e-5)


@each_translator
def test_a_translator_decodes_with_a_cache_as_it_does_the_whole_target_at_once(name):
    model = TRANSLATORS[name]

    @jax.jit
    def cached():
        memory = model.apply(variables_of(model), SOURCE, SOURCE_MASK, method="encode")["hidden"]
        return decode(model, TOKENS, (4, 2), None, (memory, SOURCE_MASK))

    found, cache = cached()
    np.testing.assert_allclose(found, jitted(model)(SOURCE, SOURCE_MASK, TOKENS)["logits"], atol=1e-5)
    assert cache["memory_mask"].shape == SOURCE.shape


def test_after_the_first_call_the_memory_is_neither_given_nor_computed_again():
    model = TRANSLATORS["original"]
    memory = jax.eval_shape(lambda: model.apply(variables_of(model), SOURCE, method="encode")["hidden"])

    def products(tokens, *rest):
        step = functools.partial(model.apply, method="decode", mutable=["cache"])
        outputs, cache = jax.eval_shape(lambda m: step(variables_of(model), tokens, None, m), memory)
        assert outputs["logits"].shape == (*tokens.shape, V)
        text = jax.jit(lambda v, *r: step(v, tokens, None, *r)).lower({**variables_of(model), **cache}, *rest).as_text()
        return text.count("dot_general")

    first, later = products(TOKENS[:, :1], memory), products(TOKENS[:, :1])
    assert first - later == 2  # the block's keys and values of the memory
    with pytest.raises(ValueError, match="the first call of decode needs the memory"):
        model.apply(variables_of(model), TOKENS, method="decode", mutable=["cache"])


@each_translator
def test_a_translators_logits_depend_on_the_whole_real_source_and_the_targets_past(name):
    model = TRANSLATORS[name]
    apply = jitted(model)
    whole = apply(SOURCE, SOURCE_MASK, TOKENS)["logits"]
    for place in range(T):
        changed = TOKENS.copy()
        changed[:, place] = (changed[:, place] + 7) % V
        moved = np.abs(apply(SOURCE, SOURCE_MASK, changed)["logits"] - whole).max(axis=2) > 0
        np.testing.assert_array_equal(moved, np.tile(np.arange(T) >= place, (B, 1)))
        changed = SOURCE.copy()
        changed[:, place] = (changed[:, place] + 7) % V
        moved = np.abs(apply(changed, SOURCE_MASK, TOKENS)["logits"] - whole).max(axis=(1, 2)) > 0
        np.testing.assert_array_equal(moved, SOURCE_MASK[:, place] > 0)
    everything = apply(SOURCE, np.ones_like(SOURCE_MASK), TOKENS)["logits"]
    np.testing.assert_allclose(apply(SOURCE, None, TOKENS)["logits"], everything, atol=1e-6)


@pytest.mark.parametrize("name", READERS)
def test_padding_changes_nothing_for_an_encoder_and_a_row_of_padding_alone_is_finite(name):
    model = READERS[name]
    apply, mask = jitted(model), np.array([[1, 1, 1, 1, 0, 0], [0] * 6], np.float32)
    found, other = apply(TOKENS, mask), apply(np.where(mask > 0, TOKENS, 3), mask)
    alone = apply(TOKENS[:1, :4], np.ones((1, 4), np.float32))
    for key, value in found.items():
        assert np.isfinite(value).all()
        real = slice(0, 4) if value.shape[1] == T and value.ndim == 3 else slice(None)
        np.testing.assert_array_equal(value[0, real], other[key][0, real])
        np.testing.assert_allclose(value[0, real], alone[key][0], atol=1e-5)
    np.testing.assert_allclose(apply(TOKENS)["logits"], apply(TOKENS, np.ones((B, T), np.float32))["logits"], atol=1e-6)


def test_types_and_the_pooler_are_berts():
    model = READERS["bert"]
    apply, types = jitted(model), np.array([[0, 0, 0, 1, 1, 1]] * B)
    plain, typed = apply(TOKENS), apply(TOKENS, None, types)
    assert not np.allclose(plain["logits"], typed["logits"])
    np.testing.assert_allclose(apply(TOKENS, None, 0 * types)["logits"], plain["logits"], atol=1e-6)
    pooler = variables_of(model)["params"]["pooler"]
    expected = np.tanh(plain["hidden"][:, 0] @ pooler["kernel"] + pooler["bias"])
    np.testing.assert_allclose(plain["pooled"], expected, atol=1e-5)
    bare = encoder.masked(data(), **SMALL, pooler=False, head=False)
    params = {"params": {"encoder": variables_of(model)["params"]["encoder"]}}
    outputs = jax.jit(functools.partial(bare.apply, train=False))(params, TOKENS)
    assert outputs.keys() == {"hidden"}
    np.testing.assert_allclose(outputs["hidden"], plain["hidden"], atol=1e-6)


def test_initial_weights_are_the_papers():
    gpt2 = decoder.gpt2(data(), width=64, depth=2, heads=4)
    bert = encoder.masked(data(), width=64, depth=1, heads=4)
    original = encoder_decoder.make(data(), width=64, depth=1, heads=4)

    @jax.jit
    def start():
        key = jax.random.key(0, impl="unsafe_rbg")
        found = [gpt2.init(key, TOKENS, train=False), bert.init(key, TOKENS, train=False)]
        return *found, original.init(key, SOURCE, None, TOKENS, train=False)

    gpt2_params, bert_params, original_params = (variables["params"] for variables in start())
    block = gpt2_params["stack"]["layers_1"]
    for leaf, std in (
        (block["attention"]["query"]["kernel"], 0.02), (block["feed_forward"]["up"]["kernel"], 0.02),
        (block["attention"]["output"]["kernel"], 0.01), (block["feed_forward"]["down"]["kernel"], 0.01),
        (gpt2_params["embed"]["token"]["embedding"], 0.02), (gpt2_params["embed"]["position"]["embedding"], 0.02),
        (original_params["embed"]["token"]["embedding"], 1 / 8),
    ):  # fmt: skip
        assert np.std(leaf) == pytest.approx(std, rel=0.1)
    kernel = bert_params["encoder"]["stack"]["layers_0"]["feed_forward"]["up"]["kernel"]
    assert 0.017 < np.std(kernel) < 0.023
    assert np.abs(kernel).max() < 0.05  # a normal of 64 x 256 numbers would go to 0.08
    kernel = original_params["encoder"]["layers_0"]["feed_forward"]["up"]["kernel"]
    assert np.abs(kernel).max() == pytest.approx((6 / (64 + 256)) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (decoder.make, {"vocabulary_size": 19}, "vocabulary_size=19: vocabulary too small; expected 20 or more"),
        (encoder.make, {"vocabulary_size": 3}, "vocabulary too small"),
        (encoder_decoder.make, {"vocabulary_size": 3}, "vocabulary too small"),
        (decoder.gpt2, {"max_length": 5}, "config.model.max_length=5: a row has 6 tokens; expected 6 or more"),
        (encoder.masked, {"max_length": 5}, "a row has 6 tokens"),
        (encoder_decoder.make, {"max_length": 5}, "a row has 6 tokens"),
        (decoder.make, {"max_length": 0}, "config.model.max_length=0: expected 1 or more"),
        (decoder.make, {"heads": 7, "kv_heads": 7}, r"config.model.heads=7: expected a divisor of width=384.*mean 6"),
        (decoder.make, {"kv_heads": 4}, r"config.model.kv_heads=4: expected a divisor of heads=6"),
        (decoder.make, {"depth": 0}, "config.model.depth=0: expected 1 or more"),
        (decoder.make, {"positions": "rotari"}, "config.model.positions='rotari'.*did you mean 'rotary'"),
        (decoder.make, {"rotary_base": 0.0}, "config.model.rotary_base=0.0: expected 1 or more"),
        (encoder.make, {"positions": "lernt"}, "config.model.positions='lernt'.*did you mean 'learned'"),
        (encoder.make, {"pooling": "max"}, "config.model.pooling='max': expected one of mean, first"),
        (encoder.make, {"types": -1}, "config.model.types=-1"),
        (encoder_decoder.make, {"positions": "sin"}, "config.model.positions='sin': expected one of"),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_options_that_do_not_fit_each_other_or_the_data_are_an_error_before_compiling(make, options, message):
    with pytest.raises(ConfigError, match=message):
        make(data(fields=("target",) if make is encoder_decoder.make else ("tokens",)), **options)


def test_longer_rows_than_a_model_has_positions_are_an_error_also_where_the_data_did_not_tell():
    model = decoder.gpt2(data(fields=("other",)), **TINY)
    with pytest.raises(ConfigError, match=r"config\.model\.max_length=10: a row has 11 tokens"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 11), np.int32), train=False))


@pytest.mark.parametrize(
    "model", [DECODERS["gpt2"], READERS["mean"], TRANSLATORS["original"]], ids=["gpt2", "mean", "original"]
)
def test_dropout_acts_in_training_and_evaluation_needs_no_key(model):
    inputs = (SOURCE, SOURCE_MASK, TOKENS) if isinstance(model, encoder_decoder.EncoderDecoder) else (TOKENS,)

    @jax.jit
    def run(key):
        return model.apply(variables_of(model), *inputs, train=True, rngs={"dropout": key})["logits"]

    first, again, other = (run(jax.random.key(seed, impl="unsafe_rbg")) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, jitted(model)(*inputs)["logits"])
