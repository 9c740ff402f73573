"""Every tokenizer gives any text back, trains alike twice, and its transform pads what it encodes."""

import builtins
import json
import string
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import tokenize
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.pipeline import RowRandomness
from jaxlab.data.text_fields import texts_of
from jaxlab.data.tokenizer_training import train
from jaxlab.data.tokenizers import KINDS, SPECIALS, SUBWORDS, UNKNOWN, fingerprint, from_json

TEXTS = [
    "the cat sat on the mat, and the dog sat on the log.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "der Hund und die Katze, der Hund und die Maus; the end of the tale",
    "日本語のテキスト 😀 naïve café",
    "",
]
SURROGATES = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
UNICODE = st.text(max_size=60) | st.text(string.ascii_lowercase + "  #<>⋯\n", max_size=60)
TRAINED = {kind: train(TEXTS, kind, 600) for kind in KINDS}


def objects(texts):
    held = np.empty(len(texts), object)
    held[:] = texts
    return held


def source_of(texts, **fields):
    return ColumnSource({"text": objects(texts), **fields})


def apply(transform, **fields):
    rows = len(next(iter(fields.values())))
    return transform(fields, RowRandomness(np.random.default_rng(0), rows, slice(None)))


def factory_of(kind, **arguments):
    factory = getattr(tokenize, kind)
    sized = {"vocabulary_size": 600} if kind in SUBWORDS else {}
    return factory(**sized, **arguments)


@pytest.mark.parametrize("kind", ["byte", *SUBWORDS])
@settings(max_examples=150, deadline=None)
@given(text=UNICODE)
def test_bytes_and_pieces_of_bytes_give_any_unicode_text_back(kind, text):
    tokenizer = TRAINED[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(len(SPECIALS) <= i < tokenizer.vocabulary_size for i in ids)  # no text makes a special token


@settings(max_examples=100, deadline=None)
@given(text=SURROGATES)
def test_bytes_and_characters_give_lone_surrogates_back(text):
    for tokenizer in (TRAINED["byte"], train([text or "a"], "character")):
        assert tokenizer.decode(from_json(json.loads(json.dumps(tokenizer.to_json()))).encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(text=UNICODE)
def test_characters_come_back_but_for_those_that_training_never_saw(text):
    known = set("".join(TEXTS))
    tokenizer = TRAINED["character"]
    assert tokenizer.decode(tokenizer.encode(text)) == "".join(c if c in known else UNKNOWN for c in text)
    assert len(tokenizer.encode(text)) == len(text)


@pytest.mark.parametrize("kind", SUBWORDS)
def test_a_lone_surrogate_is_refused_by_those_that_cannot_hold_it(kind):
    with pytest.raises(DataError, match=r"character 2 .* lone surrogate U\+D83D"):
        TRAINED[kind].encode("ab\ud83d")
    with pytest.raises(DataError, match="lone surrogate"):
        train(["ab\ud83d"], kind, 600)


@pytest.mark.parametrize("kind", SUBWORDS)
def test_long_words_are_exact_and_a_batch_is_its_texts(kind):
    texts = ["x" * 3000, "日本" * 1000, " " * 500 + "a", "<pad> <unk> ##a", ""]
    batch = TRAINED[kind].encode_batch(texts)
    assert [TRAINED[kind].decode(ids) for ids in batch] == texts
    assert [ids.tolist() for ids in batch] == [TRAINED[kind].encode(text) for text in texts]
    assert {ids.dtype for ids in batch} == {np.dtype(np.int32)}


@pytest.mark.parametrize("kind", KINDS)
def test_json_holds_the_whole_tokenizer_and_training_again_gives_the_same(kind):
    tokenizer = TRAINED[kind]
    copy = from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert fingerprint(copy) == fingerprint(tokenizer) == fingerprint(train(TEXTS, kind, 600))
    assert all(copy.encode(text) == tokenizer.encode(text) for text in TEXTS)
    assert copy.special == {"pad": 0, "bos": 1, "eos": 2, "unk": 3, "mask": 4}
    if kind != "byte":
        assert fingerprint(train(["other words"], kind, 600)) != fingerprint(tokenizer)


def test_training_in_another_process_gives_the_same_tokenizers():
    program = (
        "import json, sys; from jaxlab.data.tokenizer_training import train\n"
        "from jaxlab.data.tokenizers import SUBWORDS, fingerprint; texts = json.load(sys.stdin)\n"
        "print(json.dumps([fingerprint(train(texts, kind, 600)) for kind in SUBWORDS]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(TEXTS), capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout) == [fingerprint(TRAINED[kind]) for kind in SUBWORDS]


def invented_texts(seed, count):
    """Return texts of invented words, some of them frequent."""
    generator = np.random.default_rng(seed)
    words = ["".join(generator.choice(list("aeiounrstlé"), generator.integers(1, 9))) for _ in range(1000)]
    frequency = 1 / np.arange(1, 1001)
    return [" ".join(generator.choice(words, 20, p=frequency / frequency.sum())) for _ in range(count)]


@pytest.mark.parametrize("kind", SUBWORDS)
def test_trained_pieces_are_as_many_as_asked_for_and_shorten_the_text(kind):
    texts = invented_texts(0, 300)
    tokenizer = train(texts, kind, 600)
    assert tokenizer.vocabulary_size == 600
    shorter = sum(map(len, tokenizer.encode_batch(texts))) / sum(len(text.encode()) for text in texts)
    assert shorter < 0.6


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", SUBWORDS)
def test_training_is_the_same_each_time_although_the_library_hashes_at_random(kind, seed):
    texts = invented_texts(seed, 30)
    assert len({fingerprint(train(texts, kind, 700)) for _ in range(3)}) == 1


def test_ids_that_are_no_utf8_decode_to_replacement_characters_and_special_ones_to_nothing():
    tokenizer = TRAINED["byte"]
    first = len(SPECIALS)
    assert tokenizer.decode([1, first + 0x61, 0, 2, first + 0xFF]) == "a" + UNKNOWN
    with pytest.raises(DataError, match="id 261 is not in the vocabulary of 261"):
        tokenizer.decode([261])
    with pytest.raises(DataError, match="id -1"):
        tokenizer.decode([-1])


def test_rare_characters_can_be_left_to_unk():
    tokenizer = train(["aab"], "character", minimum_count=2)
    assert tokenizer.decode(tokenizer.encode("ab")) == "a" + UNKNOWN


@pytest.mark.parametrize("kind", KINDS)
def test_the_transform_pads_and_cuts_what_the_tokenizer_encodes_and_keeps_other_fields(kind):
    length, other = 12, np.arange(len(TEXTS))
    fittable = factory_of(kind, length=length)
    learnt = json.loads(json.dumps(fittable.fit(source_of(TEXTS))))
    texts = objects(TEXTS)
    found = apply(fittable.bind(learnt), text=texts, other=other)
    assert set(found) == {"tokens", "token_mask", "other"}
    assert found["other"] is other
    assert texts.tolist() == TEXTS
    assert (found["tokens"].dtype, found["token_mask"].dtype) == (np.int32, np.float32)
    assert found["tokens"].shape == found["token_mask"].shape == (len(TEXTS), length)
    tokenizer, meta = from_json(learnt), fittable.meta(learnt)
    for text, ids, mask in zip(TEXTS, found["tokens"], found["token_mask"], strict=True):
        expected = tokenizer.encode(text)[:length]
        assert ids[: len(expected)].tolist() == expected
        assert (ids[len(expected) :] == meta["pad_id"]).all()
        assert mask.tolist() == [1.0] * len(expected) + [0.0] * (length - len(expected))
    assert meta["vocabulary_size"] == tokenizer.vocabulary_size
    assert meta["tokenizer"] == fingerprint(tokenizer)
    assert meta["specials"] == tokenizer.special


def test_what_is_learnt_depends_on_the_training_texts_alone():
    fittable = tokenize.character(length=8)
    first, second = (fittable.fit(source_of(texts)) for texts in (["abc"], ["abd"]))
    assert first != second
    bound = fittable.bind(first)
    alone = apply(bound, text=objects(["abd"]))["tokens"]
    assert np.array_equal(apply(bound, text=objects(["xyz", "abd"]))["tokens"][1:], alone)


def test_pairs_share_one_vocabulary():
    source = ColumnSource({"en": objects(["ab", "b"]), "de": objects(["äb", "ß"])})
    fittable = tokenize.character(fields=("en", "de"), length=3)
    learnt = fittable.fit(source)
    found = apply(fittable.bind(learnt), **source.__getitems__(np.arange(2)))
    assert set(found) == {"en_tokens", "en_mask", "de_tokens", "de_mask"}
    assert found["en_tokens"][0, 1] == found["de_tokens"][0, 1]  # the b of both
    assert from_json(learnt).vocabulary_size == len(SPECIALS) + len("abäß")
    assert list(texts_of(source, ("en", "de"))) == ["ab", "äb", "b", "ß"]


def test_begin_and_end_stand_around_a_text_and_a_cut_text_has_no_end():
    fittable = tokenize.byte(length=4, begin=True, end=True)
    found = apply(fittable.bind(fittable.fit(source_of(["a"]))), text=objects(["a", "abc", ""]))["tokens"]
    a = len(SPECIALS) + ord("a")
    assert found.tolist() == [[1, a, 2, 0], [1, a, a + 1, a + 2], [1, 2, 0, 0]]


def test_bytes_are_read_as_utf8_and_what_is_not_text_names_its_field_and_row():
    bound = tokenize.byte(length=4).bind({"kind": "byte", "specials": SPECIALS})
    same = [apply(bound, text=objects(texts))["tokens"].tolist() for texts in (["ä"], ["ä".encode()])]
    assert same[0] == same[1]
    with pytest.raises(DataError, match="field 'text', row 1, byte 2: not UTF-8"):
        apply(bound, text=objects(["a", b"ab\xff"]))
    with pytest.raises(DataError, match="field 'text', row 1: None is a NoneType; expected a text"):
        tokenize.character().fit(source_of(["a", None]))
    with pytest.raises(ConfigError, match="'text' is configured, but the data has none; did you mean 'texts'"):
        apply(bound, texts=objects(["a"]))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: tokenize.byte(length=0), "length=0"),
        (lambda: tokenize.byte(specials=("bos",)), "'pad' among them"),
        (lambda: tokenize.byte(specials="pad"), "'pad' among them"),
        (lambda: tokenize.byte(specials=("pad", "pad")), "different names"),
        (lambda: tokenize.byte(specials=("pad",), end=True), "needs 'eos'"),
        (lambda: tokenize.character(specials=("pad",)), "must name 'unk'"),
        (lambda: tokenize.bpe(vocabulary_size=200), "vocabulary_size=200; .* need 261"),
        (lambda: tokenize.wordpiece(vocabulary_size=300), "vocabulary_size=300; .* need 517"),
    ],
)
def test_impossible_settings_are_refused(make, complaint):
    with pytest.raises(ConfigError, match=complaint):
        make().fit(source_of(["a"]))


def test_no_text_and_no_such_kind_are_refused():
    with pytest.raises(DataError, match="all texts are empty"):
        tokenize.unigram().fit(source_of(["", ""]))
    with pytest.raises(ConfigError, match="'wordpeace'; did you mean 'wordpiece'"):
        train(["a"], "wordpeace", 600)
    with pytest.raises(DataError, match="kind 'bpee'; did you mean 'bpe'"):
        from_json({"kind": "bpee", "specials": ["pad"]})
    with pytest.raises(DataError, match="no tokenizer's JSON"):
        from_json({"specials": ["pad"]})


def test_without_the_library_the_error_names_the_command(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **keywords):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"pip install 'jaxlab\[text\]'"):
        train(["a"], "bpe", 600)
    assert train(["a"], "byte").encode("a") == [len(SPECIALS) + 97]  # our own need no library


def test_a_trained_tokenizer_is_read_back_from_its_file_and_another_file_is_refused(tmp_path):
    path = tmp_path / "deep" / "tokenizer.json"
    tokenizer = tokenize.train_tokenizer(source_of(TEXTS), "bpe", 300, path)
    assert fingerprint(tokenize.load_tokenizer(path)) == fingerprint(tokenizer)
    assert [entry.name for entry in path.parent.iterdir()] == ["tokenizer.json"]
    for content in ("{", "[]", '{"model": {}}'):
        path.write_text(content)
        with pytest.raises(DataError, match="holds no tokenizer"):
            tokenize.load_tokenizer(path)
    with pytest.raises(DataError, match=r"missing\.json holds no tokenizer"):
        tokenize.load_tokenizer(tmp_path / "missing.json")
