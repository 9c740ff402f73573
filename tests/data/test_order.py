"""The order of examples is arithmetic on (seed, step): every example once an epoch, whatever the batch size."""

import numpy as np
import pytest

from jaxlab.data import order


@pytest.mark.parametrize(("size", "batch_size"), [(12, 4), (10, 4), (7, 7), (5, 13), (1, 3), (20, 1)])
def test_each_epoch_holds_every_example_once_also_where_batches_cross_epochs_or_exceed_the_source(size, batch_size):
    epochs = 3
    steps = -(-size * epochs // batch_size)
    seen = np.concatenate([order.train_indices(size, batch_size, 0, step) for step in range(steps)])
    assert len(seen) == steps * batch_size
    for epoch in seen[: size * epochs].reshape(epochs, size):
        assert sorted(epoch) == list(range(size))


def test_a_batch_is_the_same_whether_asked_for_alone_late_or_among_others():
    alone = order.train_indices(11, 4, 3, 6)
    order.permutation.cache_clear()
    among = order.train_indices(11, 4, 3, 5, steps=3)
    assert np.array_equal(among[4:8], alone)


def test_another_seed_and_another_epoch_give_another_order_of_the_same_examples():
    first = order.permutation(50, 0, 0)
    for other in (order.permutation(50, 1, 0), order.permutation(50, 0, 1)):
        assert not np.array_equal(other, first)
        assert sorted(other) == sorted(first)


def test_a_kept_order_cannot_be_changed_by_who_reads_it():
    with pytest.raises(ValueError, match="read-only"):
        order.train_indices(10, 4, 0, 0)[0] = 3


@pytest.mark.parametrize(("size", "batch_size"), [(12, 4), (10, 4), (3, 8), (1, 1)])
def test_evaluation_covers_each_row_once_in_order_and_masks_what_it_pads(size, batch_size):
    pairs = [order.eval_indices(size, batch_size, i) for i in range(order.eval_batch_count(size, batch_size))]
    ids, mask = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    assert ids.shape == mask.shape == (len(pairs) * batch_size,)
    assert np.array_equal(ids[mask == 1], np.arange(size))
    assert set(mask.tolist()) <= {0.0, 1.0}
    assert ids.max() < size


def test_indices_are_int32_as_devices_hold_them():
    assert order.train_indices(10, 4, 0, 2).dtype == np.int32
    assert order.eval_indices(10, 4, 2)[0].dtype == np.int32
    assert order.eval_indices(10, 4, 2)[1].dtype == np.float32
