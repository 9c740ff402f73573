"""Rows transformed once are those that would be transformed each time, and are found again by what made them."""

import numpy as np
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.data import cache, images, table_numeric, tokenize
from jaxlab.data.arrays import ArraySource, in_memory
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.fitting import Transformed, fit_all
from jaxlab.data.precomputed import Precomputed, code_of

TEXTS = ("the cat", "", "naïve 🙂", "a mat", "the end")


def texts(words=TEXTS):
    column = np.empty(len(words), object)
    column[:] = words
    return ColumnSource({"text": column, "label": np.arange(len(words))}, {"name": "words", "classes": ("a", "b")})


def tokenised(source):
    return fit_all((tokenize.byte(length=8),), source, None).transforms


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


class Counting:
    """Counts the rows that go through a transform."""

    def __init__(self, transform):
        self.transform, self.rows = transform, 0

    def __call__(self, fields, randomness):
        self.rows += len(fields["label"])
        return self.transform(fields, randomness)


def test_rows_are_those_of_transforming_each_time_and_are_computed_once_ever():
    source = texts()
    (transform,) = tokenised(source)
    counting = Counting(transform)
    expected = Transformed(source, (transform,), {})
    for _ in range(2):  # a second run
        found = Precomputed(source, (counting,), ["byte"])
        assert found.spec == expected.spec
        assert in_memory(found)
        for indices in ([3, 0, 0], [1], [4, 2]):
            rows, wanted = (x.__getitems__(np.array(indices)) for x in (found, expected))
            assert rows.keys() == wanted.keys()
            for name, values in wanted.items():
                np.testing.assert_array_equal(rows[name], values)
                assert rows[name].dtype == values.dtype
    assert counting.rows == len(TEXTS) + 2  # every row once, and the first for the spec of each run


def test_nothing_is_read_before_a_row_is_asked_for(own_cache):
    found = Precomputed(texts(), tokenised(texts()), ["byte"])
    assert len(found) == len(TEXTS)
    assert not list(own_cache.iterdir())
    found.__getitems__(np.arange(2))
    assert len(list((own_cache / "jaxlab/precomputed").iterdir())) == 1


@pytest.mark.parametrize(("words", "facts"), [((*TEXTS[:-1], "the End"), ["byte"]), (TEXTS, ["byte", 2])])
def test_other_rows_or_transforms_are_computed_anew(own_cache, words, facts):
    for source, given in ((texts(), ["byte"]), (texts(words), facts)):
        rows = Precomputed(source, tokenised(source), given).__getitems__(np.arange(len(words)))
        wanted = Transformed(source, tokenised(source), {}).__getitems__(np.arange(len(words)))
        np.testing.assert_array_equal(rows["tokens"], wanted["tokens"])
    assert len(list((own_cache / "jaxlab/precomputed").iterdir())) == 2


def test_a_transform_that_draws_is_refused_by_name(own_cache):
    pictures = ArraySource({"image": np.zeros((4, 6, 6, 1), np.uint8), "label": np.arange(4)})
    found = Precomputed(pictures, (images.rescale(), images.random_shift(pixels=1)), [])
    with pytest.raises(ConfigError, match=r"transforms\[1\] draws random numbers.*precomputed=1"):
        found.__getitems__(np.arange(2))
    assert not list(own_cache.rglob("manifest.json"))


def test_missing_texts_come_back_missing():
    source = texts(("a", None, ""))
    rows = Precomputed(source, (lambda fields, _: fields,), []).__getitems__(np.arange(3))
    assert rows["text"].tolist() == ["a", None, ""]


def test_the_code_of_a_transform_is_that_of_its_module():
    assert "def scale" in code_of(table_numeric.scale)
    assert code_of(table_numeric.scale) != code_of(tokenize.byte)
    assert cache.key_of(code_of(len)) == cache.key_of("")
