"""Buckets hold every example once an epoch, in few shapes, with less padding than batches in random order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data.arrays import ArraySource
from jaxlab.data.bucketing import Buckets, bucket_of, bucket_order, token_lengths, trim

LENGTHS = st.lists(st.integers(0, 64), min_size=1, max_size=120).map(np.array)
BOUNDARIES = (4, 16, 33, 64)


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 3), epoch=st.integers(0, 3), data=st.data())
def test_an_epoch_holds_each_example_once_but_for_the_remainder_and_each_batch_fits_its_bucket(
    lengths, seed, epoch, data
):
    batch_size = data.draw(st.integers(1, len(lengths)))
    indices, bucket = bucket_order(lengths, BOUNDARIES, batch_size, seed, epoch)
    assert indices.shape == (len(lengths) // batch_size, batch_size)
    assert len(np.unique(indices)) == indices.size
    assert len(lengths) - indices.size == len(lengths) % batch_size
    assert np.array_equal(np.take(BOUNDARIES, bucket) >= lengths[indices].max(1), np.ones(len(bucket), bool))
    assert np.array_equal(bucket, bucket_of(lengths[indices].max(1), BOUNDARIES))
    again, _ = bucket_order(lengths, BOUNDARIES, batch_size, seed, epoch)
    assert np.array_equal(indices, again)
    mixed = (bucket_of(lengths[indices], BOUNDARIES) != bucket[:, None]).any(1).sum()
    assert mixed <= len(BOUNDARIES) - 1  # only where one bucket's remainder meets the next


def some_lengths(count=4000, seed=0):
    return np.minimum(np.random.default_rng(seed).geometric(0.05, count), 128)


def padding(lengths, indices, cut_to):
    return 1 - lengths[indices].sum() / (np.asarray(cut_to) * indices.shape[1]).sum()


@pytest.mark.parametrize("count", [2, 4, 8])
def test_there_are_at_most_as_many_shapes_as_buckets_and_the_more_the_less_padding(count):
    lengths = some_lengths()
    shares = np.arange(1, count + 1) / count
    boundaries = tuple(np.unique(np.quantile(lengths, shares, method="higher")).tolist())
    buckets = Buckets(lengths, boundaries, 32, 0)
    batches = [buckets.batch(step) for step in range(len(lengths) // 32)]
    assert len({length for _, length in batches}) <= len(boundaries) <= count
    indices = np.stack([rows for rows, _ in batches])
    plain = np.arange(indices.size).reshape(indices.shape)
    full = padding(lengths, plain, np.full(len(plain), 128))
    random = padding(lengths, plain, lengths[plain].max(1))  # a shape a batch: what buckets have to beat
    bucketed = padding(lengths, indices, [length for _, length in batches])
    assert bucketed < full
    assert count < 4 or bucketed < random


def test_batches_come_in_random_order_and_every_epoch_in_another():
    lengths = some_lengths()
    first, bucket = bucket_order(lengths, (8, 32, 128), 32, 0, 0)
    second, _ = bucket_order(lengths, (8, 32, 128), 32, 0, 1)
    other, _ = bucket_order(lengths, (8, 32, 128), 32, 1, 0)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)
    changes = np.count_nonzero(np.diff(bucket))
    assert changes > len(bucket) / 4


def test_examples_that_sit_out_differ_between_epochs_and_do_not_depend_on_length():
    lengths = np.r_[np.full(50, 10), np.full(49, 100)]
    left_out = np.stack(
        [np.setdiff1d(np.arange(99), bucket_order(lengths, (10, 100), 50, 0, epoch)[0]) for epoch in range(300)]
    )
    counts = np.bincount(left_out.ravel(), minlength=99)
    assert left_out.shape == (300, 49)
    assert counts.min() > 0.6 * counts.mean()
    assert counts.max() < 1.4 * counts.mean()


def test_steps_walk_through_epochs():
    lengths = some_lengths(100)
    buckets = Buckets(lengths, (128,), 30, 5)
    for step in (0, 1, 2, 3, 7):
        indices, _ = bucket_order(lengths, (128,), 30, 5, step // 3)
        rows, length = buckets.batch(step)
        assert np.array_equal(rows, indices[step % 3])
        assert length == 128


def test_one_boundary_cuts_nothing_and_cut_is_the_bucket_of_the_longest_row():
    lengths = np.array([3, 4, 5, 16, 0])
    buckets = Buckets(lengths, (4, 16), 2, 0)
    assert buckets.cut(np.array([0, 1, 4])) == 4
    assert buckets.cut(np.array([0, 2])) == 16
    assert buckets.cut(np.array([4])) == 4


def tokenised(lengths, width):
    mask = (np.arange(width) < lengths[:, None]).astype(np.float32)
    return {"tokens": (mask * 7).astype(np.int32), "token_mask": mask, "label": np.arange(len(lengths))}


def test_trimming_cuts_padding_only_and_leaves_other_fields():
    lengths = np.array([1, 3, 0])
    fields = tokenised(lengths, 8)
    for value in fields.values():
        value.setflags(write=False)
    found = trim(fields, 3)
    assert found["label"] is fields["label"]
    assert found["tokens"].shape == found["token_mask"].shape == (3, 3)
    assert found["token_mask"].sum() == fields["token_mask"].sum()
    assert trim(fields, 100)["tokens"].shape == (3, 8)
    with pytest.raises(DataError, match="cutting to 2 would lose 1 tokens"):
        trim(fields, 2)
    with pytest.raises(ConfigError, match="no field 'token'; did you mean 'tokens'"):
        trim(fields, 3, names=("token",))


def test_lengths_are_read_from_the_mask_up_to_the_last_token():
    lengths = some_lengths(1500)
    fields = tokenised(lengths, 128)
    assert np.array_equal(token_lengths(ArraySource(fields)), lengths)
    gap = np.array([[1, 0, 1, 0], [0, 0, 0, 0]], np.float32)
    assert token_lengths(ArraySource({"token_mask": gap})).tolist() == [3, 0]
    with pytest.raises(ConfigError, match="no field 'mask_of'"):
        token_lengths(ArraySource(fields), "mask_of")


@pytest.mark.parametrize(
    ("boundaries", "batch_size", "complaint"),
    [
        ((), 2, "boundaries"),
        ((4, 4), 2, r"boundaries=\(4, 4\); expected rising"),
        ((0, 9), 2, "rising lengths from 1"),
        ((4, 8), 2, "example 2 has 9 tokens, over the last"),
        ((4, 16), 0, "batch_size=0"),
        ((4, 16), 4, "batch_size=4 for 3 examples"),
    ],
)
def test_impossible_buckets_are_refused(boundaries, batch_size, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Buckets(np.array([1, 5, 9]), boundaries, batch_size, 0)
