"""Mapped arrays give the rows of the arrays in memory, also in other processes, and cost no memory of their own."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import memmap_source
from jaxlab.data.arrays import ArraySource
from jaxlab.data.feeding import feed
from jaxlab.data.pipeline import Batches

N = 50
GENERATOR = np.random.default_rng(0)
ARRAYS = {
    "image": GENERATOR.integers(0, 256, (N, 4, 3, 2)).astype(np.uint8),
    "size": GENERATOR.normal(size=N),
    "label": GENERATOR.integers(0, 3, N),
    "new": GENERATOR.integers(0, 2, N).astype(bool),
}
CLASSES = ("a", "b", "c")


@pytest.fixture
def folder(tmp_path):
    for name, value in ARRAYS.items():
        np.save(tmp_path / f"{name}.npy", value)
    return tmp_path


def test_rows_and_spec_are_those_of_the_same_arrays_in_memory(folder):
    found, expected = memmap_source.make(str(folder), CLASSES), ArraySource(ARRAYS)
    assert found.spec.example == expected.spec.example
    assert found.spec.classes == CLASSES
    assert len(found) == N
    indices = GENERATOR.integers(0, N, 33)
    for name, value in expected.__getitems__(indices).items():
        rows = found.__getitems__(indices)[name]
        assert rows.dtype == value.dtype
        assert not isinstance(rows, np.memmap)
        np.testing.assert_array_equal(rows, value)


def test_an_array_in_columns_first_order_gives_the_same_rows(folder):
    np.save(folder / "image.npy", np.asfortranarray(ARRAYS["image"]))
    rows = memmap_source.make(str(folder)).__getitems__(np.array([7, 0]))
    np.testing.assert_array_equal(rows["image"], ARRAYS["image"][[7, 0]])


def test_a_pickle_holds_paths_and_no_rows_and_reads_the_same(folder):
    np.save(folder / "image.npy", np.zeros((N, 1000), np.uint8))
    source = memmap_source.make(str(folder))
    expected = source.__getitems__(np.arange(N))
    written = pickle.dumps(source)
    assert len(written) < 5_000
    for name, value in pickle.loads(written).__getitems__(np.arange(N)).items():
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.slow
def test_worker_processes_give_the_batches_that_this_process_gives(folder):
    batches = Batches(memmap_source.make(str(folder)), (), 8, 0, training=True)
    alone, shared = (list(feed(batches, first=0, last=6, chunk=2, put=dict, workers=w)) for w in (0, 2))
    for (step, one), (other_step, two) in zip(alone, shared, strict=True):
        assert step == other_step
        for name, value in one.items():
            np.testing.assert_array_equal(two[name], value)


def test_the_fingerprint_changes_with_names_and_values_and_not_with_place_or_time(folder, tmp_path_factory):
    def fingerprint(path):
        return memmap_source.make(str(path)).spec.meta["fingerprint"]

    other = tmp_path_factory.mktemp("other")
    for name, value in ARRAYS.items():
        np.save(other / f"{name}.npy", value)
    first = fingerprint(folder)
    assert fingerprint(other) == first
    changed = ARRAYS["size"].copy()
    changed[-1] += 1
    np.save(folder / "size.npy", changed)
    assert fingerprint(folder) != first
    (other / "size.npy").rename(other / "weight.npy")
    assert fingerprint(other) != first


def test_reading_does_not_keep_what_was_read_in_this_process_s_own_memory(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((200_000, 1000), np.uint8))  # 200 MB
    program = f"""
import pathlib, re, numpy as np
from jaxlab.data import memmap_source
def anonymous(): return int(re.search(r"RssAnon:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
source = memmap_source.make({str(tmp_path)!r})
source.__getitems__(np.arange(100))
before = anonymous()
for start in range(0, 200_000, 500): source.__getitems__(np.arange(start, start + 500))
print(anonymous() - before)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert int(run.stdout) < 20_000  # kB


def save(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("size.npy", save(np.arange(3)), "equally long and not empty; .*'size': 3"),
        ("size.npy", b"no numbers", "size.npy: not a readable .npy file"),
        ("size.npy", b"", "size.npy: not a readable .npy file"),
        ("size.npy", save(ARRAYS["image"])[:300], "size.npy: not a readable .npy file"),
        ("size.npy", save(np.array(["a"] * N)), "size.npy: holds <U1"),
        ("size.npy", save(np.array([None] * N)), "size.npy: not a readable .npy file"),
        ("size.npy", save(np.arange(N).astype(">i4")), "size.npy: holds >i4"),
        ("size.npy", save(np.float32(1)), r"size.npy: holds float32 of shape \(\)"),
        ("id.npy", save(np.arange(N)), "'id' is a name of a batch's own field"),
        ("label.npy", save(np.arange(N) // 49 * 3), "label.npy: row 49 is 3; 3 classes are given, 0 to 2"),
        ("label.npy", save(np.zeros(N)), "label.npy: float64 .*; expected one integer a row"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        memmap_source.make(str(folder), CLASSES)


def test_a_value_too_large_for_jax_s_integers_is_an_error_and_not_another_value(folder):
    np.save(folder / "count.npy", np.full(N, 2**31))
    with pytest.raises(DataError, match=r"count.npy: values from 2147483648 .* do not fit int32"):
        memmap_source.make(str(folder)).__getitems__(np.arange(2))


def test_a_path_that_is_no_folder_of_arrays_is_an_error(folder, tmp_path_factory):
    with pytest.raises(ConfigError, match=r"size.npy' is a file; expected a folder"):
        memmap_source.make(str(folder / "size.npy"))
    with pytest.raises(DataError, match=f"no folder .*; did you mean '{folder.name}'"):
        memmap_source.make(f"{folder}x")
    with pytest.raises(DataError, match=r"holds no .npy file; save each field with numpy.save"):
        memmap_source.make(str(tmp_path_factory.mktemp("empty")))
    (folder / "label.npy").unlink()
    with pytest.raises(DataError, match=r"no label.npy among image.npy, new.npy, size.npy"):
        memmap_source.make(str(folder), CLASSES)
