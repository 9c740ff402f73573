"""No window sees what is not known at its time: not later rows, not another series, not another split."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import windows
from jaxlab.data.arrays import ArraySource
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.subset import Subset

SIZES = st.integers(1, 6)


def series(rows, groups=None, first=0):
    """Rows that say where they stand: ``load`` is the row's number, ``hour`` 1000 more, ``wind`` two columns of it."""
    number = np.arange(first, first + rows)
    fields = {"load": number, "hour": number + 1000, "wind": np.stack([number + 0.25, number + 0.5], 1), "time": number}
    return ArraySource(fields | ({"group": groups} if groups is not None else {}))


def everything(source):
    return source.__getitems__(np.arange(len(source)))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), SIZES, SIZES, SIZES)
def test_windows_are_the_rows_that_a_loop_would_take(rows, length, horizon, stride):
    assume(rows >= length + horizon)
    found = windows.make(
        series(rows), length, horizon, stride, inputs=("load", "wind"), targets=("load",), known_future=("hour", "wind")
    )
    got = everything(found)
    starts = list(range(0, rows - length - horizon + 1, stride))
    assert got["start"].tolist() == starts
    for i, start in enumerate(starts):
        past, ahead = np.arange(start, start + length), np.arange(start + length, start + length + horizon)
        np.testing.assert_array_equal(got["past"][i], np.stack([past, past + 0.25, past + 0.5], 1))
        np.testing.assert_array_equal(got["future"][i], np.stack([ahead + 1000, ahead + 0.25, ahead + 0.5], 1))
        np.testing.assert_array_equal(got["target"][i], ahead[:, None])
    for name, example in found.spec.example.items():
        assert (got[name].shape[1:], got[name].dtype) == (example.shape, example.dtype)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(2, 40), SIZES, SIZES, SIZES)
def test_a_split_s_windows_see_its_rows_only_and_the_past_is_before_the_target(first, rows, length, horizon, stride):
    assume(rows >= length + horizon)
    got = everything(windows.make(series(rows, first=first), length, horizon, stride, ("load",), ("load",), ("hour",)))
    assert got["past"].min() >= first
    assert max(got["past"].max(), got["target"].max(), got["future"].max() - 1000) < first + rows
    assert (got["past"].max(axis=(1, 2)) < got["target"].min(axis=(1, 2))).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), SIZES, SIZES, SIZES)
def test_no_window_crosses_from_one_series_to_the_next_and_none_is_left_out(sizes, length, horizon, stride):
    needed = length + horizon
    assume(max(sizes) >= needed)
    group = np.repeat(np.arange(len(sizes))[::-1], sizes)
    found = windows.make(series(len(group), group), length, horizon, stride, ("load",), ("load",), group="group")
    got = everything(found)
    seen = np.concatenate([got["past"], got["target"]], axis=1)[..., 0].astype(int)
    assert (group[seen] == group[seen[:, :1]]).all()
    assert len(found) == sum(len(range(0, size - needed + 1, stride)) for size in sizes)
    assert found.spec.meta["short_series"] == sum(size < needed for size in sizes)


def test_what_comes_changes_only_the_target_and_what_is_known_of_it():
    rows, length, horizon = 12, 4, 3
    before = series(rows)
    arrays = dict(before.__getitems__(np.arange(rows)))
    changed = ArraySource({name: np.where(np.arange(rows) < length, v.T, v.T + 7).T for name, v in arrays.items()})
    options = {"inputs": ("load", "wind", "hour"), "targets": ("load",), "known_future": ("hour",)}
    one, two = (windows.make(s, length, horizon, **options).__getitems__(np.zeros(1, int)) for s in (before, changed))
    np.testing.assert_array_equal(one["past"], two["past"])
    np.testing.assert_array_equal(one["target"] + 7, two["target"])
    np.testing.assert_array_equal(one["future"] + 7, two["future"])


def test_by_default_all_numbers_but_the_roles_are_the_past_and_nothing_is_known_of_what_comes():
    arrays = series(9, np.zeros(9, int)).__getitems__(np.arange(9))
    texts = {"name": np.array(["a"] * 9, object), "label": np.arange(9), "target": np.arange(9.0)}
    found = windows.make(ColumnSource({**arrays, **texts}), 3, 2, group="group")
    assert found.spec.meta["inputs"] == ("load", "hour", "wind", "target")
    assert {n: e.shape for n, e in found.spec.example.items()} == {"past": (3, 5), "target": (2, 1), "start": ()}


def test_times_begin_anew_with_a_series_and_are_else_not_allowed_to_go_back():
    time = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    source = ArraySource({"load": np.arange(8), "time": time, "group": np.repeat([0, 1], 4)})
    assert len(windows.make(source, 2, 1, targets=("load",), group="group")) == 4
    with pytest.raises(DataError, match="time goes back in row 4, from 3 to 0; sort the rows by time"):
        windows.make(source, 2, 1, targets=("load",))
    mixed = ArraySource({"load": np.arange(4), "group": np.array([5, 6, 6, 5])})
    with pytest.raises(DataError, match="group 5 begins again in row 3; sort the rows by group, then time"):
        windows.make(mixed, 1, 1, targets=("load",), group="group")


def test_too_few_rows_are_an_error_that_says_how_many_are_needed():
    assert len(windows.make(series(7), 4, 3, targets=("load",))) == 1
    with pytest.raises(DataError, match=r"needs at least 7 rows, and the source has 6"):
        windows.make(series(6), 4, 3, targets=("load",))
    with pytest.raises(DataError, match=r"needs at least 7 rows, and the longest of 2 series has 6"):
        windows.make(series(10, np.repeat([0, 1], [6, 4])), 4, 3, targets=("load",), group="group")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length=0: expected a whole number of at least 1"),
        ({"horizon": 0}, "horizon=0"),
        ({"stride": -1}, "stride=-1"),
        ({"inputs": ("laod",)}, "inputs: no field 'laod'; did you mean 'load'"),
        ({"targets": ()}, r"targets=\(\): expected at least one field"),
        ({"targets": ("target",)}, "targets: no field 'target'"),
        ({"inputs": ("name",)}, "field 'name' holds no numbers"),
        ({"known_future": ("hour", "load")}, "known_future: 'load' is a target"),
        ({"group": "grup"}, "group: no field 'grup'; did you mean 'group'"),
    ],
)
def test_an_impossible_window_is_an_error_that_names_the_parameter(options, message):
    arrays = series(9, np.zeros(9, int)).__getitems__(np.arange(9))
    source = ColumnSource({**arrays, "name": np.array(["a"] * 9, object)})
    with pytest.raises(ConfigError, match=f"windows: .*{message}"):
        windows.make(source, **{"length": 3, "horizon": 2, "targets": ("load",), **options})


def test_no_window_goes_over_rows_that_were_left_out_and_none_over_a_split_at_random():
    left = Subset(series(30), np.delete(np.arange(30), [9, 20]), {"by": "missing"})
    found = windows.make(left, 3, 2, inputs=("load",), targets=("load",))
    assert found.spec.meta["series"] == 3
    got = everything(found)
    whole = np.concatenate([got["past"], got["target"]], 1)[..., 0]
    assert (np.diff(whole, axis=1) == 1).all()
    assert len(whole) == 5 + 6 + 5
    for by in ("random", "stratified"):
        with pytest.raises(ConfigError, match=f"windows: source is split by='{by}', which tears series"):
            windows.make(Subset(series(30), np.arange(0, 30, 2), {"by": by}), 3, 2, targets=("load",))


def test_the_fingerprint_is_of_the_rows_and_of_how_they_are_cut():
    def fingerprint(first=0, **options):
        options = {"length": 3, "horizon": 2, "targets": ("load",), **options}
        return windows.make(series(30, first=first), **options).spec.meta["fingerprint"]

    others = [fingerprint(first=1), fingerprint(length=4), fingerprint(stride=2), fingerprint(inputs=("hour",))]
    assert fingerprint() == fingerprint()
    assert len({fingerprint(), *others}) == 5
