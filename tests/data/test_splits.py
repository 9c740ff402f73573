"""Splits cover the source, share nothing, keep their proportions, and depend on the data and the seed alone."""

import itertools
import json
import pickle

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, StratifiedKFold, TimeSeriesSplit

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec
from jaxlab.data import splits
from jaxlab.data.arrays import ArraySource
from jaxlab.data.overlap import check_classes, check_disjoint
from jaxlab.data.subset import Subset, fingerprint
from jaxlab.data.table_columns import CHUNK

KINDS = ("random", "stratified", "grouped", "time")
PARTS = ("train", "valid", "test")


class Texts:
    """A source whose fields may hold texts."""

    def __init__(self, **fields):
        self.fields = fields
        example = {name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in fields.items()}
        self.spec = DataSpec(example, len(next(iter(fields.values()))), {})

    def __len__(self):
        return self.spec.size

    def __getitems__(self, indices):
        return {name: value[indices] for name, value in self.fields.items()}


def make_source(rows=300, seed=0, **meta):
    generator = np.random.default_rng(seed)
    fields = {
        "x": generator.normal(size=(rows, 2)),
        "label": generator.choice(4, rows, p=(0.6, 0.3, 0.07, 0.03)),
        "group": generator.integers(0, max(rows // 8, 6), rows),
        "time": generator.integers(0, rows, rows),
    }
    return ArraySource(fields, {"classes": ("a", "b", "c", "d"), **meta})


def all_parts(source, by, **arguments):
    return {name: splits.part(source, name, by=by, **arguments) for name in PARTS}


def rows_of(source):
    return source.__getitems__(np.arange(len(source)))


@pytest.mark.parametrize("by", KINDS)
def test_parts_are_disjoint_and_cover_the_source_and_serve_its_rows(by):
    source = make_source()
    parts = all_parts(source, by)
    assert np.array_equal(np.sort(np.concatenate([p.indices for p in parts.values()])), np.arange(300))
    check_disjoint(parts)
    for name, part in parts.items():
        assert len(part) == part.spec.size == len(part.indices)
        assert abs(len(part) - 300 * (0.8 if name == "train" else 0.1)) <= 12
        assert part.spec.meta["classes"] == ("a", "b", "c", "d")
        assert part.spec.meta["split"]["part"] == name
        whole, served = rows_of(source), rows_of(part)
        for field, value in served.items():
            np.testing.assert_array_equal(value, whole[field][part.indices])


@pytest.mark.parametrize("by", KINDS)
def test_a_split_is_a_function_of_the_data_and_the_seed(by):
    first, again = (splits.part(make_source(), "valid", by=by, seed=3) for _ in range(2))
    other = splits.part(make_source(), "valid", by=by, seed=4)
    assert np.array_equal(first.indices, again.indices)
    assert first.spec.meta["split"] == again.spec.meta["split"]
    assert np.array_equal(first.indices, other.indices) == (by == "time")
    changed = splits.part(make_source(seed=1), "valid", by=by, seed=3)
    assert changed.spec.meta["fingerprint"] != first.spec.meta["fingerprint"]


def test_a_subset_travels_to_workers():
    part = splits.part(make_source(), "valid")
    copy = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(rows_of(copy)["x"], rows_of(part)["x"])
    assert copy.spec == part.spec


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.lists(st.floats(0.05, 0.3), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_each_class_has_its_share_of_each_part_to_less_than_one_row(counts, shares, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    fractions = tuple((f"p{i}", share) for i, share in enumerate(shares))
    source = ArraySource({"label": labels})
    for name, share in fractions:
        try:
            part = splits.part(source, name, fractions, by="stratified", seed=seed)
        except DataError:
            assert len(labels) * min(shares) < 2
            continue
        found = np.bincount(rows_of(part)["label"], minlength=len(counts))
        assert (np.abs(found - np.asarray(counts) * share) < 1 + 1e-6).all()


def test_stratified_totals_fit_too_where_every_class_alone_would_round_to_none():
    source = ArraySource({"label": np.repeat(np.arange(100), 5)})
    assert [len(part) for part in all_parts(source, "stratified").values()] == [400, 50, 50]


@pytest.mark.parametrize("folds", [2, 5])
def test_stratified_folds_have_the_class_counts_of_scikit_learn_s(folds):
    source = make_source()
    labels = rows_of(source)["label"]
    ours = [np.bincount(labels[splits.fold(source, f, folds, "valid", "stratified").indices]) for f in range(folds)]
    oracle = StratifiedKFold(folds).split(labels, labels)
    theirs = [np.bincount(labels[valid], minlength=4) for _, valid in oracle]
    for column in range(4):  # which fold has the odd row is free
        assert sorted(row[column] for row in ours) == sorted(row[column] for row in theirs)


@pytest.mark.parametrize("folds", [2, 5])
def test_grouped_folds_are_of_scikit_learn_s_sizes_and_share_no_group(folds):
    source = make_source()
    groups = rows_of(source)["group"]
    ours = [splits.fold(source, f, folds, "valid", "grouped") for f in range(folds)]
    theirs = [len(valid) for _, valid in GroupKFold(folds).split(groups, groups=groups)]
    assert sorted(map(len, ours)) == sorted(theirs)
    check_disjoint({str(f): part for f, part in enumerate(ours)})
    found = [set(groups[part.indices]) for part in ours]
    assert sum(map(len, found)) == len(set(groups))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=3, max_size=12), st.integers(0, 5))
def test_a_grouped_split_gives_every_part_a_group_and_every_group_one_part(sizes, seed):
    source = ArraySource({"group": np.repeat(np.arange(len(sizes)), sizes)})
    parts = all_parts(source, "grouped", seed=seed)
    groups = [set(rows_of(part)["group"].tolist()) for part in parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(sizes)


@pytest.mark.parametrize("folds", [2, 5, 9])
def test_time_folds_are_scikit_learn_s_expanding_window(folds):
    rows = 60 * (folds + 1)
    order = np.random.default_rng(0).permutation(rows)
    source = ArraySource({"time": order})
    for f, (train, valid) in enumerate(TimeSeriesSplit(folds).split(np.arange(rows))):
        for part, expected in (("train", train), ("valid", valid)):
            found = splits.fold(source, f, folds, part, by="time")
            np.testing.assert_array_equal(np.sort(rows_of(found)["time"]), expected)


@pytest.mark.parametrize("texts", [False, True])
def test_each_part_by_time_is_strictly_later_than_the_one_before(texts):
    times = np.random.default_rng(0).integers(0, 40, 300)  # with many rows at one time
    names = np.array([f"2024-01-01T00:{t:02}" for t in times], object)
    source = Texts(time=names) if texts else ArraySource({"time": times})
    parts = [times[part.indices] for part in all_parts(source, "time").values()]
    for earlier, later in itertools.pairwise(parts):
        assert earlier.max() < later.min()
    assert sum(map(len, parts)) == 300


@pytest.mark.parametrize("by", ["random", "stratified", "grouped"])
def test_the_valid_parts_of_the_folds_are_the_source_and_train_is_the_rest(by):
    source = make_source()
    valid = [splits.fold(source, f, 4, "valid", by) for f in range(4)]
    assert np.array_equal(np.sort(np.concatenate([part.indices for part in valid])), np.arange(300))
    for f, part in enumerate(valid):
        train = splits.fold(source, f, 4, "train", by)
        check_disjoint({"train": train, "valid": part})
        assert len(train) + len(part) == 300


def test_a_split_of_a_split_keeps_the_first_source_s_indices():
    source = make_source()
    train, test = splits.part(source, "train"), splits.part(source, "test")
    inner = {name: splits.fold(train, 1, 3, name, "stratified") for name in ("train", "valid")}
    check_disjoint({**inner, "test": test})
    assert set(inner["valid"].indices) <= set(train.indices)
    assert inner["valid"].spec.meta["split"]["within"]["part"] == "train"
    np.testing.assert_array_equal(rows_of(inner["valid"])["x"], rows_of(source)["x"][inner["valid"].indices])
    assert (
        Subset(train, np.arange(5), {}).spec.meta["fingerprint"]
        == (Subset(source, train.indices[:5], {}).spec.meta["fingerprint"])
    )


def test_shared_rows_are_an_error_that_names_the_splits_and_the_rows():
    source = make_source()
    one, other = Subset(source, np.arange(0, 20), {}), Subset(make_source(), np.arange(17, 40), {})
    with pytest.raises(DataError, match=r"'train' and 'test' share 3 rows: 17, 18, 19"):
        check_disjoint({"train": one, "test": other})
    with pytest.raises(DataError, match=r"'train' and 'test' share 23 rows"):
        check_disjoint({"train": source, "test": other})
    check_disjoint({"train": one, "test": Subset(make_source(seed=1), np.arange(20), {})})  # other data


def test_shared_groups_are_an_error_where_a_split_was_by_group():
    source = make_source()
    groups = rows_of(source)["group"]
    train = splits.part(source, "train", by="grouped")
    few = Subset(train, np.arange(1), {"part": "few", "by": "file"})
    outside = np.flatnonzero(groups == groups[few.indices[0]])[1:]
    with pytest.raises(DataError, match=r"'train' and 'test' share 1 groups of 'group'"):
        check_disjoint({"train": few, "test": Subset(source, outside, {})})


def test_an_index_file_gives_the_parts_back_and_its_facts(tmp_path):
    path = str(tmp_path / "folder" / "split.json")
    parts = all_parts(make_source(), "grouped", seed=7)
    splits.save(path, parts)
    for name, part in parts.items():
        found = splits.from_file(make_source(), path, name)
        assert np.array_equal(found.indices, part.indices)
        assert found.spec.meta["split"] == part.spec.meta["split"]
    content = json.loads((tmp_path / "folder" / "split.json").read_text())
    assert content["seed"] == 7
    assert content["by"] == "grouped"
    assert content["size"] == 300


def change(content, **entries):
    return {name: value for name, value in {**content, **entries}.items() if value is not None}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"size": 299}, "of data with 299 rows; this data has 300"),
        ({"base_fingerprint": "rows:0"}, "with the fingerprint rows:0"),
        ({"seed": 5}, "has been changed since it was written"),
        ({"fingerprint": None, "parts": {"train": [0, 300]}}, "index 300 is outside the data's 300 rows"),
        ({"fingerprint": None, "parts": {"train": [0, -1]}}, "index -1 is outside"),
        ({"fingerprint": None, "parts": {"train": [4, 1, 4]}}, "index 4 is there more than once"),
        ({"fingerprint": None, "parts": {"train": [1], "x": [1]}}, "'train' and 'x' share 1 rows: 1"),
        ({"fingerprint": None, "parts": {"train": [1.5]}}, "expected a list of row numbers"),
        ({"fingerprint": None, "parts": {"train": "all"}}, "expected a list of row numbers"),
        ({"fingerprint": None, "parts": {"train": []}}, "'train' holds no rows"),
        ({"fingerprint": None, "parts": {"trian": [1]}}, "no part 'train'; did you mean 'trian'"),
        ({"parts": None, "fingerprint": None}, "no 'parts'"),
    ],
)
def test_an_index_file_that_does_not_fit_is_an_error(tmp_path, edit, message):
    path = tmp_path / "split.json"
    splits.save(str(path), all_parts(make_source(), "random"))
    path.write_text(json.dumps(change(json.loads(path.read_text()), **edit)))
    with pytest.raises(DataError, match=message):
        splits.from_file(make_source(), str(path), "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "not JSON"), (b"\xff", "not JSON"), (b"[1]", "holds a list"), (None, "No such file")],
)
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "split.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"split\.json.*{message}"):
        splits.from_file(make_source(), str(path))


def test_saving_parts_that_overlap_or_are_of_other_data_is_an_error(tmp_path):
    source, path = make_source(), str(tmp_path / "split.json")
    with pytest.raises(DataError, match="share 1 rows: 2"):
        splits.save(path, {"a": Subset(source, [1, 2], {}), "b": Subset(source, [2, 3], {})})
    with pytest.raises(DataError, match="splits of one source"):
        splits.save(path, {"a": Subset(source, [1], {}), "b": Subset(make_source(seed=1), [2], {})})
    assert not (tmp_path / "split.json").exists()


def test_a_filter_leaves_out_what_it_lists_of_a_source_or_of_a_split(tmp_path):
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"train": {"drop": [3, 0]}}))
    source = make_source(10)
    assert splits.filtered(source, str(path)).indices.tolist() == [1, 2, 4, 5, 6, 7, 8, 9]
    train = splits.part(source, "train")
    assert splits.filtered(train, str(path)).indices.tolist() == np.delete(train.indices, [0, 3]).tolist()
    for content, message in (
        ({"drop": [10]}, "index 10 is outside"),
        ({"keep": [1]}, "no 'drop'"),
        ({"drop": list(range(10))}, "holds no rows"),
        ({"drop": [1], "base_fingerprint": "rows:1"}, "fingerprint"),
    ):
        path.write_text(json.dumps({"train": content}))
        with pytest.raises(DataError, match=message):
            splits.filtered(source, str(path))
    with pytest.raises(DataError, match="no split 'valid'"):
        splits.filtered(source, str(path), "valid")


def test_rows_with_missing_values_can_be_dropped():
    text = np.array(["a", None, "", "b", "c"], object)
    source = Texts(x=np.array([1, 2, 3, np.nan, 5]), pair=np.array([[1, 2]] * 4 + [[np.nan, 1]]), text=text)
    assert splits.drop_missing(source).indices.tolist() == [0]
    assert splits.drop_missing(source, ("x",)).indices.tolist() == [0, 1, 2, 4]
    assert splits.drop_missing(source, ("text",)).indices.tolist() == [0, 3, 4]
    with pytest.raises(ConfigError, match="did you mean 'pair'"):
        splits.drop_missing(source, ("pairs",))
    with pytest.raises(DataError, match="holds no rows"):
        splits.drop_missing(Texts(x=np.array([np.nan])))


def test_a_class_that_training_never_saw_is_an_error_that_names_it():
    train = ArraySource({"label": np.array([0, 1, 1])})
    test = ArraySource({"label": np.array([0, 2, 2])}, {"classes": ("a", "b", "c")})
    check_classes(train, {"valid": train})
    with pytest.raises(DataError, match="'test' holds 2 rows of class 'c', which training never saw"):
        check_classes(train, {"valid": train, "test": test})


def test_the_fingerprint_is_the_meta_s_or_a_hash_that_every_value_changes():
    assert fingerprint(make_source(fingerprint="known")) == "known"
    rows = CHUNK + 5
    base = {"x": np.arange(rows), "text": np.array([f"t{i}" for i in range(rows)], object)}
    found = {fingerprint(Texts(**base)), fingerprint(Texts(**{n: base[n].copy() for n in ("text", "x")}))}
    assert len(found) == 1
    for field, row, value in (("x", rows - 1, 7), ("x", 0, 7), ("text", 9, "t"), ("text", rows - 1, None)):
        changed = {name: value.copy() for name, value in base.items()}
        changed[field][row] = value
        found.add(fingerprint(Texts(**changed)))
    found.add(fingerprint(Texts(y=base["x"], text=base["text"])))
    found.add(fingerprint(Texts(x=base["x"].astype(np.int32), text=base["text"])))
    assert len(found) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "trian"}, "did you mean 'train'"),
        ({"by": "strat"}, "did you mean 'stratified'"),
        ({"fractions": (("train", 0.9), ("valid", 0.2))}, "at most 1"),
        ({"fractions": (("train", 0.9), ("train", 0.1))}, "different names"),
        ({"fractions": (("train", 0.0),)}, "positive"),
        ({"fractions": (0.5, 0.5)}, "expected pairs"),
        ({"fractions": ()}, "different names"),
    ],
)
def test_a_bad_setting_is_an_error(arguments, message):
    with pytest.raises(ConfigError, match=message):
        splits.part(make_source(), **arguments)


@pytest.mark.parametrize("arguments", [{"fold": 5}, {"fold": -1}, {"folds": 1}, {"part": "test"}])
def test_a_fold_that_does_not_exist_is_an_error(arguments):
    with pytest.raises(ConfigError, match="fold: "):
        splits.fold(make_source(), **arguments)


def test_data_that_cannot_be_split_so_is_an_error():
    few = ArraySource({"x": np.arange(4), "group": np.zeros(4), "time": np.zeros(4)})
    with pytest.raises(DataError, match=r"leaves 'valid' empty|leaves 'test' empty"):
        splits.part(few, "train")
    with pytest.raises(DataError, match="into 3 parts: there are only 1 groups"):
        splits.part(few, "train", by="grouped")
    with pytest.raises(DataError, match="leaves 'train' empty"):
        splits.part(few, "train", by="time")
    with pytest.raises(DataError, match="no field 'label'"):
        splits.part(few, "train", by="stratified")
    with pytest.raises(DataError, match="expected one"):
        splits.part(make_source(), by="stratified", field="x")
    with pytest.raises(DataError, match="2 values are missing, first in row 1"):
        splits.part(Texts(time=np.array([1, np.nan, 3, np.nan])), by="time")
    with pytest.raises(DataError, match="leaves 'fold 4' empty"):
        splits.fold(few, 0, 5)
