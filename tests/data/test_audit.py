"""The audit: each planted defect is found, and nothing else; clean data has none; pairs as brute force finds them."""

import numpy as np
import pandas as pd
import pytest

from jaxlab.data.arrays import ArraySource
from jaxlab.data.audit import images as audit_images
from jaxlab.data.audit import rows as audit_rows
from jaxlab.data.audit import table as audit_table
from jaxlab.data.audit import text as audit_text
from jaxlab.data.audit.pairs import overlaps
from jaxlab.data.audit.survey import survey
from jaxlab.data.audit.verdict import judge
from jaxlab.data.column_source import ColumnSource

ROWS = {"train": 400, "valid": 120, "test": 120}
CLASSES = ("cat", "dog", "owl")
WORDS = [f"{a}{b}" for a in ("ba", "ke", "li", "mo", "su", "tra", "vel", "zun") for b in ("n", "rt", "sko", "lim", "p")]


def table(rows, rng):
    label = rng.integers(0, 3, rows).astype(np.int32)
    return {
        "length": (rng.normal(size=rows) + label).astype(np.float32),
        "weights": rng.normal(size=(rows, 3)).astype(np.float32),
        "count": rng.integers(0, 9, rows).astype(np.int32),
        "colour": rng.choice(np.array(["red", "blue", "green"], object), rows),
        "label": label,
    }


def photos(rows, rng):
    """Return smooth random images of 20 x 24 in three colours."""
    waves = rng.normal(size=(rows, 5, 5, 3)).repeat(4, axis=1).repeat(5, axis=2)[:, :, :24]
    waves = waves + np.roll(waves, 2, axis=1) + np.roll(waves, 2, axis=2)
    return {
        "image": np.clip(waves * 40 + 128, 0, 255).astype(np.uint8),
        "label": (np.arange(rows) % 3).astype(np.int32),
    }


def sentences(rows, rng):
    texts = np.array([" ".join(rng.choice(WORDS, 40)) for _ in range(rows)], object)
    return {"text": texts, "label": rng.integers(0, 3, rows).astype(np.int32)}


def splits_of(make, seed=0):
    rng = np.random.default_rng(seed)
    return {split: make(rows, rng) for split, rows in ROWS.items()}


def audited(data, target="label", classes=CLASSES, test_labels=False, **options):
    sources = {split: ColumnSource(fields, {"classes": classes}) for split, fields in data.items()}
    surveys = []
    for split, source in sources.items():
        read = test_labels or split != "test"
        kinds = surveys[0].kinds if surveys else None
        surveys.append(survey(source, split, target=target, read_target=read, kinds=kinds, **options))
    shared = overlaps(surveys, sources)
    return judge(surveys, shared, target), surveys, shared


def codes(verdict):
    return {(f.level, f.code, f.split) for f in verdict.findings}


@pytest.mark.parametrize("make", [table, photos, sentences])
@pytest.mark.parametrize("seed", range(3))
def test_clean_data_has_no_findings_and_no_drops(make, seed):
    verdict, _, shared = audited(splits_of(make, seed), test_labels=True)
    assert verdict.findings == ()
    assert verdict.drops == {split: {} for split in ROWS}
    assert shared == []


def copied(fields, rows, origin, origin_rows, but=()):
    for name in fields:
        if name not in but:
            fields[name][rows] = origin[name][origin_rows]


def plant_missing(data):
    data["train"]["weights"][[3, 7], 1] = np.nan


def plant_missing_category(data):
    data["valid"]["colour"][5] = None


def plant_infinite(data):
    data["test"]["length"][0] = np.inf


def plant_constant(data):
    for fields in data.values():
        fields["weights"][:, 2] = 4


def plant_constant_category(data):
    for fields in data.values():
        fields["colour"][:] = "red"


def plant_equal(data):
    for fields in data.values():
        fields["again"] = fields["count"].astype(np.float32)


def plant_equal_categories(data):
    for fields in data.values():
        fields["again"] = fields["colour"].copy()


def plant_duplicates(data):
    copied(data["train"], slice(10, 14), data["train"], slice(20, 24))


def plant_test_duplicates(data):
    copied(data["test"], slice(10, 14), data["test"], slice(20, 24), but=("label",))


def plant_overlap(data):
    copied(data["train"], slice(0, 5), data["test"], slice(50, 55), but=("label",))


def plant_conflict(data):
    copied(data["train"], 1, data["train"], 2)
    data["train"]["label"][1] = (data["train"]["label"][2] + 1) % 3


def plant_outside(data):
    data["valid"]["label"][8] = 3


def plant_unseen(data):
    data["train"] = {name: values[data["train"]["label"] != 1] for name, values in data["train"].items()}


def plant_imbalance(data):
    for fields in data.values():
        fields["label"][:] = np.where(np.arange(len(fields["label"])) % 20 == 0, 0, fields["label"] % 2 + 1)


def plant_unlike(data):
    data["valid"]["label"][:80] = 0


def plant_leak(data):
    for fields in data.values():
        fields["hint"] = np.float32([7.5, -2.0, 3.25])[fields["label"]] + 0.01 * fields["length"]


def plant_leak_and_wrong_labels(data):
    plant_leak(data)
    copied(data["train"], slice(0, 30), data["train"], slice(30, 60))
    data["train"]["label"][:30] = (data["train"]["label"][30:60] + 1) % 3


def plant_swap(data):
    data["train"], data["test"] = data["test"], data["train"]


def plant_category_leak(data):
    for fields in data.values():
        fields["colour"] = np.array(["red", "blue", "green"], object)[fields["label"]]


def plant_missingness_leak(data):
    for fields in data.values():
        fields["label"] %= 2
        fields["length"][fields["label"] == 1] = np.nan


PLANTED = [
    (plant_missing, {("warning", "missing", "train")}),
    (plant_missing_category, {("warning", "missing", "valid")}),
    (plant_infinite, {("warning", "infinite", "test")}),
    (plant_constant, {("warning", "constant", "train")}),
    (plant_constant_category, {("warning", "constant", "train")}),
    (plant_equal, {("warning", "equal_columns", "train")}),
    (plant_equal_categories, {("warning", "equal_columns", "train")}),
    (plant_duplicates, {("warning", "duplicates", "train")}),
    (plant_test_duplicates, {("warning", "duplicates", "test")}),
    (plant_overlap, {("error", "overlap", "test")}),
    (plant_conflict, {("warning", "conflict", "train")}),
    (plant_outside, {("error", "outside", "valid")}),
    (plant_unseen, {("warning", "class_empty", "train"), ("error", "unseen_class", "valid")}),
    (plant_imbalance, {("warning", "imbalance", "train")}),
    (plant_unlike, {("warning", "unlike_classes", "valid")}),
    (plant_leak, {("error", "leak", "train")}),
    (plant_leak_and_wrong_labels, {("error", "leak", "train"), ("warning", "conflict", "train")}),
    (plant_swap, {("warning", "larger", "test")}),
    (plant_category_leak, {("error", "leak", "train")}),
    (plant_missingness_leak, {("error", "leak", "train"), ("warning", "class_empty", "train"),
                              *(("warning", "missing", split) for split in ROWS)}),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "expected"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_each_defect_of_a_table_is_found_and_nothing_else(plant, expected):
    data = splits_of(table)
    plant(data)
    verdict, _, _ = audited(data)
    assert codes(verdict) == expected
    assert verdict.drops["test"] == {}


def test_the_drops_are_the_planted_rows_by_reason():
    data = splits_of(table)
    plant_duplicates(data)
    plant_overlap(data)
    plant_conflict(data)
    data["valid"]["label"] = data["valid"]["label"].astype(np.float32)
    data["valid"]["label"][[4, 9]] = 5, np.nan
    drops = audited(data)[0].drops
    assert {split: {why: rows.tolist() for why, rows in reasons.items()} for split, reasons in drops.items()} == {
        "train": {"duplicate": [20, 21, 22, 23], "conflict": [1, 2], "overlap_test": [0, 1, 2, 3, 4]},
        "valid": {"outside": [4], "target_missing": [9]},
        "test": {},
    }


@pytest.mark.parametrize("label", [np.nan, np.inf])
def test_a_missing_number_to_predict_is_an_error_and_does_not_count_as_a_class(label):
    data = splits_of(table)
    for fields in data.values():
        fields["target"] = fields.pop("label") + np.random.default_rng(1).normal(size=len(fields["count"]))
    data["train"]["target"][4] = label
    verdict, _, _ = audited(data, target="target", classes=())
    assert codes(verdict) == {("error", "target_missing", "train")}
    assert verdict.drops["train"]["target_missing"].tolist() == [4]


def test_what_is_found_does_not_depend_on_test_labels_unless_they_are_asked_for():
    data = splits_of(table)
    before = audited(data)[0]
    data["test"]["label"][:] = 7
    assert audited(data)[0] == before
    surveys = audited(data)[1]
    assert surveys[2].target is None
    assert codes(audited(data, test_labels=True)[0]) == {("error", "outside", "test")}


def test_a_class_that_only_test_has_is_found_when_its_labels_are_read():
    data = splits_of(table)
    for split in ("train", "valid"):
        data[split]["label"] %= 2
    data["test"]["label"][0] = 2
    assert ("error", "unseen_class", "test") not in codes(audited(data)[0])
    assert ("error", "unseen_class", "test") in codes(audited(data, test_labels=True)[0])


def test_texts_as_classes_are_known_by_name():
    data = splits_of(table)
    for fields in data.values():
        fields["label"] = np.array(CLASSES, object)[fields["label"]]
    assert audited(data)[0].findings == ()
    data["valid"]["label"][3] = "emu"
    verdict, _, _ = audited(data)
    assert codes(verdict) == {("error", "outside", "valid")}
    assert "emu" in verdict.findings[0].message


def test_a_row_number_that_is_ignored_does_not_hide_equal_rows():
    data = splits_of(table)
    plant_duplicates(data)
    for fields in data.values():
        fields["row"] = np.arange(len(fields["label"]), dtype=np.int32)
    assert codes(audited(data)[0]) == set()
    assert codes(audited(data, ignore=("row",))[0]) == {("warning", "duplicates", "train")}


def test_of_a_larger_split_a_sample_is_looked_at_which_says_so_and_names_the_sources_rows():
    data = splits_of(table)
    data["train"]["length"][100:] = data["train"]["length"][0]
    data["train"]["weights"][100:] = data["train"]["weights"][0]
    data["train"]["count"][100:] = 1
    data["train"]["colour"][100:] = "red"
    data["train"]["label"][100:] = 1
    verdict, surveys, _ = audited(data, max_rows=200)
    assert len(surveys[0].rows) == 200 == len(np.unique(surveys[0].rows))
    assert ("note", "sampled", "train") in codes(verdict)
    assert verdict.drops["train"]["duplicate"].min() > 100


@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_of_images_across_splits_are_found_and_only_they(seed):
    data = splits_of(photos, seed)
    rng = np.random.default_rng(seed)
    near = data["test"]["image"][10:20] * 0.9 + rng.normal(0, 3, (10, 20, 24, 3))
    data["train"]["image"][30:40] = np.clip(near, 0, 255).astype(np.uint8)
    data["valid"]["image"][3] = data["test"]["image"][5]
    verdict, _, shared = audited(data)
    assert codes(verdict) == {("error", "overlap", "test"), ("warning", "near_overlap", "test")}
    pairs = {(o.left, o.field): o.pairs.tolist() for o in shared}
    planted = [[30 + i, 10 + i] for i in range(10)]
    assert all(pair in planted for pair in pairs["train", "image"])
    assert len(pairs["train", "image"]) >= 9
    assert pairs["valid", None] == [[3, 5]]


def test_blank_and_incomplete_images_are_found():
    data = splits_of(photos)
    data["train"]["image"][4] = 9
    assert codes(audited(data)[0]) == {("warning", "blank", "train")}
    data = splits_of(photos)
    for fields in data.values():
        fields["image"] = fields["image"].astype(np.float32)
    data["valid"]["image"][2, 5, 5, 0] = np.nan
    assert codes(audited(data)[0]) == {("warning", "missing", "valid")}


def test_near_duplicates_of_texts_across_splits_are_found_and_only_they():
    data = splits_of(sentences)
    for i in range(10):
        words = data["test"]["text"][i].split()
        words[7] = "changed"
        data["train"]["text"][50 + i] = "  ".join(words).upper()
    data["train"]["text"][90] = ""
    data["valid"]["text"][1] = None
    verdict, _, shared = audited(data)
    assert codes(verdict) == {
        ("warning", "near_overlap", "test"), ("warning", "blank", "train"), ("warning", "missing", "valid"),
    }  # fmt: skip
    assert shared[0].pairs.tolist() == [[50 + i, i] for i in range(10)]
    assert verdict.drops["train"]["near_overlap_test"].tolist() == list(range(50, 60))


def jaccard(one, other):
    return audit_text.jaccard(*audit_text.window_sets([one, other]))


@pytest.mark.parametrize("seed", range(3))
def test_texts_of_similarity_eight_tenths_are_found_as_brute_force_does(seed):
    rng = np.random.default_rng(seed)
    one = [" ".join(rng.choice(WORDS, 60)) for _ in range(150)]
    other = []
    for text in one:
        words = text.split()
        for place in rng.choice(60, rng.integers(0, 8), replace=False):
            words[place] = rng.choice(WORDS)
        other.append(" ".join(words))
    true = {(i, j): jaccard(a, b) for i, a in enumerate(one) for j, b in enumerate(other) if abs(i - j) < 3}
    found = set(map(tuple, audit_text.near_pairs(audit_text.signatures(one), audit_text.signatures(other)).tolist()))
    similar = {pair for pair, value in true.items() if value >= 0.8}
    assert len(similar) > 50
    assert len(similar & found) >= 0.95 * len(similar)
    border = {pair for pair, value in true.items() if 0.78 <= value < 0.84}
    assert len(border & found) >= 0.9 * len(border)
    assert all(jaccard(one[i], other[j]) > 0.3 for i, j in found)
    assert len(found) < 0.02 * len(one) * len(other)


def test_the_similarity_is_that_of_the_sets_of_windows():
    one, other = "The  quick brown fox", "the quick\nbrown dog jumps"
    sets = [{t[i : i + 5] for i in range(len(t) - 4)} for t in ("the quick brown fox", "the quick brown dog jumps")]
    assert jaccard(one, other) == len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert jaccard("abc", "ABC ") == 1
    assert jaccard("", "") == 1
    assert len(audit_text.signatures([])) == 0


def test_short_and_empty_texts_are_near_nothing():
    texts = ["", "ok", "I like it.", "\ud800 lone surrogate"]
    marks = audit_text.signatures(texts)
    assert audit_text.near_pairs(marks[:3], marks[:3]).shape == (0, 2)


@pytest.mark.parametrize("distance", [0, 1, 3, 6])
def test_hashes_within_a_distance_are_found_as_brute_force_does(distance):
    rng = np.random.default_rng(distance)
    left = rng.integers(0, 2**63, 300, np.uint64)
    right = np.concatenate([left[:200], rng.integers(0, 2**63, 100, np.uint64)])
    for place in range(200):
        for bit in rng.choice(64, rng.integers(0, 9), replace=False):
            right[place] ^= np.uint64(1) << np.uint64(bit)
    brute = np.argwhere(np.bitwise_count(left[:, None] ^ right[None]) <= distance)
    assert audit_images.hamming_pairs(left, right, distance).tolist() == brute.tolist()
    assert len(brute) > 10


def test_a_resized_copy_is_near_and_other_colours_are_not_the_same_image():
    rng = np.random.default_rng(0)
    image = photos(40, rng)["image"]
    larger = image.repeat(2, axis=1).repeat(2, axis=2)
    one, other = audit_images.fingerprint(image), audit_images.fingerprint(list(larger))
    assert audit_images.near_pairs(one, other).tolist() == [[i, i] for i in range(40)]
    heart = np.zeros((1, 20, 24, 3), np.uint8)
    heart[:, 5:15, 5:15, 0] = 200
    assert audit_images.correlation(heart, heart[..., ::-1])[0] < audit_images.SIMILAR
    assert audit_images.correlation(heart, heart // 2)[0] == pytest.approx(1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int32, bool])
@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_rows_have_equal_hashes_where_pandas_says_that_they_are_duplicates(dtype, shape):
    values = np.random.default_rng(0).integers(0, 2 if dtype is bool else 3, (200, *shape)).astype(dtype)
    if np.dtype(dtype).kind == "f":
        values[values == 1] = np.nan
        values[values == 0] *= -1
    frame = pd.DataFrame(values.reshape(200, -1)) + 0  # -0 and 0 are one
    expected = np.flatnonzero(frame.duplicated())
    assert audit_rows.repeated(audit_rows.hash_rows(values)).tolist() == expected.tolist()


def test_all_pairs_of_equal_keys_come_even_where_they_are_many():
    left, right = np.array([5, 1, 5, 2], np.uint64), np.array([5, 2, 5, 9], np.uint64)
    pairs = audit_rows.unique_pairs(list(audit_rows.equal_pairs(left, right)))
    assert pairs.tolist() == [[0, 0], [0, 2], [2, 0], [2, 2], [3, 1]]
    same = np.zeros(2000, np.uint64)
    assert sum(len(i) for i, _ in audit_rows.equal_pairs(same, same)) == 4_000_000
    assert sum(len(i) for i, _ in audit_rows.equal_pairs(same, same, most=3)) == 6000


def test_ranges_are_those_of_pandas():
    values = np.random.default_rng(0).normal(size=1000)
    values[::7] = np.nan
    told, series = audit_table.describe(values), pd.Series(values)
    assert (told["min"], told["max"], told["missing"]) == (series.min(), series.max(), series.isna().sum())
    assert (told["mean"], told["std"]) == pytest.approx((series.mean(), series.std(ddof=0)))
    for q, value in told["quantiles"].items():
        assert value == pytest.approx(series.quantile(float(q)))
    assert audit_table.describe(np.full(3, np.nan)) == {"missing": 3, "infinite": 0, "constant": False}
    assert audit_table.describe(np.zeros(3))["constant"]


def test_a_leak_is_seen_through_any_monotone_or_periodic_disguise_and_noise_is_not_one():
    rng = np.random.default_rng(0)
    y = rng.exponential(size=3000)
    columns = {"log": np.log(y), "minus": -y, "noisy": y + rng.normal(size=3000), "noise": rng.normal(size=3000)}
    assert set(audit_table.leaks(columns, y, classes=False)) == {"log", "minus"}
    label = rng.integers(0, 4, 3000)
    columns = {
        "shuffled": np.array([3.0, 0, 2, 1])[label], "two": (label // 2).astype(float), "id": np.arange(3000.0),
        "name": np.array([f"n{i}" for i in range(3000)], object), "noise": rng.normal(size=3000),
    }  # fmt: skip
    assert audit_table.leaks(columns, label, classes=True) == {"shuffled": 1.0}


def test_a_rare_class_is_enough_to_find_its_leak_and_to_not_take_the_common_one_for_an_answer():
    rng = np.random.default_rng(0)
    label = (np.arange(20_000) < 100).astype(int)
    columns = {"leak": label + 0.1 * rng.normal(size=20_000), "noise": rng.normal(size=20_000)}
    assert set(audit_table.leaks(columns, label, classes=True)) == {"leak"}


def test_arrays_of_any_kind_are_surveyed():
    rng = np.random.default_rng(0)
    wide = ArraySource({"wide": rng.normal(size=(50, 2000)), "flag": rng.integers(0, 2, 50).astype(bool)})
    kinds = survey(wide, "train", target=None).kinds
    assert kinds == {"wide": "array", "flag": "columns"}


class Ragged:
    """Rows of unequal shapes, bytes and mappings, as a data set on disk gives them."""

    def __init__(self):
        stripes = np.arange(9)[:, None]
        self.rows = {
            "sequence": [np.arange(i % 5) for i in range(30)],
            "picture": [np.ones((9 + i, 9, 3)) * stripes for i in range(30)],
            "note": [b"caf\xc3\xa9"] * 30,
            "facts": [{"a": i} for i in range(30)],
        }
        self.spec = wide_spec(self.rows)

    def __len__(self):
        return 30

    def __getitems__(self, indices):
        fields = {}
        for name, values in self.rows.items():
            fields[name] = np.empty(len(indices), object)
            fields[name][:] = [values[i] for i in indices]
        return fields


def wide_spec(rows):
    import jax

    from jaxlab.core.types import DataSpec

    return DataSpec({name: jax.ShapeDtypeStruct((), np.dtype(object)) for name in rows}, 30, {})


def test_ragged_rows_have_lengths_and_pictures_of_all_sizes_are_images():
    found = survey(Ragged(), "train", target=None)
    assert found.kinds == {"sequence": "sequence", "picture": "image", "note": "category", "facts": "object"}
    assert found.fields["sequence"]["length"].tolist() == [i % 5 for i in range(30)]
    assert found.fields["note"]["values"][0] == "café"
    assert len(np.unique(found.key)) == 30
