"""What a model writes in an evaluation is what the searches write, row by row, and a model that has learnt writes well.

The model that learns copies short words: character by character, from source to target.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.fitting import Transformed, fit_all
from jaxlab.data.tokenize import character
from jaxlab.metrics import text
from jaxlab.models import decoder, encoder, encoder_decoder, lstm, seq2seq_lstm, write
from jaxlab.models.beam import beam_search
from jaxlab.models.continuation import Cached, Recurrent, RecurrentTranslator, Translator
from jaxlab.models.generate import greedy, row_keys, sample
from jaxlab.objectives import seq2seq
from jaxlab.train.eval_step import make_eval_step
from jaxlab.train.step import init_state, make_train_step

B, S, T, V = 6, 5, 7, 13
FACTS = {"vocabulary_size": V, "pad_id": 0, "specials": {"pad": 0, "bos": 1, "eos": 2}}
FIELDS = {"source": S, "source_mask": S, "target": T, "tokens": T, "token_mask": T}
DATA = DataSpec({name: jax.ShapeDtypeStruct((size,), np.int32) for name, size in FIELDS.items()}, B, FACTS)
SMALL = {"width": 8, "depth": 1, "heads": 2}
TRANSLATORS = {
    "transformer": (encoder_decoder.make(DATA, **SMALL, max_length=T), Translator),
    "lstm": (seq2seq_lstm.make(DATA, width=6, features=6), RecurrentTranslator),
}
WRITERS = {
    "transformer": (decoder.make(DATA, **SMALL, kv_heads=2, max_length=2 * T), Cached),
    "lstm": (lstm.language(DATA, width=6, features=6), Recurrent),
}


def batch_of(seed=0):
    """Return a batch of random tokens whose rows are of different lengths."""
    random = np.random.default_rng(seed)
    fields = {name: random.integers(3, V, (B, size)).astype(np.int32) for name, size in FIELDS.items()}
    for mask, tokens, size in (("source_mask", "source", S), ("token_mask", "tokens", T)):
        real = np.arange(size) < random.integers(2, size + 1, B)[:, None]
        fields |= {mask: real.astype(np.float32), tokens: np.where(real, fields[tokens], 0)}
    return {**fields, "mask": np.ones(B, np.float32), "id": np.arange(B, dtype=np.int32) + 10}


@functools.cache
def variables_of(model):
    batch = batch_of()
    reads = isinstance(model, encoder_decoder.EncoderDecoder | seq2seq_lstm.Seq2Seq)
    inputs = (batch["source"], batch["source_mask"], batch["target"]) if reads else (batch["tokens"],)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))["params"]
    random = np.random.default_rng(1)
    return {"params": jax.tree.map(lambda x: random.normal(0, 0.7, x.shape).astype(np.float32), shapes)}


@functools.cache
def compiled(generate, model):
    return jax.jit(lambda variables, batch: generate(model, variables, batch))


def run(generate, model, batch):
    """Return results as an evaluation asks for them: within jit."""
    return jax.device_get(compiled(generate, model)(variables_of(model), batch))


def slow_but(quick, *cases):
    """Mark the cases that compile much, all but the one whose first value is `quick`."""
    return [pytest.param(*case, marks=() if case[0] == quick else pytest.mark.slow, id=case[0]) for case in cases]


@pytest.mark.parametrize("name", slow_but("lstm", *zip(TRANSLATORS)))
def test_a_translation_within_jit_is_what_beam_search_writes(name):
    model, adapter = TRANSLATORS[name]
    batch, begin = batch_of(), np.ones((B, 1), np.int32)
    found = run(write.translate(DATA, width=3, length_penalty=1.0), model, batch)
    texts = beam_search(
        adapter(model), variables_of(model), (batch["source"], batch["source_mask"], begin), max_length=T, width=3,
        eos=2, length_penalty=1.0,
    )  # fmt: skip
    assert set(found) == {"generated"}
    assert found["generated"].dtype == np.int32
    np.testing.assert_array_equal(found["generated"], texts.tokens[:, 0])


@pytest.mark.parametrize("name", slow_but("lstm", *zip(WRITERS)))
def test_a_continuation_within_jit_is_what_the_searches_write(name):
    model, adapter = WRITERS[name]
    batch = batch_of()
    inputs = (batch["tokens"][:, :3], batch["token_mask"][:, :3])
    found = run(write.continue_text(DATA, prompt=3, max_length=5), model, batch)
    texts = greedy(adapter(model), variables_of(model), inputs, max_length=5, eos=2)
    np.testing.assert_array_equal(found["generated"], texts.tokens)
    np.testing.assert_array_equal(found["rest"], batch["tokens"][:, 3:])
    found = run(write.continue_text(DATA, prompt=3, max_length=5, temperature=2.0, top_k=4, seed=3), model, batch)
    keys = row_keys(jax.random.key(3), batch["id"])
    texts = sample(adapter(model), variables_of(model), inputs, keys, max_length=5, eos=2, temperature=2.0, top_k=4)
    np.testing.assert_array_equal(found["generated"], texts.tokens)


CASES = [
    *((f"{name} translates", write.translate(DATA, width=2), model) for name, (model, _) in TRANSLATORS.items()),
    *(
        (f"{name} goes on", write.continue_text(DATA, prompt=3, max_length=5, temperature=1.0), model)
        for name, (model, _) in WRITERS.items()
    ),
]
each_case = pytest.mark.parametrize(("case", "generate", "model"), slow_but("lstm translates", *CASES))


@each_case
def test_padded_rows_and_other_rows_of_the_batch_do_not_matter(case, generate, model):
    batch = batch_of()
    whole = run(generate, model, batch)
    mask = np.array([1, 0, 1, 1, 0, 1], np.float32)
    kept = mask[:, None] > 0
    for filling in (0, 5):  # a padded row without a token, and with many
        blank = {
            name: np.where(kept if x.ndim == 2 else kept[:, 0], x, filling).astype(x.dtype) for name, x in batch.items()
        }
        found = run(generate, model, {**blank, "mask": mask})
        for name, tokens in found.items():
            np.testing.assert_array_equal(tokens, np.where(kept, whole[name], 0))


@each_case
def test_padding_of_a_row_does_not_matter(case, generate, model):
    batch = batch_of()
    unlike = {
        **batch,
        "source": np.where(batch["source_mask"] > 0, batch["source"], 7),
        "tokens": np.where(batch["token_mask"] > 0, batch["tokens"], 7),
    }
    whole, found = run(generate, model, batch), run(generate, model, unlike)
    for name in whole:
        np.testing.assert_array_equal(found[name], whole[name])


@pytest.mark.slow
def test_without_a_mask_all_tokens_are_real():
    fields = {name: x for name, x in DATA.example.items() if not name.endswith("mask")}
    batch = {**batch_of(), "source_mask": np.ones((B, S), np.float32), "token_mask": np.ones((B, T), np.float32)}
    for factory, (model, _) in ((write.translate, TRANSLATORS["lstm"]), (write.continue_text, WRITERS["lstm"])):
        options = {"prompt": 3} if factory is write.continue_text else {}
        plain = {name: x for name, x in batch.items() if name not in ("source_mask", "token_mask")}
        found = run(factory(DATA._replace(example=fields), max_length=4, **options), model, plain)
        expected = run(factory(DATA, max_length=4, **options), model, batch)
        np.testing.assert_array_equal(found["generated"], expected["generated"])


@pytest.mark.slow
def test_texts_that_no_token_ends_are_as_long_as_they_may_be():
    model, _ = TRANSLATORS["lstm"]
    found = run(write.translate(DATA, width=1, max_length=40, end=""), model, batch_of())["generated"]
    assert found.shape == (B, 40)
    ended = run(write.translate(DATA, width=1, max_length=40), model, batch_of())["generated"]
    assert (np.where(ended == 0, found, ended) == found).all(), "an end changes only what follows it"


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (write.translate, {"width": 0}, "config.generate.width=0: expected 1 or more"),
        (write.translate, {"max_length": -1}, "config.generate.max_length=-1"),
        (write.translate, {"length_penalty": -1.0}, "config.generate.length_penalty=-1.0"),
        (write.translate, {"source": "sourse"}, "no field 'sourse'; did you mean 'source'"),
        (write.translate, {"source_mask": "masks"}, "no field 'masks'"),
        (write.translate, {"target": "targets"}, "did you mean 'target'"),
        (write.translate, {"begin": "boss"}, "no special token 'boss'; did you mean 'bos'"),
        (write.translate, {"end": "end"}, "no special token 'end'"),
        (write.continue_text, {"prompt": T}, "config.generate.prompt=7: expected 1 to 6"),
        (write.continue_text, {"prompt": 0}, "config.generate.prompt=0"),
        (write.continue_text, {"prompt": 2, "max_length": 0}, "config.generate.max_length=0"),
        (write.continue_text, {"prompt": 2, "temperature": -1.0}, "config.generate.temperature=-1.0"),
        (write.continue_text, {"prompt": 2, "top_k": -1}, "config.generate.top_k=-1"),
        (write.continue_text, {"prompt": 2, "top_p": 0.0}, "config.generate.top_p=0.0"),
        (write.continue_text, {"prompt": 2, "tokens": "token"}, "did you mean 'tokens'"),
    ],
)
def test_options_that_make_no_sense_are_refused(factory, options, message):
    with pytest.raises(ConfigError, match=message):
        factory(DATA, **options)


def test_data_without_tokens_and_models_of_another_kind_are_refused():
    with pytest.raises(DataError, match=r"no fact 'specials'.*tokenise it.*it has vocabulary_size"):
        write.translate(DATA._replace(meta={"vocabulary_size": V}))
    for generate, model in (
        (write.translate(DATA), WRITERS["lstm"][0]),
        (write.continue_text(DATA, prompt=2), TRANSLATORS["transformer"][0]),
        (write.continue_text(DATA, prompt=2), encoder.make(DATA._replace(meta={**FACTS, "classes": "ab"}), **SMALL)),
    ):
        with pytest.raises(
            ConfigError, match=r"config.model is a jaxlab.models.*; expected jaxlab.models.*of your own"
        ):
            generate(model, {}, batch_of())


def words_of(seed, count):
    random = np.random.default_rng(seed)
    words = ["".join(random.choice(list("abcdef"), random.integers(4, 6))) for _ in range(count)]
    return ColumnSource({"source": np.array(words, object), "target": np.array(words, object)})


@pytest.mark.slow
def test_a_model_that_has_learnt_to_copy_writes_what_metrics_of_text_find_good():
    parts = (
        character("source", length=8, output="source", end=True),
        character("target", length=8, output="target", begin=True, end=True),
    )
    fit = fit_all(parts, words_of(0, 64), None)
    data = Transformed(words_of(0, 64), fit.transforms, fit.meta).spec
    model = encoder_decoder.make(data, width=32, depth=1, heads=4, max_length=8, dropout=0.0)
    objective = seq2seq.make(data)

    def batch_at(seed, count=64):
        source = Transformed(words_of(seed, count), fit.transforms, fit.meta)
        return {**source.__getitems__(np.arange(count)), "mask": np.ones(count, np.float32), "id": np.arange(count)}

    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 200))
    state = init_state(model, objective, optimizer, jax.tree.map(jnp.asarray, batch_at(1)), 0, False)
    step = jax.jit(make_train_step(model, objective, {}, optimizer, seed=0))
    measure = jax.jit(make_eval_step(model, objective, {}, generate=write.translate(data, width=2)))
    metrics = {
        "bleu": text.bleu(data, tokenize="char"), "chrf": text.chrf(data), "wer": text.wer(data, unit="character")
    }  # fmt: skip

    def measured(state):
        table = jax.device_get(measure(state, batch_at(999))[1])
        return {name: metric.prepare(table, {})(np.ones(64)) for name, metric in metrics.items()}

    before = measured(state)
    for seed in range(200):
        state, _ = step(state, batch_at(seed + 1))
    after = measured(state)
    assert before["bleu"] < 20
    assert after["bleu"] > 80
    assert after["chrf"] > 80 > before["chrf"]
    assert after["wer"] < 0.2 < before["wer"]
