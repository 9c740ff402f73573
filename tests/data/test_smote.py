"""SMOTE adds rows between neighbours of a rare class, as imbalanced-learn does, and leaves the given rows alone."""

import sys

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import smote
from jaxlab.data.arrays import ArraySource

COUNTS = (60, 20, 10)


def make_source(counts=COUNTS, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    fields = {
        "x": generator.normal(labels * 5, 1),
        "pair": generator.normal(0, 1000, (len(labels), 2)),
        "group": np.arange(len(labels)),
        "label": labels,
    }
    return ArraySource(fields, {"classes": ("a", "b", "c"), "fingerprint": "known"})


def rows_of(source):
    return source.__getitems__(np.arange(len(source)))


def test_every_class_gets_as_many_rows_as_the_largest_and_the_given_rows_come_first_unchanged():
    source = make_source()
    grown = smote.make(source)
    given, found = rows_of(source), rows_of(grown)
    assert list(found) == ["x", "pair", "label"]
    assert np.bincount(found["label"]).tolist() == [60, 60, 60]
    for name, value in found.items():
        np.testing.assert_array_equal(value[:90], given[name])
        assert value.dtype == given[name].dtype
    assert grown.spec.meta["synthetic"] == {"a": 0, "b": 40, "c": 50}
    assert grown.spec.classes == ("a", "b", "c")


def test_a_ratio_brings_the_rare_classes_up_to_that_share_of_the_largest():
    assert np.bincount(rows_of(smote.make(make_source(), ratio=0.25))["label"]).tolist() == [60, 20, 15]


def test_new_rows_lie_between_two_rows_of_their_class():
    source = make_source()
    given, found = rows_of(source), rows_of(smote.make(source, neighbours=3))

    def points(fields):
        return np.column_stack([fields["x"], fields["pair"]]).astype(np.float64)

    for point, label in zip(points(found)[90:], found["label"][90:], strict=True):
        ends = points(given)[given["label"] == label]
        scale = points(given).std(0)
        starts = ends / scale
        from_start, along = point / scale - starts, starts[None] - starts[:, None]
        length = np.maximum((along**2).sum(-1), 1e-12)
        share = np.clip((from_start[:, None] * along).sum(-1) / length, 0, 1)
        distance = np.linalg.norm(from_start[:, None] - share[..., None] * along, axis=-1)
        assert distance.min() < 1e-5


@pytest.mark.parametrize("standardise", [True, False])
def test_the_rows_are_imbalanced_learn_s(standardise):
    source = make_source()
    given = rows_of(source)
    x = np.column_stack([given["x"], given["pair"]]).astype(np.float64)
    scale = x.std(0) if standardise else np.ones(3)
    expected, labels = SMOTE(random_state=4, k_neighbors=5).fit_resample(x / scale, given["label"])
    found = rows_of(smote.make(source, seed=4, standardise=standardise))
    np.testing.assert_array_equal(found["label"], labels)
    np.testing.assert_allclose(np.column_stack([found["x"], found["pair"]]), expected * scale, rtol=1e-4, atol=1e-3)


def test_the_seed_decides_the_rows_and_the_fingerprint_tells_them_apart():
    first, again, other = (smote.make(make_source(), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(rows_of(first)["x"], rows_of(again)["x"])
    assert not np.array_equal(rows_of(first)["x"], rows_of(other)["x"])
    assert first.spec.meta["fingerprint"] == again.spec.meta["fingerprint"] != other.spec.meta["fingerprint"]


def test_missing_values_are_refused():
    fields = dict(rows_of(make_source()))
    fields["x"] = np.where(np.arange(90) == 3, np.nan, fields["x"])
    with pytest.raises(DataError, match=r"column 'x': 1 values in 90 rows are missing .*drop_missing"):
        smote.make(ArraySource(fields))


def test_data_without_classes_or_with_too_few_rows_of_one_is_an_error():
    with pytest.raises(DataError, match="class 'c' has 5 rows, too few for neighbours=5"):
        smote.make(make_source((60, 20, 5)))
    with pytest.raises(DataError, match="only one class"):
        smote.make(make_source((60,)))
    with pytest.raises(DataError, match="expected one class a row"):
        smote.make(make_source(), columns=("pair",), label="x")
    with pytest.raises(DataError, match="no field 'lable'; did you mean 'label'"):
        smote.make(make_source(), label="lable")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"ratio": 0.0}, "ratio=0.0"), ({"neighbours": 0}, "neighbours=0"), ({"columns": ("pairs",)}, "mean 'pair'")],
)
def test_a_bad_setting_is_an_error(arguments, message):
    with pytest.raises(ConfigError, match=message):
        smote.make(make_source(), **arguments)


def test_without_imbalanced_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)  # what Python makes of a module that is not there
    with pytest.raises(ConfigError, match=r"pip install jaxlab\[imbalance\]"):
        smote.make(make_source())
