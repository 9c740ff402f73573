"""A mixture is its sources end to end; drawing by its row weights gives each source its share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import mixture
from jaxlab.data.arrays import ArraySource
from jaxlab.data.column_source import ColumnSource


def source(size, offset=0, **meta):
    return ArraySource({"x": np.arange(size, dtype=np.float32) + offset, "y": np.ones((size, 2), np.uint8)}, meta)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_rows_are_those_of_the_sources_one_after_the_other(sizes, random):
    sources = tuple(source(size, 100 * place) for place, size in enumerate(sizes))
    mixed = mixture.make(sources)
    assert len(mixed) == sum(sizes)
    indices = np.array([random.randrange(len(mixed)) for _ in range(20)])
    rows = mixed.__getitems__(indices)
    whole = np.concatenate([one.__getitems__(np.arange(len(one)))["x"] for one in sources])
    np.testing.assert_array_equal(rows["x"], whole[indices])
    np.testing.assert_array_equal(rows["source"], whole[indices].astype(int) // 100)
    assert {name: (value.shape[1:], value.dtype) for name, value in rows.items()} == {
        name: (example.shape, example.dtype) for name, example in mixed.spec.example.items()
    }


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0.01, 100)), min_size=1, max_size=4))
def test_row_weights_give_each_source_its_share_and_its_rows_equal_parts(parts):
    sizes, weights = zip(*parts, strict=True)
    mixed = mixture.make(tuple(map(source, sizes)), weights)
    which = mixed.__getitems__(np.arange(len(mixed)))["source"]
    totals = np.bincount(which, mixed.row_weights)
    np.testing.assert_allclose(totals, np.array(weights) / sum(weights))
    for place, size in enumerate(sizes):
        np.testing.assert_allclose(mixed.row_weights[which == place], totals[place] / size)
    assert [part["share"] for part in mixed.spec.meta["sources"]] == pytest.approx(totals)


def test_without_weights_every_row_is_drawn_equally_often_and_weight_0_draws_none():
    np.testing.assert_allclose(mixture.make((source(3), source(5))).row_weights, 1 / 8)
    assert mixture.make((source(1), source(2)), (1, 0)).row_weights.tolist() == [1, 0, 0]


def test_a_source_s_own_row_weights_keep_their_ratio():
    class Weighted(ArraySource):
        row_weights = np.array([1.0, 3.0])

    class Unweighted(ArraySource):
        row_weights = None

    mixed = mixture.make((Weighted({"x": np.arange(2)}), Unweighted({"x": np.arange(1)})), (1, 1))
    np.testing.assert_allclose(mixed.row_weights, [0.125, 0.375, 0.5])


def test_facts_are_kept_where_the_sources_agree_and_each_source_is_described():
    one = source(2, name="a", classes=("u", "v"), split="train", fingerprint="1")
    two = source(3, name="b", classes=("u", "v"), fingerprint="2")
    meta = mixture.make((one, two), (1, 3)).spec.meta
    described = ({"name": "a", "size": 2, "share": 0.25}, {"name": "b", "size": 3, "share": 0.75})
    assert {**meta, "fingerprint": None} == {
        "name": "a+b", "classes": ("u", "v"), "fingerprint": None, "sources": described,
    }  # fmt: skip
    assert meta["fingerprint"] != mixture.make((two, one)).spec.meta["fingerprint"]
    assert "fingerprint" not in mixture.make((one, source(3, classes=("u", "v")))).spec.meta


def test_texts_are_mixed_too():
    mixed = mixture.make(tuple(ColumnSource({"x": np.array(texts, object)}) for texts in (["a", None], ["c"])))
    assert mixed.__getitems__(np.array([2, 1, 0]))["x"].tolist() == ["c", None, "a"]


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (-1, 2), (0, 0), (float("nan"), 1), (float("inf"), 1)])
def test_impossible_weights_are_an_error(weights):
    with pytest.raises(ConfigError, match=r"weights=.*: expected 2 numbers, one a source"):
        mixture.make((source(2), source(2)), weights)


def test_no_source_is_an_error():
    with pytest.raises(ConfigError, match="at least one source"):
        mixture.make(())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"x": np.zeros(2, np.float32)}, "field 'y' is in source 0 and not in source 1"),
        ({"x": np.zeros(2, np.float32), "y": np.ones((2, 2), np.uint8), "z": np.ones(2)}, "field 'z' is in source 1"),
        ({"x": np.zeros(2, np.int32), "y": np.ones((2, 2), np.uint8)}, r"'x' is float32\[\] in .* 0 and int32\[\]"),
        ({"x": np.zeros(2, np.float32), "y": np.ones((2, 3), np.uint8)}, r"'y' is uint8\[2\] in .* and uint8\[3\]"),
    ],
)
def test_sources_of_different_fields_are_an_error_that_names_the_field(fields, message):
    with pytest.raises(DataError, match=message):
        mixture.make((source(2), ArraySource(fields)))


def test_sources_of_different_classes_are_an_error_and_so_is_a_field_of_the_mixture_s_name():
    with pytest.raises(DataError, match=r"source 0 has the classes \('u',\) and source 1 \('v',\)"):
        mixture.make((source(2, classes=("u",)), source(2, classes=("v",))))
    with pytest.raises(DataError, match="a field 'source', which is the mixture's own"):
        mixture.make((mixture.make((source(2),)),))
