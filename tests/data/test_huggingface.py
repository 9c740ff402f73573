"""What `datasets` saved to disk is served as it was, memory-mapped; columns that can't be served are explained."""

import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data.huggingface import make
from jaxlab.data.picture import decode

datasets = pytest.importorskip("datasets")
ROWS = 6


@pytest.fixture(scope="module", autouse=True)
def no_progress_bars():
    datasets.disable_progress_bars()


def picture(seed, height=4, width=3):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return image, buffer.getvalue()


def columns():
    """Return columns of every kind that is served: what is saved, its feature, what is expected back."""
    list_of = getattr(datasets, "List", datasets.Sequence)
    i = np.arange(ROWS)
    text = ["naïve", "", None, "日本", "x\ny", "z"]
    return {
        "count": (i, datasets.Value("int64"), i.astype(np.int32)),
        "size": ([0.5, None, *i[2:]], datasets.Value("float64"), np.array([0.5, np.nan, *i[2:]], np.float32)),
        "flag": (i % 2 == 0, datasets.Value("bool"), i % 2 == 0),
        "label": (i % 2, datasets.ClassLabel(names=["neg", "pos"]), (i % 2).astype(np.int32)),
        "text": (text, datasets.Value("string"), np.array(text, object)),
        "vector": (
            np.outer(i, [1, 2, 3]),
            list_of(datasets.Value("float32"), length=3),
            np.float32(i[:, None] * [1, 2, 3]),
        ),
        "grid": (
            np.tile(i[:, None, None], (1, 2, 2)),
            datasets.Array2D((2, 2), "int32"),
            np.int32(i[:, None, None] + np.zeros((2, 2))),
        ),
        "image": ([{"bytes": picture(s)[1]} for s in i], datasets.Image(), np.stack([picture(s)[0] for s in i])),
    }


def dataset_of(kinds):
    values = {name: list(kind[0]) for name, kind in kinds.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features({n: kind[1] for n, kind in kinds.items()}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("hf")
    whole = dataset_of(columns())
    whole.save_to_disk(str(root / "one"), num_shards=2)
    datasets.DatasetDict({"train": whole.select(range(4)), "test": whole.select([5, 4])}).save_to_disk(
        str(root / "two")
    )
    return root


def assert_rows(source, rows):
    found = source.__getitems__(rows)
    for name, (_, _, expected) in columns().items():
        np.testing.assert_array_equal(found[name], expected[rows])
        assert found[name].dtype == expected.dtype == source.spec.example[name].dtype
        assert found[name].shape[1:] == expected.shape[1:] == source.spec.example[name].shape


def test_every_kind_of_column_comes_back_as_saved_in_any_order(folder):
    source = make(str(folder / "one"))
    assert len(source) == source.spec.size == ROWS
    assert source.spec.classes == ("neg", "pos")
    for rows in (np.arange(ROWS), np.array([5, 0, 5, 2]), np.array([], int)):
        assert_rows(source, rows)


def test_the_files_are_mapped_and_a_worker_maps_them_anew(folder):
    source = make(str(folder / "one"))
    unopened = pickle.dumps(source)
    source.__getitems__(np.array([1]))
    assert pickle.dumps(source) == unopened
    assert_rows(pickle.loads(unopened), np.array([3, 1]))
    assert "MemoryMapped" in type(source._table.data.blocks[0][0]).__name__


def test_a_split_is_chosen_by_name(folder, tmp_path):
    assert make(str(folder / "two"), "test").__getitems__(np.arange(2))["count"].tolist() == [5, 4]
    assert make(str(folder / "two"), "train").spec.meta["split"] == "train"
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        make(str(folder / "two"), "tset")
    with pytest.raises(DataError, match=r"no split None; valid names: test, train"):
        make(str(folder / "two"))
    with pytest.raises(DataError, match="single data set"):
        make(str(folder / "one"), "train")
    single = datasets.DatasetDict({"all": dataset_of({"count": columns()["count"]})})
    single.save_to_disk(str(tmp_path / "single"))
    assert len(make(str(tmp_path / "single"))) == ROWS


def test_columns_and_the_label_are_chosen_and_named(folder):
    source = make(str(folder / "one"), columns=("text",), label="flag")
    assert list(source.__getitems__(np.array([0]))) == ["text", "label"]
    assert source.spec.meta["classes"] == ()
    with pytest.raises(DataError, match="no column 'txet'; did you mean 'text'"):
        make(str(folder / "one"), columns=("txet",))
    with pytest.raises(DataError, match="no column 'lable'; did you mean 'label'"):
        make(str(folder / "one"), label="lable")
    with pytest.raises(DataError, match="would be served as 'label', twice"):
        make(str(folder / "one"), label="flag")
    prints = {make(str(folder / "one"), columns=c).spec.meta["fingerprint"] for c in [("text",), ("count",), ("text",)]}
    assert len(prints) == 2


def test_pictures_are_brought_to_a_size_or_must_have_one(folder, tmp_path):
    rows = make(str(folder / "one"), columns=("image",), size=(2, 2), channels=1).__getitems__(np.arange(ROWS))
    np.testing.assert_array_equal(rows["image"], [decode(picture(s)[1], (2, 2), 1) for s in range(ROWS)])
    sizes = [{"bytes": picture(0, 4, 3)[1]}, {"bytes": picture(1, 3, 3)[1]}, {"bytes": b"no picture"}]
    dataset_of({"image": (sizes, datasets.Image(), None)}).save_to_disk(str(tmp_path / "mixed"))
    source = make(str(tmp_path / "mixed"))
    with pytest.raises(DataError, match=r"row 1 is a picture of size \(3, 3\), the first \(4, 3\); give size"):
        source.__getitems__(np.arange(2))
    resized = make(str(tmp_path / "mixed"), size=(2, 2))
    assert resized.__getitems__(np.array([1, 0]))["image"].shape == (2, 2, 2, 3)
    with pytest.raises(DataError, match="'image': row 2 cannot be read as a picture"):
        resized.__getitems__(np.array([0, 2]))
    with pytest.raises(ConfigError, match="size="):
        make(str(folder / "one"), size=(2,))


@pytest.mark.parametrize(
    ("values", "feature", "message"),
    [
        ([1, None, 3], datasets.Value("int32"), r"'x': row 1 is missing \(1 are\)"),
        ([0, 1, -1], datasets.ClassLabel(names=["a", "b"]), "'x': row 2 is class -1, of classes 0 to 1"),
        ([0, None], datasets.ClassLabel(names=["a", "b"]), "row 1 is missing"),
        ([[1], [1, 2]], getattr(datasets, "List", datasets.Sequence)(datasets.Value("int32")), "a fixed shape"),
        ([0, 1], datasets.Value("timestamp[s]"), "expected numbers"),
        ([], datasets.Value("int32"), "no rows"),
    ],
)
def test_columns_that_cannot_be_served_are_refused_at_once(tmp_path, values, feature, message):
    dataset_of({"x": (values, feature, None)}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=message):
        make(str(tmp_path / "saved"))


def test_numbers_that_do_not_fit_and_names_that_are_taken_are_refused(tmp_path):
    dataset_of({"x": ([1, 2**40], datasets.Value("int64"), None)}).save_to_disk(str(tmp_path / "large"))
    source = make(str(tmp_path / "large"))
    assert source.__getitems__(np.array([0]))["x"].tolist() == [1]
    with pytest.raises(DataError, match=r"'x': values up to \d+ do not fit int32"):
        source.__getitems__(np.array([1]))
    dataset_of({"id": ([1], datasets.Value("int64"), None)}).save_to_disk(str(tmp_path / "id"))
    with pytest.raises(DataError, match="'id', which is a batch's own field"):
        make(str(tmp_path / "id"))


def test_folders_that_hold_no_data_set_are_explained(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        make(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"no saved data set: it has no state\.json"):
        make(str(tmp_path))
    dataset_of({"x": ([1, 2], datasets.Value("int64"), None)}).save_to_disk(str(tmp_path / "cut"))
    (file,) = (tmp_path / "cut").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:30])
    with pytest.raises(DataError, match="cut cannot be opened"):
        make(str(tmp_path / "cut"))
    file.unlink()
    with pytest.raises(DataError, match="cut cannot be opened"):
        make(str(tmp_path / "cut"))


def test_a_missing_package_is_named_with_the_command_that_installs_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install jaxlab\[huggingface\]"):
        make(str(folder / "one"))
