"""Metrics of text and spans agree with sacrebleu, rouge-score, jiwer and seqeval, and count rows by their weights."""

import builtins
import functools
import json

import jiwer
import numpy as np
import pytest
import sacrebleu
import seqeval.metrics
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from seqeval.scheme import IOB2

from jaxlab.core.errors import ConfigError, DataError, UndefinedError
from jaxlab.core.types import DataSpec
from jaxlab.data.tokenize import tokens_meta
from jaxlab.data.tokenizer_training import train
from jaxlab.data.tokenizers import from_json
from jaxlab.metrics import spans, text
from jaxlab.metrics.alignment import common_lengths, edit_distances
from jaxlab.metrics.written import Written

TOKENIZER = train((), "byte")
EOS, PAD = TOKENIZER.special["eos"], TOKENIZER.special["pad"]
DATA = DataSpec({}, 1, tokens_meta(TOKENIZER))
WORDS = st.sampled_from(["the", "cat", "sat", "on", "a", "mat,", "mat.", "The", "año", "2", "日本", "-"])
TEXTS = st.lists(WORDS, max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)
FACTORIES = {
    "bleu": text.bleu,
    "bleu, other options": functools.partial(text.bleu, tokenize="char", lowercase=True, smoothing="floor"),
    "chrf": text.chrf,
    "chrf++": functools.partial(text.chrf, words=2, lowercase=True),
    "rouge": functools.partial(text.rouge, letters="unicode"),
    "wer": text.wer,
    "cer": functools.partial(text.wer, unit="character"),
}


def padded(rows, size):
    """Return ids [N, T] and where they are real."""
    ids, real = np.full((len(rows), size), PAD, np.int32), np.zeros((len(rows), size), np.float32)
    for n, row in enumerate(rows):
        ids[n, : len(row)], real[n, : len(row)] = row, 1
    return ids, real


def table_of(pairs, room=0):
    """Return the prediction store of (written, reference) pairs of texts, with so much more padding."""
    written, references = ([[*TOKENIZER.encode(x), EOS] for x in column] for column in zip(*pairs, strict=True))
    target, weight = padded(references, max(map(len, references)) + room)
    generated, _ = padded(written, max(map(len, written)) + room)
    return {"generated": generated, "target": target, "token_weight": weight, "id": np.arange(len(pairs))}


def number(metric, table, weights=None):
    weights = np.ones(len(table["id"])) if weights is None else np.asarray(weights, np.float64)
    return metric.prepare({name: table[name] for name in metric.reads}, {})(weights)


def of(factory, pairs, **options):
    return number(factory(DATA, **options), table_of(pairs))


def defined(pairs):
    assume(any(reference for _, reference in pairs))
    return [list(column) for column in zip(*pairs, strict=True)]


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS)
def test_bleu_is_that_of_sacrebleu(pairs):
    written, references = defined(pairs)
    assert of(text.bleu, pairs) == sacrebleu.corpus_bleu(written, [references]).score
    for smoothing in ("none", "floor", "add-k"):
        for tokenize in ("intl", "char"):
            expected = sacrebleu.corpus_bleu(
                written, [references], smooth_method=smoothing, tokenize=tokenize, lowercase=True
            )
            found = of(text.bleu, pairs, smoothing=smoothing, tokenize=tokenize, lowercase=True)
            assert found == expected.score


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS)
def test_chrf_is_that_of_sacrebleu(pairs):
    written, references = defined(pairs)
    assert of(text.chrf, pairs) == sacrebleu.corpus_chrf(written, [references]).score
    options = {"beta": 3, "word_order": 2, "char_order": 4}
    expected = sacrebleu.corpus_chrf(written, [references], **options).score
    assert of(text.chrf, pairs, beta=3, words=2, characters=4) == expected


def test_the_signature_is_sacrebleus_and_other_metrics_have_none():
    scorer = sacrebleu.BLEU(lowercase=True, tokenize="char", smooth_method="floor")
    scorer.corpus_score(["a"], [["a"]])
    metric = text.bleu(DATA, lowercase=True, tokenize="char", smoothing="floor")
    assert text.signature(metric) == str(scorer.get_signature())
    assert text.signature(text.chrf(DATA, words=2)).startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:2|")
    assert text.signature(text.wer(DATA)) == ""


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS)
def test_rouge_is_the_mean_of_rouge_score_over_texts(pairs):
    kinds = ("rouge1", "rouge2", "rouge4", "rougeL")
    scores = [RougeScorer(kinds).score(reference, written) for written, reference in pairs]
    expected = {kind: pytest.approx(np.mean([score[kind].fmeasure for score in scores])) for kind in kinds}
    assert of(text.rouge, pairs, kinds=kinds) == expected


def test_letters_of_unicode_make_words_where_ascii_has_gaps():
    pairs = [("Übergröße", "über größe"), ("東京", "東京")]
    assert of(text.rouge, pairs, kinds=("rouge1",), letters="unicode") == {"rouge1": 0.5}
    assert of(text.rouge, pairs, kinds=("rouge1",))["rouge1"] == pytest.approx(0.2)  # an "e" of bergr e, ber gr e


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS)
def test_error_rates_are_those_of_jiwer(pairs):
    pairs = [pair for pair in pairs if pair[1]]  # jiwer takes no empty reference
    assume(pairs)
    written, references = defined(pairs)
    assert of(text.wer, pairs) == pytest.approx(jiwer.wer(references, written))
    assert of(text.wer, pairs, unit="character") == pytest.approx(jiwer.cer(references, written))
    lower = jiwer.wer([x.lower() for x in references], [x.lower() for x in written])
    assert of(text.wer, pairs, lowercase=True) == pytest.approx(lower)


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(st.text("abc", max_size=7), st.text("abc", max_size=7)), max_size=5))
def test_edits_and_common_subsequences_are_those_of_the_definition(pairs):
    @functools.cache
    def edits(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(edits(a[1:], b) + 1, edits(a, b[1:]) + 1, edits(a[1:], b[1:]) + (a[0] != b[0]))

    @functools.cache
    def common(a, b):
        if not a or not b:
            return 0
        return max(common(a[1:], b), common(a, b[1:]), common(a[1:], b[1:]) + 1 if a[0] == b[0] else 0)

    one, two = [a for a, _ in pairs], [b for _, b in pairs]
    assert edit_distances(one, two).tolist() == [edits(a, b) for a, b in pairs]
    assert common_lengths(one, two).tolist() == [common(a, b) for a, b in pairs]


def test_more_pairs_than_go_side_by_side_stay_in_their_order():
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("ab"), random.integers(0, 6))) for _ in range(2500)]
    others = texts[1:] + texts[:1]
    expected = np.concatenate([edit_distances([a], [b]) for a, b in zip(texts, others, strict=True)])
    np.testing.assert_array_equal(edit_distances(texts, others), expected)


@pytest.mark.parametrize("name", FACTORIES)
@settings(max_examples=15, deadline=None)
@given(pairs=PAIRS, random=st.randoms(use_true_random=False))
def test_a_text_counts_as_often_as_its_weight_says(name, pairs, random):
    counts = [random.randint(0, 3) for _ in pairs]
    repeated = [pair for pair, count in zip(pairs, counts, strict=True) for _ in range(count)]
    assume(any(reference for _, reference in repeated))
    metric = FACTORIES[name](DATA)
    expected = pytest.approx(number(metric, table_of(repeated)), rel=1e-12)
    assert number(metric, table_of(pairs), counts) == expected
    wide = {**table_of(pairs, room=7), "id": np.arange(len(pairs))}
    assert number(metric, wide, counts) == expected, "padding counts"


@pytest.mark.parametrize("name", FACTORIES)
def test_only_what_weights_have_to_each_other_counts(name):
    pairs = [("the cat sat on a mat.", "the cat sat on the mat."), ("a b c", "a b c d e f")]
    metric, table = FACTORIES[name](DATA), table_of(pairs)
    for weights in ([0.25, 0.5], [1e-3, 2e-3]):
        whole, part = number(metric, table, [1, 2]), number(metric, table, weights)
        assert part == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize("name", FACTORIES)
def test_where_nothing_counts_there_is_no_number(name):
    metric = FACTORIES[name](DATA)
    with pytest.raises(UndefinedError, match="no example counts"):
        number(metric, table_of([("a", "a")]), [0])
    empty = {column: values[:0] for column, values in table_of([("a", "a")]).items()}
    with pytest.raises(UndefinedError, match="no example counts"):
        number(metric, empty)


@pytest.mark.parametrize("name", ["bleu", "chrf", "wer", "cer"])
def test_references_without_a_word_are_nothing_to_compare_with(name):
    with pytest.raises(UndefinedError, match="no reference has a"):
        of(FACTORIES[name], [("a b", ""), ("", "")])


def test_a_model_that_writes_nothing_is_as_bad_as_can_be():
    pairs = [("", "the cat"), ("", "sat on a mat")]
    assert of(text.bleu, pairs) == of(text.chrf, pairs) == 0
    assert set(of(text.rouge, pairs).values()) == {0}
    assert of(text.wer, pairs) == 1


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, TOKENIZER.vocabulary_size - 1), max_size=20))
def test_ids_stand_for_the_text_that_the_tokenizer_says(ids):
    before = ids[: ids.index(EOS)] if EOS in ids else ids
    assert Written.of(DATA).text(np.array(ids, np.int32)) == TOKENIZER.decode(before)


@pytest.mark.parametrize("kind", ["byte", "character", "bpe", "wordpiece", "unigram"])
def test_every_tokenizer_gives_the_pieces_that_texts_are_made_of(kind):
    texts = ["Zwölf Boxkämpfer jagen Viktor.", "日本語のテキスト 😀 naïve café", ""]
    tokenizer = from_json(train(texts, kind, 600).to_json())
    facts = tokens_meta(tokenizer)
    data = DataSpec({}, 1, {**facts, "pieces": json.loads(json.dumps(facts["pieces"]))})
    assert len(facts["pieces"]) == tokenizer.vocabulary_size
    assert [Written.of(data).text(ids) for ids in tokenizer.encode_batch(texts)] == texts


def test_ids_beyond_the_vocabulary_are_unknown():
    found = Written.of(DATA).text(np.array([TOKENIZER.vocabulary_size, *TOKENIZER.encode("a"), -1]))
    assert found == "\ufffda\ufffd"


def test_a_reference_is_its_real_tokens_wherever_they_are():
    table = table_of([("ab", "ab")])
    table["target"] = np.concatenate([TOKENIZER.encode("xa"), TOKENIZER.encode("by")])[None].astype(np.int32)
    table["token_weight"] = np.array([[0, 1, 1, 0]], np.float32)
    assert Written.of(DATA).pairs(table) == (["ab"], ["ab"])
    assert Written.of(DATA, weight="").pairs(table) == (["ab"], ["xaby"])
    assert Written.of(DATA, weight="").reads == ("generated", "target")


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (text.bleu, {"tokenize": "13b"}, "bleu with tokenize='13b'; did you mean '13a'"),
        (text.bleu, {"smoothing": "expo"}, "did you mean 'exp'"),
        (text.chrf, {"characters": 0}, "chrf with characters=0; expected 1 or more"),
        (text.chrf, {"words": -1}, "expected 0 or more"),
        (text.rouge, {"kinds": ("rouge0",)}, "rouge of the kind 'rouge0'"),
        (text.rouge, {"kinds": ()}, "expected rouge1 to rouge9"),
        (text.rouge, {"letters": "asci"}, "did you mean 'ascii'"),
        (text.wer, {"unit": "words"}, "did you mean 'word'"),
        (spans.span_f1, {"tags": ("O", "X-PER")}, "the tag 'X-PER' of spans"),
    ],
)
def test_options_that_make_no_sense_are_refused(factory, options, message):
    with pytest.raises(ConfigError, match=message):
        factory(DATA, **options)


def test_data_and_columns_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"no fact 'pieces'.*tokenise it.*it has classes"):
        text.wer(DataSpec({}, 1, {"classes": ("a",)}))
    table = table_of([("a", "b")])
    with pytest.raises(DataError, match=r"'generated' is int64\[1\]; expected token ids"):
        text.wer(DATA).prepare({**table, "generated": np.array([1])}, {})
    with pytest.raises(DataError, match="no 'generate_d'; did you mean 'generated'"):
        text.wer(DATA, generated="generate_d").prepare(table, {})
    with pytest.raises(DataError, match="'token_weight'"):
        text.wer(DATA).prepare({**table, "token_weight": np.ones((1, 9))}, {})


def test_without_sacrebleu_one_is_told_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    for factory in (text.bleu, text.chrf):
        with pytest.raises(ConfigError, match=r"pip install 'jaxlab\[translation\]'"):
            factory(DATA)
    text.rouge(DATA)
    text.wer(DATA)


TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TAGGED = DataSpec({}, 1, {"classes": TAGS})
ROW = st.integers(1, 8).flatmap(
    lambda size: st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=size, max_size=size
    )
)


def tagged(rows):
    """Return the prediction store, and what counts of it as names: tokens of weight 0 are not there."""
    columns = [padded([[token[k] for token in row] for row in rows], 9)[0] for k in range(3)]
    real = padded([[1] * len(row) for row in rows], 9)[1]
    weight = real * (columns[2] > 0)
    names = [
        [[TAGS[i] for i in ids[counts > 0]] for ids, counts in zip(column, weight, strict=True)]
        for column in columns[:2]
    ]
    table = {"target": columns[0], "prediction": columns[1], "token_weight": weight, "id": np.arange(len(rows))}
    return table, *names


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=4))
def test_spans_are_those_of_seqeval(rows):
    table, true, said = tagged(rows)
    scores = {
        spans.span_f1: seqeval.metrics.f1_score,
        spans.span_precision: seqeval.metrics.precision_score,
        spans.span_recall: seqeval.metrics.recall_score,
    }
    for factory, score in scores.items():
        for strict, options in ((False, {}), (True, {"mode": "strict", "scheme": IOB2})):
            try:
                found = number(factory(TAGGED, strict=strict), table)
            except UndefinedError:
                found = 0  # which is what seqeval says then, with a warning
            assert found == pytest.approx(score(true, said, zero_division=0, **options))


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=5), random=st.randoms(use_true_random=False))
def test_a_row_s_spans_count_as_often_as_its_weight_says(rows, random):
    counts = [random.randint(0, 2) for _ in rows]
    table, metric = tagged(rows)[0], spans.span_f1(TAGGED)
    repeated = {name: np.repeat(values, counts, axis=0) for name, values in table.items()}
    try:
        expected = number(metric, repeated)
    except UndefinedError:
        with pytest.raises(UndefinedError):
            number(metric, table, counts)
    else:
        assert number(metric, table, counts) == expected


def test_each_rate_of_spans_says_what_it_lacks():
    outside, person = np.zeros((1, 3), np.int32), np.array([[1, 2, 0]], np.int32)
    table = {"target": outside, "prediction": outside, "token_weight": np.ones((1, 3)), "id": np.arange(1)}
    for factory, why in (
        (spans.span_f1, "no span, true or predicted"), (spans.span_precision, "no span is predicted"),
        (spans.span_recall, "no true span"),
    ):  # fmt: skip
        with pytest.raises(UndefinedError, match=why):
            number(factory(TAGGED), table)
    assert number(spans.span_f1(TAGGED), {**table, "target": person}) == 0


def test_one_type_needs_no_name_and_ids_that_are_no_tags_are_refused():
    table = {
        "target": np.array([[1, 2, 0, 1]]), "prediction": np.array([[1, 2, 0, 0]]), "token_weight": np.ones((1, 4)),
        "id": np.arange(1),
    }  # fmt: skip
    assert number(spans.span_f1(DATA, tags=("O", "B", "I")), table) == pytest.approx(2 / 3)
    assert number(spans.span_recall(DATA, tags=("O", "B", "I"), weight=""), table) == 0.5
    with pytest.raises(DataError, match="'target' has ids from 0 to 2; there are 2 tags"):
        number(spans.span_f1(DATA, tags=("O", "B")), table)
