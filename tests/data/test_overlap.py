"""Rows of one split are found in another whatever they have been made into: parts, mixtures, windows, slices."""

import numpy as np
import pytest

from jaxlab.core.errors import DataError
from jaxlab.data import mixture, splits, windows
from jaxlab.data.arrays import ArraySource
from jaxlab.data.overlap import check_disjoint, origins
from jaxlab.data.subset import Subset


def series(rows=100, first=0, **meta):
    number = np.arange(first, first + rows)
    return ArraySource({"load": number, "time": number}, meta)


def cut(source, stride=1):
    return windows.make(source, 5, 3, stride, targets=("load",))


def slices(first, last):
    """Rows `first` to `last` of one prepared file, as `jaxlab.data.tfds_source` states them."""
    facts = {"name": "walks", "version": "1.0.0", "split": f"train[{first}:{last}]"}
    return series(last - first, first, records=(("file", first, last),), **facts)


def assert_shared(one, other, count):
    for sources in ({"train": one, "valid": other}, {"train": other, "valid": one}):
        with pytest.raises(DataError, match=rf"'train'.* and 'valid'.* share {count} rows"):
            check_disjoint(sources)


def test_the_same_data_twice_share_all_rows():
    assert_shared(series(), series(), 100)
    check_disjoint({"train": series(), "valid": series(first=1000)})


@pytest.mark.parametrize("stride", [1, 4, 11])
def test_windows_share_what_rows_they_are_made_of(stride):
    train, valid = (splits.part(series(), part, by="time") for part in ("train", "valid"))
    check_disjoint({"train": cut(train, stride), "valid": cut(valid, stride), "test": cut(series(first=500))})
    made_of = {row for start in range(0, 93, stride) for row in range(start, start + 8)}
    assert_shared(cut(series(), stride), valid, len(made_of & {*valid.indices.tolist()}))


def test_windows_that_are_split_at_random_share_rows():
    whole = cut(series())
    with pytest.raises(DataError, match="share"):
        check_disjoint({part: splits.part(whole, part) for part in ("train", "valid")})
    ((source, rows),) = origins(Subset(whole, np.array([3, 20]), {}))
    assert rows.tolist() == [*range(3, 11), *range(20, 28)]
    assert source.spec == whole.origins()[0][0].spec


def test_a_mixture_shares_what_its_sources_share():
    train, valid = (splits.part(series(), part) for part in ("train", "valid"))
    check_disjoint({"train": mixture.make((train, series(first=500))), "valid": valid})
    assert_shared(mixture.make((series(first=500), train, valid)), valid, len(valid))
    assert_shared(Subset(mixture.make((series(first=500), series())), np.arange(90, 110), {}), series(), 10)


def test_records_of_one_file_are_known_in_slices_and_in_parts_of_slices():
    check_disjoint({"train": slices(0, 60), "valid": slices(60, 90), "test": Subset(slices(50, 100), [45, 49], {})})
    assert_shared(slices(0, 60), slices(40, 90), 20)
    assert_shared(Subset(slices(0, 60), [3, 40, 50], {}), slices(40, 90), 2)
    assert_shared(Subset(slices(0, 60), [3, 40, 50], {}), Subset(slices(30, 90), [10, 11], {}), 1)


def test_a_split_by_time_that_is_not_later_than_the_one_before_is_an_error():
    parts = {name: splits.part(series(), name, by="time") for name in ("train", "valid", "test")}
    check_disjoint(parts)
    check_disjoint({name: cut(part) for name, part in parts.items()})
    with pytest.raises(DataError, match=r"'train' goes on until time=99; 'valid', which should be later, begins at 80"):
        check_disjoint({"train": parts["test"], "valid": parts["valid"]})
    folds = [{name: splits.fold(series(), f, 4, name, "time") for name in ("train", "valid")} for f in range(4)]
    for fold in folds:
        check_disjoint(fold)
