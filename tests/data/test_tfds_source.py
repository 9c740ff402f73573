"""A prepared data set reads back as it was generated: from memory, from the cache, from disk, in a worker."""

import pickle
import shutil
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data.overlap import check_disjoint
from jaxlab.data.tfds_source import CACHE, make

ROWS = 20
TEXTS = ["naïve", "", "日本語\n", "a\0b\0", "🙂", "z"]


class Tiny(tfds.core.GeneratorBasedBuilder):
    """Rows that are functions of their index and of `offset`, by which a test changes the content."""

    name = "tiny_of_source_test"
    VERSION = tfds.core.Version("1.0.0")
    offset = 0
    extra = False

    def _info(self):
        features = {
            "image": tfds.features.Tensor(shape=(2, 3), dtype=np.uint8),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
            "value": tfds.features.Scalar(np.float32),
            "count": tfds.features.Scalar(np.int64),
        }
        if self.extra:
            features |= {"text": tfds.features.Text(), "ragged": tfds.features.Sequence(np.int64)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, ROWS), "test": self._generate_examples(100, 5)}

    def _generate_examples(self, first, number):
        for i in range(first, first + number):
            row = {name: column[0] for name, column in expected(np.array([i]), self.offset).items()}
            if self.extra:
                row |= {"text": f"row {i}", "ragged": np.arange(i % 3)}
            yield i, row


class TinyText(tfds.core.GeneratorBasedBuilder):
    """Texts beside numbers; those of `bad` are no UTF-8."""

    name = "tiny_text_of_source_test"
    VERSION = tfds.core.Version("1.0.0")
    bad = ()

    def _info(self):
        features = {"text": tfds.features.Text(), "count": tfds.features.Scalar(np.int32)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, text in enumerate(TEXTS):
            yield i, {"text": b"caf\xe9" if i in self.bad else text, "count": i}


class TinyExtra(Tiny):
    """The same with fields that don't stack."""

    name = "tiny_extra_of_source_test"
    extra = True


def expected(i_N, offset=0):
    return {
        "image": (i_N[:, None, None] + np.arange(6).reshape(2, 3) + offset).astype(np.uint8),
        "label": (i_N % 2).astype(np.int32),
        "value": (i_N / 7).astype(np.float32),
        "count": (i_N**2).astype(np.int32),
    }


def write(root, builder_class=Tiny):
    tfds.disable_progress_bar()
    builder = builder_class(data_dir=str(root), file_format="array_record")
    builder.download_and_prepare(download_dir=str(root / "downloads"))
    return builder


def assert_rows(source, expected_rows):
    rows = source.__getitems__(np.arange(len(source)))
    assert len(source) == source.spec.size == len(expected_rows["label"])
    for name, values in expected_rows.items():
        np.testing.assert_array_equal(rows[name], values)
        assert rows[name].dtype == values.dtype == source.spec.example[name].dtype
        assert source.spec.example[name].shape == values.shape[1:]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A root that tests only read, apart from the cache."""
    root = tmp_path_factory.mktemp("tfds")
    write(root)
    write(root, TinyExtra)
    return root


@pytest.fixture
def no_decoding(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_data_source", fail)


@pytest.mark.parametrize("in_memory_bytes", [2**32, 0])
@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train", range(ROWS)),
        ("test", range(100, 105)),
        ("train[:90%]", range(18)),
        ("train[18:]+test[:2]", [18, 19, 100, 101]),
    ],
)
def test_rows_are_those_generated_in_order(prepared, split, rows, in_memory_bytes):
    source = make("tiny_of_source_test", split, str(prepared), in_memory_bytes)
    assert_rows(source, expected(np.array(rows)))
    facts = source.spec.meta
    assert (facts["name"], facts["version"], facts["split"]) == ("tiny_of_source_test", "1.0.0", split)
    assert facts["classes"] == ("even", "odd")


def test_a_class_of_your_own_by_its_import_path(prepared):
    assert_rows(make(f"{__name__}:Tiny", "train", str(prepared)), expected(np.arange(ROWS)))
    with pytest.raises(ConfigError, match="Tiny"):
        make(f"{__name__}:Tinny", "train", str(prepared))


def test_second_opening_reads_the_cache(prepared, request):
    first = make("tiny_of_source_test", "train", str(prepared))
    request.getfixturevalue("no_decoding")
    second = make("tiny_of_source_test", "train", str(prepared))
    assert_rows(second, expected(np.arange(ROWS)))
    assert second.spec == first.spec
    with pytest.raises(AssertionError, match="decoded again"):  # another split has its own
        make("tiny_of_source_test", "train[:7]", str(prepared))


def test_other_content_of_the_same_size_is_not_read_from_the_old_cache(tmp_path, monkeypatch):
    builder = write(tmp_path)
    old, old_disk = (make("tiny_of_source_test", "train", str(tmp_path), limit) for limit in (2**32, 0))
    shutil.move(f"{builder.data_dir}/{CACHE}", tmp_path / "kept")
    shutil.rmtree(builder.data_dir)
    monkeypatch.setattr(Tiny, "offset", 3)
    write(tmp_path)
    shutil.move(tmp_path / "kept", f"{builder.data_dir}/{CACHE}")
    new, new_disk = (make("tiny_of_source_test", "train", str(tmp_path), limit) for limit in (2**32, 0))
    assert_rows(new, expected(np.arange(ROWS), offset=3))
    assert new.spec.meta["fingerprint"] != old.spec.meta["fingerprint"]
    assert new_disk.spec.meta["fingerprint"] != old_disk.spec.meta["fingerprint"]


def test_fingerprint_is_that_of_the_content_not_of_the_place(prepared, tmp_path):
    write(tmp_path)
    for in_memory_bytes in (2**32, 0):
        here, there = (make("tiny_of_source_test", "train", str(r), in_memory_bytes) for r in (prepared, tmp_path))
        assert here.spec.meta["fingerprint"] == there.spec.meta["fingerprint"]


def test_a_damaged_cache_is_decoded_anew(tmp_path, caplog):
    builder = write(tmp_path)
    make("tiny_of_source_test", "train", str(tmp_path))
    (file,) = (path for path in tmp_path.glob(f"{builder.name}/1.0.0/{CACHE}/*/image.npy"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert_rows(make("tiny_of_source_test", "train", str(tmp_path)), expected(np.arange(ROWS)))
    assert "damaged" in caplog.text


def test_disk_source_gathers_in_any_order_and_survives_pickling(prepared):
    source = make("tiny_of_source_test", "train", str(prepared), in_memory_bytes=0)
    indices = np.array([7, 0, 7, 19])
    unopened = pickle.dumps(source)
    before = source.__getitems__(indices)
    assert pickle.dumps(source) == unopened  # open files stay behind
    copy = pickle.loads(unopened)
    assert copy.spec == source.spec
    for name, values in expected(indices).items():
        np.testing.assert_array_equal(before[name], values)
        np.testing.assert_array_equal(copy.__getitems__(indices)[name], values)
    assert copy.__getitems__(np.array([], int))["image"].shape == (0, 2, 3)


def test_fields_that_do_not_stack_are_served_from_disk_only(prepared):
    rows = make("tiny_extra_of_source_test", "train", str(prepared), 0).__getitems__(np.array([1, 2]))
    assert rows["text"].tolist() == ["row 1", "row 2"]
    assert [list(values) for values in rows["ragged"]] == [[0], [0, 1]]
    with pytest.raises(DataError, match=r"'(text|ragged)' is a"):
        make("tiny_extra_of_source_test", "train", str(prepared))


def test_numbers_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Tiny, "_generate_examples", lambda self, first, number: _large_counts(first, number))
    write(tmp_path)
    with pytest.raises(DataError, match=r"'count': values up to \d+ do not fit int32"):
        make("tiny_of_source_test", "train", str(tmp_path))


def _large_counts(first, number):
    for i in range(first, first + number):
        yield i, {"image": np.zeros((2, 3), np.uint8), "label": 0, "value": 0.0, "count": 2**40 + i}


@pytest.mark.parametrize("name", ["fashion_mnist", "jaxlab.data.builders.fashion_mnist:Builder"])
def test_not_prepared_names_the_folder_and_the_command(tmp_path, name):
    with pytest.raises(DataError) as caught:
        make(name, data_dir=str(tmp_path))
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert f"{name} is not prepared" in text
    assert str(tmp_path / "fashion_mnist") in text
    assert f"python scripts/prepare_data.py {name} --data_dir={tmp_path}" in text


def test_what_was_interrupted_is_not_prepared(tmp_path):
    folder = write(tmp_path).data_path
    folder.rename(folder.with_name("incomplete.ABC123_1.0.0"))
    with pytest.raises(DataError, match="no data set 'tiny_of_source_test'"):
        make("tiny_of_source_test", data_dir=str(tmp_path))


def test_the_newest_version_is_opened(tmp_path):
    folder = write(tmp_path).data_path
    for version in ("1.9.0", "1.10.0"):
        shutil.copytree(folder, folder.with_name(version))
        text = (folder / "dataset_info.json").read_text()
        (folder.with_name(version) / "dataset_info.json").write_text(text.replace("1.0.0", version))
    assert make("tiny_of_source_test", data_dir=str(tmp_path)).spec.meta["version"] == "1.10.0"
    assert make("tiny_of_source_test/1.9.0", data_dir=str(tmp_path)).spec.meta["version"] == "1.9.0"


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("trian", "no split 'trian'; did you mean 'train'"),
        ("train+tset[:3]", "no split 'tset'; did you mean 'test'"),
        ("train[:x]", "Unrecognized split format"),
        ("train[100:200]", "20 examples"),
        ("train[:0]", "holds no rows"),
    ],
)
def test_wrong_splits_are_refused(prepared, split, message):
    with pytest.raises(DataError, match=message.replace("[", r"\[")) as caught:
        make("tiny_of_source_test", split, str(prepared))
    assert caught.value.exit_code == 2


def test_unknown_name_gives_the_nearest(prepared):
    with pytest.raises(DataError, match="did you mean 'fashion_mnist'"):
        make("fashion_mnits", data_dir=str(prepared))
    with pytest.raises(DataError, match="did you mean 'tiny_of_source_test'"):
        make("tiny_of_source_tset", data_dir=str(prepared))


def test_default_root_is_of_the_environment(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(make("tiny_of_source_test", "test")) == 5


@pytest.mark.parametrize("in_memory_bytes", [2**32, 0])
def test_texts_come_back_as_strings_beside_numbers(tmp_path, in_memory_bytes, request):
    builder = write(tmp_path, TinyText)
    first = make(builder.name, "train", str(tmp_path), in_memory_bytes)
    if in_memory_bytes:
        request.getfixturevalue("no_decoding")
    for source in (
        first,
        make(builder.name, "train", str(tmp_path), in_memory_bytes),
        pickle.loads(pickle.dumps(first)),
    ):
        rows = source.__getitems__(np.array([5, 0, 0, *range(6)]))
        assert rows["text"].tolist() == [TEXTS[5], TEXTS[0], TEXTS[0], *TEXTS]
        assert all(type(text) is str for text in rows["text"])
        assert rows["count"].tolist() == [5, 0, 0, *range(6)]
        assert source.spec.example["text"].dtype == object
        assert source.spec.example["text"].shape == ()
        assert source.spec.meta == first.spec.meta
    for file in tmp_path.glob(f"{builder.name}/1.0.0/{CACHE}/*/*.npy"):
        np.load(file, allow_pickle=False)


def test_a_text_that_is_not_utf8_is_named_by_its_row_or_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(TinyText, "bad", (1, 4))
    name = write(tmp_path, TinyText).name
    with pytest.raises(DataError, match=r"row 1 in .*: field 'text': byte 3 is not UTF-8"):
        make(name, "train", str(tmp_path))
    for in_memory_bytes in (2**32, 0):
        source = make(name, "train", str(tmp_path), in_memory_bytes, on_error="skip")
        assert source.__getitems__(np.arange(4))["text"].tolist() == [TEXTS[i] for i in (0, 2, 3, 5)]
        assert source.__getitems__(np.array([3, 1]))["count"].tolist() == [5, 2]
        assert len(source) == source.spec.size == 4
        assert source.spec.meta["skipped"] == 2
    assert caplog.text.count("2 of 6 rows are left out, the first: tiny_text_of_source_test") == 2


def damaged(root, row):
    """Write the data set anew and turn one bit of one row's record over."""
    builder = write(root)
    path = next(builder.data_path.glob("*-train.array_record-*"))
    whole = path.read_bytes()
    for place in range(100, 65536, 8):  # a file of this size has its records in the first block
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if _unreadable(builder) == [row]:
            return path
    raise AssertionError("no byte belongs to that record alone")


def _unreadable(builder):
    rows, found = tfds.builder_from_directory(str(builder.data_dir)).as_data_source("train"), []
    for row in range(ROWS):
        try:
            rows.__getitems__([row])
        except RuntimeError:
            found.append(row)
    return found


def test_a_corrupt_record_is_named_or_left_out_and_counted(tmp_path, request):
    path = damaged(tmp_path, row=7)
    message = r"'train': row 7 in .*train\.array_record-00000-of-00001 is corrupt: .*hash mismatch.*on_error='skip'"
    with pytest.raises(DataError, match=message):
        make("tiny_of_source_test", "train", str(tmp_path))
    disk = make("tiny_of_source_test", "train", str(tmp_path), 0)
    assert disk.__getitems__(np.array([6, 8]))["count"].tolist() == [36, 64]
    with pytest.raises(DataError, match=message):
        disk.__getitems__(np.array([6, 7, 8]))
    with pytest.raises(DataError, match=r"'train\[5:\]': row 2 in"):
        make("tiny_of_source_test", "train[5:]", str(tmp_path))
    kept = np.delete(np.arange(ROWS), 7)
    memory, skipping = (make("tiny_of_source_test", "train", str(tmp_path), n, "skip") for n in (2**32, 0))
    for source in (memory, skipping, pickle.loads(pickle.dumps(skipping))):
        assert_rows(source, expected(kept))
        assert source.spec.meta["skipped"] == 1
    assert skipping.spec.meta["fingerprint"] != disk.spec.meta["fingerprint"]
    assert_rows(make("tiny_of_source_test", "train[5:]", str(tmp_path), 0, "skip"), expected(kept[5:]))
    with pytest.raises(DataError, match=message):  # what was skipped before is not forgiven
        make("tiny_of_source_test", "train", str(tmp_path))
    request.getfixturevalue("no_decoding")
    for in_memory_bytes in (2**32, 0):
        assert len(make("tiny_of_source_test", "train", str(tmp_path), in_memory_bytes, "skip")) == ROWS - 1
    path.unlink()
    with pytest.raises(DataError, match=r"array_record-00000-of-00001 is missing"):
        make("tiny_of_source_test", "train", str(tmp_path))


@pytest.mark.parametrize(("size", "message"), [(1000, "at least 64KB"), (2**16, "field '.*' is missing")])
@pytest.mark.parametrize("in_memory_bytes", [2**32, 0])
def test_a_file_cut_short_is_corrupt_and_not_a_split_without_rows(tmp_path, size, message, in_memory_bytes):
    path = next(write(tmp_path).data_path.glob("*-train.array_record-*"))
    path.write_bytes(path.read_bytes()[:size])
    for on_error in ("raise", "skip"):
        with pytest.raises(DataError, match=f"row 0 in .* is corrupt: .*{message}"):
            make("tiny_of_source_test", "train", str(tmp_path), in_memory_bytes, on_error).__getitems__(np.arange(3))


def test_an_unknown_way_to_treat_errors_is_refused(prepared):
    with pytest.raises(ConfigError, match="on_error='ignore': expected 'raise' or 'skip'"):
        make("tiny_of_source_test", "train", str(prepared), on_error="ignore")


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [("train[:50%]", "train[50%:]", 0), ("train[:50%]", "train[40%:]", 2), ("train", "train[19:]+test", 1),
     ("train", "test", 0)],
)  # fmt: skip
def test_slices_that_share_records_are_an_error_that_counts_them(prepared, one, other, shared):
    sources = {name: make(f"{__name__}:Tiny", name, str(prepared)) for name in (one, other)}
    if not shared:
        return check_disjoint(sources)
    with pytest.raises(DataError, match=f"share {shared} rows"):
        check_disjoint(sources)
    return None


class TinyNamed(tfds.core.GeneratorBasedBuilder):
    """Classes that are no label, and numbers whose names the builder alone knows."""

    name = "tiny_named_of_source_test"
    VERSION = tfds.core.Version("1.0.0")
    CATEGORIES: ClassVar = {"shop": ("north", "south", "west"), "gone": ("a",)}

    def _info(self):
        features = {
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
            "colour": tfds.features.ClassLabel(names=["red", "blue"]),
            "shop": tfds.features.Scalar(np.int32),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"label": "yes", "colour": "blue", "shop": 1}


def test_the_codes_of_fields_beside_the_label_are_named_by_their_features_and_by_the_builder(tmp_path):
    write(tmp_path, TinyNamed)
    names = {"categories:colour": ("red", "blue"), "categories:shop": ("north", "south", "west")}
    for name, known in ((f"{__name__}:TinyNamed", names), (TinyNamed.name, {"categories:colour": ("red", "blue")})):
        for in_memory_bytes in (2**32, 0):
            facts = make(name, data_dir=str(tmp_path), in_memory_bytes=in_memory_bytes).spec.meta
            assert {fact: value for fact, value in facts.items() if fact.startswith("categories:")} == known
