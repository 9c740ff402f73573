"""Histories against pandas, the parts against each other, and what is no source of histories."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import histories, splits
from jaxlab.data.arrays import ArraySource
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.overlap import check_disjoint, origins

PARTS = histories.PARTS


def make_source(count=300, users=12, items=20, times=40, seed=0):
    """Return choices in no order, of users of different zeal, many at equal times; each item is of one row alone."""
    generator = np.random.default_rng(seed)
    user = (users * generator.random(count) ** 2).astype(np.int32)
    fields = {"user": user, "item": generator.integers(0, items, count), "time": generator.integers(0, times, count)}
    facts = {"categories:item": tuple(f"film {n}" for n in range(items))}
    return ArraySource({**fields, "row": np.arange(count)}, {**facts, "name": "films"})


def rows_of(source):
    return source.__getitems__(np.arange(len(source)))


def frame_of(source):
    """Return a user's choices in order, with pandas' own stable sort, and each one's part."""
    frame = pd.DataFrame({name: rows_of(source)[name] for name in ("user", "item", "time")})
    frame = frame.sort_values("time", kind="stable").sort_values("user", kind="stable")
    back, size = frame.groupby("user").cumcount(ascending=False), frame.groupby("user")["item"].transform("size")
    frame["last"] = np.where((size >= 3) & (back < 2), 2 - back, 0)
    ranked = np.sort(frame["time"].to_numpy())
    first, second = ranked[int(0.8 * len(frame))], ranked[int(0.9 * len(frame))]
    frame["time_part"] = np.where(frame["time"] < first, 0, np.where(frame["time"] < second, 1, 2))
    return frame.assign(all=0, row=frame.index)


def expected(frame, part, length, column):
    """Return each user's inputs, targets and which of these are of the part, by a loop in plain Python."""
    number, found = 0 if part == "all" else PARTS.index(part), {}
    for user, mine in frame.groupby("user"):
        kept = [(item, owner) for item, owner in zip(mine["item"], mine[column], strict=True) if owner <= number]
        pairs = [(a, b, owner == number) for (a, _), (b, owner) in itertools.pairwise(kept)]
        if any(pair[2] for pair in pairs):
            found[user] = pairs[-length:]
    return found


def served(row, place):
    """Return the pairs of a row, and whether each target counts."""
    at = np.flatnonzero(row["item_mask"][place])
    return [(row["items"][place][i], row["targets"][place][i], row["target_mask"][place][i] == 1) for i in at]


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize(("by", "column"), [("last", "last"), ("time", "time_part")])
@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_rows_are_pandas_sorted_choices_cut_to_the_latest(part, by, column, padding):
    for seed, length in ((0, 5), (1, 100), (2, 1)):
        source = make_source(seed=seed)
        found = histories.make(source, part, length, by=by, padding=padding)
        rows, wanted = rows_of(found), expected(frame_of(source), part, length, "all" if part == "all" else column)
        assert rows["user"].tolist() == list(wanted)
        for place, user in enumerate(rows["user"]):
            assert served(rows, place) == wanted[user]
        mask_BT = rows["item_mask"]
        assert (np.sort(mask_BT, axis=1)[:, :: -1 if padding == "right" else 1] == mask_BT).all()
        assert not rows["items"][mask_BT == 0].any()
        assert not rows["targets"][mask_BT == 0].any()
        assert found.spec.meta["target_count"] == rows["target_mask"].sum()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 9), st.sampled_from(histories.RULES))
def test_no_choice_that_judges_a_part_is_an_input_or_a_target_of_a_part_before_it(seed, count, length, by):
    generator = np.random.default_rng(seed)
    fields = {"user": generator.integers(0, 4, count), "time": generator.integers(0, 9, count)}
    source = ArraySource({**fields, "item": np.arange(count)})  # an item tells its row
    seen, judged = {}, {}
    for part in PARTS:
        try:
            found = histories.make(source, part, length, by=by)
        except DataError:  # no user has anything to predict
            continue
        rows = rows_of(found)
        real, target = rows["item_mask"] > 0, rows["target_mask"] > 0
        assert (target <= real).all()
        seen[part] = {*rows["items"][real], *(rows["targets"][target])}
        judged[part] = set(rows["targets"][target])
        ((_, origin),) = origins(found)
        assert set(origin) == (seen if part == "train" else judged)[part]
    for early, late in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not seen.get(early, set()) & judged.get(late, set())
    if by == "time" and {"train", "test"} <= seen.keys():
        times = fields["time"]
        assert max(times[list(seen["train"])]) < min(times[list(judged["test"])])


@pytest.mark.parametrize("by", histories.RULES)
def test_parts_are_found_to_be_disjoint_and_the_same_part_twice_is_not(by):
    source = make_source()
    parts = {part: histories.make(source, part, 7, by=by) for part in PARTS}
    check_disjoint(parts)
    for part in PARTS:
        with pytest.raises(DataError, match="share"):
            check_disjoint({"train": parts[part], "valid": histories.make(make_source(), part, 9, by=by)})
    with pytest.raises(DataError, match="share"):
        check_disjoint({"train": histories.make(source, "all", 7), "test": parts["test"]})
    ((base, rows),) = parts["test"].origins(np.array([2]))
    assert base is source
    chosen, mask = (rows_of(parts["test"])[name][2] for name in ("targets", "target_mask"))
    assert sorted(source.__getitems__(rows)["item"]) == sorted(chosen[mask > 0])


def test_choices_of_one_time_stay_in_the_source_s_order():
    source = ArraySource({"user": np.zeros(6, int), "item": np.array([3, 0, 5, 1, 4, 2]), "time": np.ones(6, int)})
    row = rows_of(histories.make(source, "all", 5))
    assert [*row["items"][0], row["targets"][0][-1]] == [3, 0, 5, 1, 4, 2]


def test_what_the_shares_leave_is_in_no_part_and_is_the_latest():
    source = ArraySource({"user": np.arange(100) % 4, "item": np.arange(100), "time": np.arange(100)})
    for part, last in zip(PARTS, (50, 70, 80), strict=True):
        rows = rows_of(histories.make(source, part, 100, by="time", shares=(0.5, 0.2, 0.1)))
        assert max(rows["items"].max(), rows["targets"].max()) == last - 1
        assert rows["target_mask"].sum() == {"train": 50 - 4, "valid": 20, "test": 10}[part]


def test_users_of_fewer_than_three_choices_are_for_training_alone():
    source = ArraySource({"user": [0, 0, 1, 1, 1, 2], "item": np.arange(6), "time": np.arange(6)})
    users = {part: rows_of(histories.make(source, part, 4))["user"].tolist() for part in (*PARTS, "all")}
    assert users == {"train": [0], "valid": [1], "test": [1], "all": [0, 1]}


def test_ids_that_the_source_names_stay_and_others_are_numbered_alike_in_every_part():
    source = make_source()
    for part in PARTS:
        facts = histories.make(source, part, 5).spec.meta
        assert facts["categories:items"] == facts["categories:targets"] == source.spec.meta["categories:item"]
    fields = rows_of(source)
    values = {"user": [f"u{n:03}" for n in fields["user"]], "item": [1000 - 7 * n for n in fields["item"]]}
    text = np.empty(len(source), object)
    text[:] = values["user"]
    other = ColumnSource({"user": text, "item": np.array(values["item"]), "time": fields["time"]})
    for part in PARTS:
        plain, named = histories.make(source, part, 5), histories.make(other, part, 5)
        names = named.spec.meta["categories:items"]
        assert list(names) == [str(n) for n in sorted(set(values["item"]))]
        assert named.spec.meta["categories:user"] == tuple(sorted(set(values["user"])))
        ours, theirs = rows_of(plain), rows_of(named)
        real = ours["item_mask"] > 0
        assert [names[code] for code in theirs["items"][real]] == [str(1000 - 7 * n) for n in ours["items"][real]]
        np.testing.assert_array_equal(ours["target_mask"], theirs["target_mask"])


def test_two_histories_have_one_fingerprint_only_if_they_are_the_same():
    prints = {
        histories.make(make_source(seed=seed), part, length, padding=padding).spec.meta["fingerprint"]
        for seed in (0, 1) for part in PARTS for length in (5, 6) for padding in histories.SIDES
    }  # fmt: skip
    assert len(prints) == 24
    assert histories.make(make_source(), "train", 5).spec.meta["fingerprint"] in prints


SOURCE = make_source()
GOOD = {"user": np.arange(9) // 3, "item": np.arange(9), "time": np.arange(9)}


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (SOURCE, {"part": "trian"}, ConfigError, "part='trian'; did you mean 'train'"),
        (SOURCE, {"by": "lasst"}, ConfigError, "by='lasst'; did you mean 'last'"),
        (SOURCE, {"padding": "lefft"}, ConfigError, "padding='lefft'; did you mean 'left'"),
        (SOURCE, {"length": 0}, ConfigError, "length=0"),
        (SOURCE, {"by": "time", "shares": (0.9, 0.2, 0.1)}, ConfigError, "three positive shares"),
        (SOURCE, {"by": "time", "shares": (0.9, 0.1)}, ConfigError, "three positive shares"),
        (SOURCE, {"item": "items"}, ConfigError, "item: the data has no field 'items'; did you mean 'item'"),
        (splits.part(SOURCE, "train"), {}, ConfigError, "split by='random', which tears histories"),
        (ArraySource({**GOOD, "item": np.arange(9.0)}), {}, DataError, "'item' holds float32; expected ids"),
        (ArraySource({**GOOD, "item": np.eye(9, dtype=int)}), {}, DataError, r"'item' has \(9,\) values a row"),
        (ArraySource({**GOOD, "time": np.where(np.arange(9) == 4, np.nan, 1)}), {}, DataError, "first in row 4"),
        (ArraySource(GOOD, {"categories:item": ("a",) * 8}), {}, DataError, "row 8: 8 is outside the 8 codes"),
        (ArraySource({**GOOD, "user": np.arange(9)}), {}, DataError, "no user has a choice in the part 'train'"),
        (
            ColumnSource({**GOOD, "time": np.array(["now"] * 9, object)}), {}, DataError,
            "'time' holds object; expected times as numbers",
        ),
        (
            ColumnSource({**GOOD, "user": np.array(["a", None] + ["b"] * 7, object)}), {}, DataError,
            "'user': 1 values are missing, first in row 1",
        ),
    ],
)  # fmt: skip
def test_what_is_no_history_is_explained(source, options, error, message):
    with pytest.raises(error, match=message):
        histories.make(source, **options)
