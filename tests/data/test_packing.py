"""Packed rows hold every token once, and a document's loss is what it would be alone, by value and by gradient."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import packed
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.packing import pack
from jaxlab.data.tokenize import train_tokenizer
from jaxlab.data.tokenizers import ByteTokenizer
from jaxlab.models.attend import causal, combine, same_segment

MODES = ("best_fit", "concatenate")
TEXTS = ["one two three", "four", "", "five six seven eight nine ten", "eleven twelve", "Grüße 😀"] * 3


def make_documents(sizes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(1, 20, size).astype(np.int32) for size in sizes]


def numbered_documents(sizes):
    """Return documents of which each token of all is another number, so that rows tell where a token came from."""
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end, dtype=np.int32) + 1 for size, end in zip(sizes, ends, strict=True)]


SIZES = st.lists(st.integers(0, 25), min_size=1, max_size=30).filter(any)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=100, deadline=None)
@given(sizes=SIZES, length=st.integers(2, 12))
def test_rows_hold_each_token_once_with_its_document_s_place_and_next_token(mode, sizes, length):
    documents = numbered_documents(sizes)
    rows = pack(documents, length, mode)
    real = rows["segments"] > 0
    assert sorted(rows["tokens"][real]) == list(range(1, sum(sizes) + 1))
    for name in ("tokens", "positions", "targets", "target_mask"):
        assert (rows[name][~real] == 0).all()
    last = {int(document[-1]) for document in documents if len(document)}
    document_of = np.repeat(np.arange(len(sizes)), sizes)
    targeted = rows["target_mask"] == 1
    assert np.array_equal(targeted, real & ~np.isin(rows["tokens"], list(last)))
    assert np.array_equal(rows["targets"][targeted], rows["tokens"][targeted] + 1)
    assert (rows["targets"][~targeted] == 0).all()
    for tokens, segments, positions in zip(rows["tokens"], rows["segments"], rows["positions"], strict=True):
        count = segments.max()
        assert set(segments) - {0} == set(range(1, count + 1))
        assert (np.diff(segments[segments > 0]) >= 0).all()
        assert (segments[: np.count_nonzero(segments)] > 0).all()  # padding at the end only
        for segment in range(1, count + 1):
            held = tokens[segments == segment]
            assert np.array_equal(positions[segments == segment], np.arange(len(held)))
            assert np.array_equal(held, held[0] + np.arange(len(held)))
            assert len(set(document_of[held - 1])) == 1


@settings(max_examples=100, deadline=None)
@given(sizes=SIZES, length=st.integers(2, 12))
def test_best_fit_cuts_only_documents_longer_than_a_row_and_needs_few_rows(sizes, length):
    documents = numbered_documents(sizes)
    rows = pack(documents, length)
    pieces = sum(len(set(row) - {0}) for row in rows["segments"])
    assert pieces == sum(-(-size // length) for size in sizes)
    fill = (rows["segments"] > 0).sum(1)
    assert len(rows["tokens"]) <= 2 * sum(sizes) / length + 1
    assert np.sort(fill)[:2].sum() > length or len(fill) == 1  # no two rows would fit into one
    assert len(rows["tokens"]) >= len(pack(documents, length, "concatenate")["tokens"])


@settings(max_examples=50, deadline=None)
@given(sizes=SIZES, length=st.integers(2, 12))
def test_concatenating_keeps_the_order_and_pads_the_end_only(sizes, length):
    documents = make_documents(sizes)
    tokens = pack(documents, length, "concatenate")["tokens"].ravel()
    assert tokens[: sum(sizes)].tolist() == np.concatenate(documents).tolist()
    assert len(tokens) == -(-sum(sizes) // length) * length


def test_a_stream_takes_all_documents_for_one():
    documents = [np.array([5, 6, 7]), np.array([], np.int32), np.array([8, 9])]
    rows = pack(documents, 2, "stream")
    assert rows["tokens"].tolist() == [[5, 6], [7, 8], [9, 0]]
    assert rows["targets"].tolist() == [[6, 7], [8, 9], [0, 0]]
    assert rows["target_mask"].tolist() == [[1, 1], [1, 1], [0, 0]]
    assert rows["segments"].tolist() == [[1, 1], [1, 1], [1, 0]]
    for name, values in pack([np.concatenate(documents)], 2, "concatenate").items():
        np.testing.assert_array_equal(rows[name], values)


@pytest.mark.parametrize("mode", MODES)
def test_packing_is_a_function_of_its_documents_that_modifies_none(mode):
    documents = make_documents([3, 9, 4, 4, 1, 30])
    for document in documents:
        document.setflags(write=False)
    first, second = pack(documents, 8, mode), pack(documents, 8, mode)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    dtypes = {name: value.dtype.name for name, value in first.items()}
    assert dtypes.pop("target_mask") == "float32"
    assert set(dtypes.values()) == {"int32"}


WIDTH, VOCABULARY, LENGTH = 8, 20, 16


def make_parameters():
    keys = jax.random.split(jax.random.key(0), 6)
    shapes = {"place": (LENGTH, WIDTH), **dict.fromkeys(("query", "key", "value"), (WIDTH, WIDTH))}
    shapes |= {"embedding": (VOCABULARY, WIDTH), "out": (WIDTH, VOCABULARY)}
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def losses(embedded_BTE, rows, parameters):
    """Return the loss [B, T] of each token under one layer of attention."""
    x_BTE = embedded_BTE + parameters["place"][rows["positions"]]
    q_BTE, k_BTE, v_BTE = (x_BTE @ parameters[name] for name in ("query", "key", "value"))
    scores_BTT = jnp.einsum("bte,bse->bts", q_BTE, k_BTE) / WIDTH**0.5
    allowed_BTT = combine(causal(LENGTH), same_segment(rows["segments"]))
    attended_BTT = jax.nn.softmax(jnp.where(allowed_BTT, scores_BTT, -jnp.inf))
    logits_BTV = (x_BTE + attended_BTT @ v_BTE) @ parameters["out"]
    logs_BTV = jax.nn.log_softmax(logits_BTV)
    return -jnp.take_along_axis(logs_BTV, rows["targets"][..., None], -1)[..., 0] * rows["target_mask"]


def each_alone(rows):
    """Return the rows that hold one document each, at the row's beginning."""
    alone = []
    for row, count in enumerate(rows["segments"].max(1)):
        for segment in range(1, count + 1):
            chosen_T = rows["segments"][row] == segment
            padding = np.zeros(LENGTH - chosen_T.sum(), np.int32)
            one = {name: np.r_[value[row, chosen_T], padding] for name, value in rows.items()}
            alone.append({**one, "segments": np.minimum(one["segments"], 1), "positions": np.arange(LENGTH)})
    return {name: np.stack([one[name] for one in alone]) for name in rows}


@pytest.mark.parametrize("mode", MODES)
def test_a_document_s_loss_has_no_gradient_in_other_documents_and_is_its_loss_alone(mode):
    parameters, rows = make_parameters(), pack(make_documents([5, 4, 6, 3, 7, 2, 9]), LENGTH, mode)
    assert rows["segments"].max() > 1
    with jax.default_matmul_precision("highest"):
        loss = jax.jit(lambda embedded_BTE, rows: losses(embedded_BTE, rows, parameters))
        jacobian = jax.jit(jax.jacrev(lambda embedded_BTE: losses(embedded_BTE, rows, parameters)))
        embedded_BTE = parameters["embedding"][rows["tokens"]]
        size_BTBT = np.abs(jacobian(embedded_BTE)).max(-1)
        alone = each_alone(rows)
        packed_BT, alone_DT = loss(embedded_BTE, rows), loss(parameters["embedding"][alone["tokens"]], alone)
    segments, targeted = rows["segments"], rows["target_mask"] == 1
    row = np.broadcast_to(np.arange(len(segments))[:, None], segments.shape)
    own = (row[..., None, None] == row) & (segments[..., None, None] == segments) & targeted[..., None, None]
    own &= np.arange(LENGTH)[:, None, None] >= np.arange(LENGTH)
    assert np.array_equal(size_BTBT > 0, own)  # also says that nothing is NaN, and that all of the own past counts
    by_document = [np.asarray(packed_BT)[(row == r) & (segments == s)] for r in range(len(row)) for s in range(1, 20)]
    total_D = [values.sum() for values in by_document if len(values)]
    np.testing.assert_allclose(total_D, np.asarray(alone_DT).sum(1), rtol=1e-6, atol=1e-6)


def texts_source(texts=tuple(TEXTS), **meta):
    held = np.empty(len(texts), object)
    held[:] = texts
    return ColumnSource({"text": held}, {"name": "some", "classes": (), **meta})


def documents_in(source):
    rows = source.__getitems__(np.arange(len(source)))
    return sorted(
        tuple(tokens[segments == segment])
        for tokens, segments in zip(rows["tokens"], rows["segments"], strict=True)
        for segment in range(1, segments.max() + 1)
    )


def test_a_packed_source_holds_the_encoded_texts_with_their_ends(tmp_path):
    source = packed.make(texts_source(), length=64, cache=str(tmp_path))
    tokenizer = ByteTokenizer()
    assert documents_in(source) == sorted((*tokenizer.encode(text), 2) for text in TEXTS if text)
    meta = source.spec.meta
    assert (meta["vocabulary_size"], meta["pad_id"], meta["documents"]) == (261, 0, 15)
    assert meta["tokens"] == sum(len(text.encode()) + 1 for text in TEXTS if text)
    assert meta["fill"] == meta["tokens"] / (len(source) * 64)
    assert meta["name"] == "some"
    assert "classes" not in meta
    assert source.spec.example["tokens"].shape == (64,)


def test_begin_end_and_mode_do_as_they_say(tmp_path):
    plain = packed.make(texts_source(["ab"]), length=4, end=False, cache="")
    assert plain.__getitems__(np.array([0]))["tokens"].tolist() == [[5 + 97, 5 + 98, 0, 0]]
    both = packed.make(texts_source(["ab", "c"]), length=4, begin=True, mode="concatenate", cache="")
    assert both.__getitems__(np.array([0, 1]))["tokens"].tolist() == [[1, 102, 103, 2], [1, 104, 2, 0]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["character", "bpe", "unigram"])
def test_a_trained_tokenizer_is_read_from_its_file(tmp_path, kind):
    path = tmp_path / "tokenizer.json"
    tokenizer = train_tokenizer(texts_source(), kind, 300, path)
    source = packed.make(texts_source(), tokenizer=str(path), length=64, cache=str(tmp_path / "cache"))
    assert documents_in(source) == sorted((*tokenizer.encode(text), 2) for text in TEXTS if text)
    assert source.spec.meta["vocabulary_size"] == tokenizer.vocabulary_size


class Counted(ColumnSource):
    """Counts the rows that were read."""

    read = 0

    def __getitems__(self, indices):
        self.read += len(indices)
        return super().__getitems__(indices)


def test_the_cache_is_read_for_the_same_texts_and_tokenizer_and_for_no_others(tmp_path):
    cache = tmp_path / "cache"
    texts = np.array([f"text {i} " * 5 for i in range(2000)], object)

    def build(values=texts, fingerprint="rows:1", **settings):
        source = Counted({"text": values}, {} if fingerprint is None else {"fingerprint": fingerprint})
        made = packed.make(source, length=32, cache=str(cache), **settings)
        return made, source.read

    first, read = build()
    assert read > 2000
    again, read = build()
    assert read < 300  # those that are compared with the cache
    assert np.array_equal(*(s.__getitems__(np.arange(len(s)))["tokens"] for s in (first, again)))
    assert first.spec.meta == again.spec.meta
    found = {first.spec.meta["fingerprint"]}
    path = tmp_path / "tokenizer.json"
    train_tokenizer(texts_source(), "bpe", 300, path)
    changes = [{"fingerprint": "rows:2"}, {"fingerprint": None}, {"values": texts[:1999]}, {"values": texts[::-1]}]
    changes += [{"end": False}, {"begin": True}, {"tokenizer": str(path)}]
    for number, change in enumerate(changes):
        assert len(list(cache.iterdir())) == number + 1
        found.add(build(**change)[0].spec.meta["fingerprint"])
    assert len(found) == len(changes) + 1
    changed = texts.copy()
    changed[7] = "another"
    assert build(changed, None)[0].spec.meta["fingerprint"] not in found
    json.dumps(dict(first.spec.meta))


@pytest.mark.parametrize(
    ("settings_", "error", "complaint"),
    [
        ({"mode": "best"}, ConfigError, "mode 'best'; did you mean 'best_fit'"),
        ({"length": 1}, ConfigError, "length=1"),
        ({"tokenizer": "bytes"}, ConfigError, "tokenizer='bytes'; expected 'byte' or a file"),
        ({"field": "txt"}, ConfigError, "did you mean 'text'"),
    ],
)
def test_impossible_settings_are_refused(settings_, error, complaint):
    with pytest.raises(error, match=complaint):
        packed.make(texts_source(), cache="", **settings_)


def test_nothing_to_pack_and_missing_special_tokens_are_refused(tmp_path):
    with pytest.raises(DataError, match="all documents are empty"):
        packed.make(texts_source(["", ""]), cache="")
    with pytest.raises(DataError, match="all documents are empty"):
        pack([], 8)
    with pytest.raises(DataError, match="row 1: None"):
        packed.make(texts_source(["a", None]), cache="")
    path = tmp_path / "tokenizer.json"
    train_tokenizer(texts_source(), "byte", 0, path, specials=("pad",))
    with pytest.raises(ConfigError, match="needs 'eos'"):
        packed.make(texts_source(), tokenizer=str(path), cache="")
