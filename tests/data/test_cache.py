"""A cache gives what was computed, computes it once, and computes it again when its files are damaged."""

import itertools
import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxlab.data import cache
from jaxlab.data.cache import MANIFEST, key_of, ragged

DOCUMENTS = st.lists(hnp.arrays(np.int32, st.integers(0, 9), elements=st.integers(0, 99)), max_size=8)


def cached(key, make, folder, holds=lambda facts: True):
    arrays, facts = cache.cached([folder / key], lambda: (make(), {"a": 1}), holds)
    assert facts == {"a": 1}
    return arrays


class Maker:
    """Computes arrays and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        texts = np.array(["", "naïve", "x🙂\n"], object)
        flat = np.arange(5000, dtype=np.uint16)
        return {"flat": flat, "offsets": np.array([0, 3, 5000]), "none": np.zeros(0), "texts": texts}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name], value)


def test_the_second_time_nothing_is_computed_and_files_are_mapped(tmp_path):
    maker = Maker()
    for _ in range(3):
        found = cached("key", maker, tmp_path / "deep")
        assert_same(found, Maker()())
        assert isinstance(found["flat"], np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            found["flat"][0] = 1
    assert maker.calls == 1
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["key"]  # nothing unfinished stays
    cached("other", maker, tmp_path / "deep")
    assert maker.calls == 2


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "bit": lambda folder: flip(folder / "flat.npy"),
    "cut": lambda folder: (folder / "flat.npy").write_bytes((folder / "flat.npy").read_bytes()[:3000]),
    "empty": lambda folder: (folder / "offsets.npy").write_bytes(b""),
    "missing": lambda folder: (folder / "offsets.npy").unlink(),
    "manifest": lambda folder: (folder / MANIFEST).write_text("{"),
    "list": lambda folder: (folder / MANIFEST).write_text("[]"),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "other": lambda folder: np.save(folder / "flat.npy", np.arange(5000, dtype=np.int16)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_computed_anew_and_replaced(tmp_path, damage, caplog):
    maker = Maker()
    cached("key", maker, tmp_path)
    DAMAGE[damage](tmp_path / "key")
    with caplog.at_level(logging.WARNING):
        assert_same(cached("key", maker, tmp_path), Maker()())
    assert "computed anew" in caplog.text
    assert maker.calls == 2
    assert_same(cached("key", maker, tmp_path), Maker()())
    assert maker.calls == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_failure_while_computing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stopped"):
        cached("key", fail, tmp_path)
    assert list(tmp_path.iterdir()) == []


def fail():
    raise RuntimeError("stopped")


def test_where_nothing_can_be_written_the_arrays_are_given_with_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        found = cached("key", Maker(), tmp_path / "file" / "folder")
    assert_same(found, Maker()())
    assert "could not be kept" in caplog.text


def test_another_process_that_wrote_first_wins(tmp_path):
    def slow():
        cached("key", Maker(), tmp_path)
        return Maker()()

    assert_same(cached("key", slow, tmp_path), Maker()())
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_what_was_kept_is_computed_again_where_it_no_longer_holds(tmp_path):
    maker = Maker()
    cached("key", maker, tmp_path)
    assert_same(cached("key", maker, tmp_path, lambda facts: facts["a"] == 2), maker())
    assert maker.calls == 3


def test_the_second_place_is_taken_where_the_first_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    maker = Maker()
    for _ in range(2):
        arrays, _ = cache.cached([tmp_path / "file/a", tmp_path / "b"], lambda: (maker(), {}))
        assert_same(arrays, Maker()())
    assert maker.calls == 1
    assert not caplog.records


def test_fingerprints_tell_names_values_and_texts_apart():
    base = {"a": np.arange(3), "t": np.array(["ab", "c"], object)}
    others = [
        {**base, "a": np.arange(3.0)}, {**base, "a": np.arange(4)}, {"b": base["a"], "t": base["t"]},
        {**base, "t": np.array(["a", "bc"], object)},
    ]  # fmt: skip
    prints = [cache.fingerprint(arrays) for arrays in (base, *others)]
    assert len(set(prints)) == len(prints)
    assert cache.fingerprint(dict(reversed(base.items()))) == prints[0]


def test_keys_change_with_every_fact_and_not_with_the_order_of_a_mapping():
    facts = [("a", 1), ("a", 2), ("b", 1), ("a", "1"), ("a",), ("a", [1])]
    assert len({key_of(*fact) for fact in facts}) == len(facts)
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


@settings(max_examples=60, deadline=None)
@given(documents=DOCUMENTS)
def test_ragged_documents_come_back(documents):
    arrays = ragged(documents)
    bounds = itertools.pairwise(arrays["offsets"])
    assert [arrays["flat"][first:last].tolist() for first, last in bounds] == [d.tolist() for d in documents]
    assert arrays["offsets"][-1] == len(arrays["flat"])
    assert json.dumps(arrays["flat"].tolist()) == json.dumps([i for d in documents for i in d.tolist()])
