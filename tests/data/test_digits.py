"""The splits of the digits share no example, leave none out, are stratified, and do not depend on a run's seed."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxlab.core.errors import DataError
from jaxlab.data.digits import make

SPLITS = ("train", "valid", "test")


def rows(source):
    fields = source.__getitems__(np.arange(len(source)))
    return [(image.tobytes(), int(label)) for image, label in zip(fields["image"], fields["label"], strict=True)]


def labels(source):
    return source.__getitems__(np.arange(len(source)))["label"]


def test_the_three_splits_are_disjoint_and_together_all_1797_digits():
    images, targets = load_digits(return_X_y=True)
    everything = sorted(
        (image.tobytes(), int(label))
        for image, label in zip((images.reshape(-1, 8, 8, 1) / 16).astype(np.float32), targets, strict=True)
    )
    assert len(everything) == len(set(everything)) == 1797  # no duplicates, so equality below means disjoint
    assert sorted(row for split in SPLITS for row in rows(make(split))) == everything
    assert sorted(rows(make("train+valid"))) == sorted(rows(make("train")) + rows(make("valid")))


@pytest.mark.parametrize(("split", "share"), [("train", 0.7), ("valid", 0.1), ("test", 0.2)])
def test_each_split_holds_its_share_of_every_class_within_one_example(split, share):
    counts = np.bincount(labels(make(split)), minlength=10)
    expected = share * np.bincount(load_digits(return_X_y=True)[1], minlength=10)
    assert np.abs(counts - expected).max() <= 1.0


def test_the_splits_are_decided_by_their_own_seed_and_by_no_global_one():
    first = rows(make("test"))
    np.random.default_rng(3).random()
    assert rows(make("test")) == first
    assert rows(make("test", split_seed=1)) != first


def test_the_spec_tells_images_in_the_unit_interval_and_ten_classes():
    source = make("train")
    fields = source.__getitems__(np.arange(len(source)))
    assert fields["image"].shape[1:] == source.spec.example["image"].shape == (8, 8, 1)
    assert fields["image"].dtype == np.float32
    assert fields["label"].dtype == np.int32
    assert fields["image"].min() == 0
    assert fields["image"].max() == 1
    assert source.spec.meta["classes"] == tuple("0123456789")


def test_an_unknown_split_is_an_error_that_names_the_nearest():
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        make("tset")
