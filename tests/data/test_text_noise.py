"""Text noise touches real, ordinary tokens alone, as often as it says, and undoes nothing of the rest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import text_noise
from jaxlab.data.pipeline import RowRandomness

B, T, VOCABULARY = 400, 40, 50
PAD, BEGIN, END, UNKNOWN, MASK = range(5)
SPECIAL = (PAD, BEGIN, END)


def make_fields(seed=0, rows=B, length=T):
    """Return rows of 2 to `length` tokens between BEGIN and END, then padding."""
    generator = np.random.default_rng(seed)
    length_B1 = generator.integers(2, length + 1, (rows, 1))
    length_B1[0] = length
    places = np.arange(length)
    tokens = generator.integers(MASK + 1, VOCABULARY, (rows, length)).astype(np.int32)
    tokens[:, 0] = BEGIN
    tokens = np.where(places == length_B1 - 1, END, np.where(places < length_B1, tokens, PAD)).astype(np.int32)
    return {"tokens": tokens, "token_mask": (places < length_B1).astype(np.float32), "label": np.arange(rows)}


def apply(transform, fields, seed=0, rows=slice(None)):
    for value in fields.values():
        value.setflags(write=False)
    total = len(fields["tokens"])
    part = {name: value[rows] for name, value in fields.items()}
    found = transform(part, RowRandomness(np.random.default_rng(seed), total, rows))
    assert found["label"] is part["label"]
    return found


def ordinary(fields):
    return (fields["token_mask"] > 0) & ~np.isin(fields["tokens"], SPECIAL)


ALL = {
    "dropout": lambda p=0.3: text_noise.token_dropout(UNKNOWN, p, SPECIAL),
    "swap": lambda p=0.3: text_noise.word_swap(p, SPECIAL),
    "deletion": lambda p=0.3: text_noise.word_deletion(p, SPECIAL, PAD),
    "masking": lambda p=0.3: text_noise.span_masking(MASK, VOCABULARY, SPECIAL, p),
    "spans": lambda p=0.3: text_noise.span_masking(MASK, VOCABULARY, SPECIAL, p, mean_span=3.8),
}
each = pytest.mark.parametrize("name", ALL)


@each
def test_a_slice_of_the_rows_is_disturbed_as_in_the_whole_batch_and_another_seed_disturbs_otherwise(name):
    fields, transform = make_fields(), ALL[name]()
    whole = apply(transform, fields)
    parts = [apply(transform, fields, rows=rows) for rows in (slice(0, 7), slice(7, 250), slice(250, B))]
    for field, value in whole.items():
        assert np.array_equal(value, np.concatenate([part[field] for part in parts]))
    assert not np.array_equal(whole["tokens"], apply(transform, fields, seed=1)["tokens"])


@each
def test_shapes_dtypes_padding_and_special_tokens_stay_and_nothing_happens_at_probability_0(name):
    fields = make_fields()
    found = apply(ALL[name](), fields)
    for field, value in fields.items():
        assert found[field].shape == value.shape
        assert found[field].dtype == value.dtype
    assert (found["tokens"][:, 0] == BEGIN).all()
    assert ((found["tokens"] == END).sum(1) == 1).all()
    assert (found["tokens"][found["token_mask"] == 0] == PAD).all()
    assert np.isin(found["tokens"][found["token_mask"] > 0], [PAD]).sum() == 0
    if name != "deletion":
        assert np.array_equal(found["token_mask"], fields["token_mask"])
        untouched = ~ordinary(fields)
        assert np.array_equal(found["tokens"][untouched], fields["tokens"][untouched])
    still = apply(ALL[name](0.0), fields)
    assert all(np.array_equal(still[field], value) for field, value in fields.items())


@each
def test_padding_may_hold_anything(name):
    fields = make_fields()
    other = {**fields, "tokens": np.where(fields["token_mask"] > 0, fields["tokens"], 17).astype(np.int32)}
    found, expected = apply(ALL[name](), other), apply(ALL[name](), fields)
    real = expected["token_mask"] > 0
    assert np.array_equal(found["tokens"][real], expected["tokens"][real])
    assert np.array_equal(found["token_mask"], expected["token_mask"])
    if "target_mask" in found:
        assert np.array_equal(found["target_mask"], expected["target_mask"])


def test_dropout_overwrites_the_stated_share_with_the_replacement():
    fields = make_fields()
    found = apply(ALL["dropout"](), fields)["tokens"]
    changed = found != fields["tokens"]
    assert (found[changed] == UNKNOWN).all()
    assert changed[ordinary(fields)].mean() == pytest.approx(0.3, abs=0.02)
    assert (apply(ALL["dropout"](1.0), fields)["tokens"][ordinary(fields)] == UNKNOWN).all()


def test_a_swap_moves_each_token_by_one_place_at_most_and_loses_none():
    fields = make_fields()
    numbered = {**fields, "tokens": np.where(ordinary(fields), np.arange(T) + 100, fields["tokens"]).astype(np.int32)}
    found = apply(ALL["swap"](), numbered)["tokens"]
    assert np.array_equal(np.sort(found, axis=1), np.sort(numbered["tokens"], axis=1))
    moved = np.where(ordinary(fields), found - numbered["tokens"], 0)
    assert set(np.unique(moved)) == {-1, 0, 1}
    pairs = ordinary(fields)[:, :-1] & ordinary(fields)[:, 1:]
    share = (moved == 1).sum() / pairs.sum()
    # of a run of chosen pairs every second is swapped: p - p² + p³ - … in the middle of a long row
    assert share == pytest.approx(0.3 / 1.3, abs=0.02)
    always = apply(ALL["swap"](1.0), numbered)["tokens"]
    assert always[0, 1:7].tolist() == [102, 101, 104, 103, 106, 105]


def test_deletion_keeps_the_order_of_the_rest_which_is_the_stated_share():
    fields = make_fields()
    found = apply(ALL["deletion"](), fields)
    for row in range(B):
        before = fields["tokens"][row][fields["token_mask"][row] > 0].tolist()
        length = int(found["token_mask"][row].sum())
        assert (found["token_mask"][row, :length] == 1).all()
        remaining = iter(before)
        assert all(token in remaining for token in found["tokens"][row, :length].tolist())  # a subsequence
    assert 1 - ordinary(found).sum() / ordinary(fields).sum() == pytest.approx(0.3, abs=0.02)


def test_deletion_of_everything_leaves_one_token_a_row_that_had_any():
    fields = make_fields()
    found = apply(ALL["deletion"](1.0), fields)
    assert np.array_equal(ordinary(found).sum(1), np.minimum(ordinary(fields).sum(1), 1))
    chosen = {
        int(np.flatnonzero(fields["tokens"][row] == found["tokens"][row, 1])[0])
        for row in range(B)
        if ordinary(found)[row].any()
    }
    assert len(chosen) > T // 2  # not always the same place


def test_deletion_moves_padding_between_tokens_to_the_end():
    fields = {
        "tokens": np.int32([[7, 0, 8, 9]]),
        "token_mask": np.float32([[1, 0, 1, 1]]),
        "label": np.zeros(1),
    }
    found = apply(ALL["deletion"](0.0), fields)
    assert found["tokens"].tolist() == [[7, 8, 9, 0]]
    assert found["token_mask"].tolist() == [[1, 1, 1, 0]]


@pytest.mark.parametrize("mean_span", [1.0, 3.8])
def test_masking_keeps_the_originals_as_targets_and_hides_only_what_is_to_be_predicted(mean_span):
    fields = make_fields()
    found = apply(text_noise.span_masking(MASK, VOCABULARY, SPECIAL, mean_span=mean_span), fields)
    predicted = found["target_mask"] > 0
    assert np.array_equal(found["targets"], fields["tokens"])
    assert found["targets"].dtype == np.int32
    assert found["target_mask"].dtype == np.float32
    assert np.array_equal(found["tokens"][~predicted], fields["tokens"][~predicted])
    assert not predicted[~ordinary(fields)].any()


@pytest.mark.parametrize("mean_span", [1.0, 3.8, 100.0])
@pytest.mark.parametrize("share", [0.15, 0.5, 1.0])
def test_a_row_has_its_exact_share_predicted_up_to_a_fraction_of_a_token_that_is_right_on_average(mean_span, share):
    fields = make_fields()
    transform = text_noise.span_masking(MASK, VOCABULARY, SPECIAL, share, mean_span)
    count_B = ordinary(fields).sum(1)
    counts = np.stack([apply(transform, fields, seed=seed)["target_mask"].sum(1) for seed in range(20)])
    assert (np.abs(counts - share * count_B) < 1).all()
    assert counts.sum() / count_B.sum() / 20 == pytest.approx(share, abs=0.001)


def test_the_mask_random_tokens_and_the_original_are_80_10_and_10_hundredths():
    fields = make_fields(rows=4000)
    found = apply(text_noise.span_masking(MASK, VOCABULARY, SPECIAL), fields)
    predicted = found["target_mask"] > 0
    masked, same = found["tokens"] == MASK, found["tokens"] == fields["tokens"]
    assert masked[predicted].mean() == pytest.approx(0.8, abs=0.02)
    # one in 46 random tokens is the original by chance
    assert same[predicted].mean() == pytest.approx(0.1 + 0.1 / 46, abs=0.015)
    random = found["tokens"][predicted & ~masked & ~same]
    assert set(random) == set(range(VOCABULARY)) - {*SPECIAL, MASK}


@pytest.mark.parametrize(("mean", "longest"), [(1.0, 10), (3.0, 10), (3.0, 2), (1000.0, 5)])
def test_spans_have_the_stated_mean_and_largest_length(mean, longest):
    length = 2000
    tokens = np.full((30, length), 9, np.int32)
    fields = {"tokens": tokens, "token_mask": np.ones_like(tokens, np.float32), "label": np.arange(30)}
    found = apply(
        text_noise.span_masking(MASK, VOCABULARY, (), 0.02, mean, longest, mask_share=1.0, random_share=0.0), fields
    )
    hidden = np.pad(found["target_mask"], ((0, 0), (1, 1)))
    begins, ends = np.argwhere(np.diff(hidden) == 1), np.argwhere(np.diff(hidden) == -1)
    lengths = (ends - begins)[:, 1]
    likely = (1 - 1 / mean) ** np.arange(longest)  # that a span goes on for k more tokens
    assert lengths.mean() == pytest.approx(likely.sum(), rel=0.12)  # two spans may touch, the last may be cut
    assert np.quantile(lengths, 0.9) <= longest


def test_a_span_is_hidden_in_one_way():
    tokens = np.full((50, 200), 9, np.int32)
    fields = {"tokens": tokens, "token_mask": np.ones_like(tokens, np.float32), "label": np.arange(50)}
    found = apply(text_noise.span_masking(MASK, VOCABULARY, (), 0.1, 5.0, mask_share=0.5, random_share=0.0), fields)
    hidden, predicted = found["tokens"] == MASK, found["target_mask"] > 0
    both = predicted[:, 1:] & predicted[:, :-1]
    changes = (hidden[:, 1:] != hidden[:, :-1])[both].mean()
    assert changes < 0.1  # 0.5 if each token were hidden in its own way; spans that touch may differ


def test_every_place_is_predicted_about_equally_often():
    fields = {name: value[:1].repeat(4000, 0) for name, value in make_fields().items()}
    for mean_span in (1.0, 3.8):
        found = apply(text_noise.span_masking(MASK, VOCABULARY, SPECIAL, mean_span=mean_span), fields)
        share_T = found["target_mask"].mean(0)[1:-1]
        assert np.abs(share_T - 0.15).max() < (0.025 if mean_span == 1.0 else 0.04)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_rows_keep_their_length_and_real_tokens(data):
    rows, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    shape = st.lists(st.lists(st.integers(0, 8), min_size=length, max_size=length), min_size=rows, max_size=rows)
    tokens, mask = np.int32(data.draw(shape)), np.float32(np.int32(data.draw(shape)) % 2)
    fields = {"tokens": tokens, "token_mask": mask, "label": np.arange(rows)}
    probability = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    for name, make in ALL.items():
        found = apply(make(probability), fields)
        assert found["tokens"].shape == found["token_mask"].shape == tokens.shape
        if name == "deletion":
            assert (found["token_mask"].sum(1) >= np.minimum(mask.sum(1), 1)).all()
        else:
            assert np.array_equal(found["tokens"][mask == 0], tokens[mask == 0])
        if name in ("masking", "spans"):
            assert (found["target_mask"] <= mask).all()


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (text_noise.token_dropout, {"replacement_id": 1, "probability": 1.1}, "probability=1.1"),
        (text_noise.word_swap, {"probability": -0.1}, "probability=-0.1"),
        (text_noise.word_deletion, {"probability": 2}, "probability=2"),
        (text_noise.span_masking, {"mask_id": 9, "vocabulary_size": 9}, "mask_id=9"),
        (text_noise.span_masking, {"mask_id": 0, "vocabulary_size": 9, "mean_span": 0.5}, "mean_span=0.5"),
        (text_noise.span_masking, {"mask_id": 0, "vocabulary_size": 9, "random_share": 0.5}, "mask_share"),
        (text_noise.span_masking, {"mask_id": 0, "vocabulary_size": 3, "special_ids": (1, 2)}, "all 3 ids are special"),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error_that_names_it(factory, options, message):
    with pytest.raises(ConfigError, match=message):
        factory(**options)


@each
def test_fields_that_are_absent_or_no_tokens_are_errors_that_name_them(name):
    fields = make_fields()
    with pytest.raises(ConfigError, match="'token_mask' is configured, but the data has the fields tokens, label"):
        apply(ALL[name](), {field: fields[field] for field in ("tokens", "label")})
    with pytest.raises(DataError, match=r"'tokens'.*float32"):
        apply(ALL[name](), {**fields, "tokens": fields["tokens"].astype(np.float32)})
    with pytest.raises(DataError, match="mask of the same shape"):
        apply(ALL[name](), {**fields, "token_mask": fields["token_mask"][:, 1:]})
