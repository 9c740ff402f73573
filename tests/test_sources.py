"""The splits of a config are refused before training where they leak, differ or hold what no run can use."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

import jaxlab
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import mixture, splits, table, windows
from jaxlab.data.arrays import ArraySource
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.subset import Subset
from jaxlab.run import sources as run_sources

CLASSES = {"classes": ("few", "many", "none")}


def rows(size=40, first=0, classes=2, **fields):
    number = np.arange(first, first + size)
    return ArraySource({"x": number.astype(float), "label": number % classes, "time": number, **fields}, CLASSES)


def holed(rows=40):
    return ArraySource({"x": np.where(np.arange(rows) == 7, np.nan, 1.0)})


def no_source():
    return {"x": np.zeros(3)}


def unreadable():
    return ArraySource({"x": np.load("nowhere.npy")})


def three(size=6):
    return rows(size, first=900, classes=3)


def config(**data):
    found = ConfigDict({"data": {"transforms": (), **data}, "train": {"batch_size": 2}})
    return found, lambda names=run_sources.SPLITS: run_sources.open_sources(found, names)


def test_what_is_no_source_and_what_a_factory_cannot_read_are_errors_that_name_the_split():
    found, opened = config(train=jaxlab.spec(no_source))
    with pytest.raises(ConfigError, match=r"config\.data\.train: .*:no_source makes a dict; expected a source"):
        opened()
    found.data.train = jaxlab.spec(unreadable)
    with pytest.raises(DataError, match=r"config\.data\.train: .*nowhere\.npy"):
        opened()


def test_a_class_of_test_that_training_never_saw_is_an_error_of_the_evaluation_and_not_of_training():
    found, opened = config(train=jaxlab.spec(rows), valid=jaxlab.spec(rows, first=100), test=jaxlab.spec(three))
    run_sources.check_sources(opened(), found)  # the labels of test are left alone
    run_sources.check_sources(opened(("valid",)), found)
    with pytest.raises(DataError, match="'test' holds 2 rows of class 'none', which training never saw"):
        run_sources.check_sources(opened(("test",)), found)


def test_a_label_and_a_missing_number_are_named_by_their_row_of_the_whole_data():
    found, _ = config()
    late = Subset(rows(label=np.where(np.arange(40) == 33, 5, 0)), np.arange(30, 40), {})
    with pytest.raises(DataError, match=r"config\.data\.train: row 33 has the label 5; expected 0 to 2"):
        run_sources.check_sources({"train": late}, found)
    with pytest.raises(DataError, match=r"config\.data\.train: the field 'x' is NaN in row 7; fill it"):
        run_sources.check_transformed({"train": Subset(holed(), np.arange(5, 15), {})}, ())


def test_missing_numbers_in_windows_and_mixtures_are_found_too():
    cut = windows.make(holed(), 3, 2, targets=("x",))
    for source in (cut, mixture.make((rows(4), rows(4, x=np.full(4, np.nan))))):
        with pytest.raises(DataError, match="is NaN in row"):
            run_sources.check_transformed({"train": source}, ())


def test_data_of_integers_or_texts_alone_have_nothing_to_check():
    found, _ = config()
    for source in (ColumnSource({"en": np.array(["a", "b"], object)}), ArraySource({"tokens": np.arange(8)})):
        run_sources.check_sources({"train": source}, found)
        run_sources.check_transformed({"train": source}, ())


def filled(fields, _):
    return {**fields, "x": np.nan_to_num(fields["x"])}


def test_transforms_must_fill_what_is_missing_and_leave_the_same_fields_in_every_split():
    train = rows()
    run_sources.check_transformed({"train": train, "valid": rows(x=np.full(40, np.nan))}, (filled,))
    with pytest.raises(DataError, match=r"config\.data\.valid: the field 'x' is NaN in row 3"):
        run_sources.check_transformed({"train": train, "valid": rows(x=np.where(np.arange(40) == 3, np.nan, 0))}, ())
    run_sources.check_transformed({"train": mixture.make((train,)), "valid": train}, ())  # that has no ``source``
    assemble = table.assemble(("x",)).bind({"columns": ["x"], "widths": [0], "features": ["x"]})
    with pytest.raises(DataError, match=r"config\.data\.valid: assemble: the data has no column 'x'"):
        run_sources.check_transformed({"train": train, "valid": ArraySource({"y": np.zeros(5)})}, (assemble,))
    without = ArraySource({"x": np.zeros(5)}, CLASSES)
    with pytest.raises(DataError, match=r"config\.data\.test has no field 'label', as config\.data\.train has"):
        run_sources.check_transformed({"train": train, "test": without}, ())
    with pytest.raises(DataError, match=r"valid: the field 'x' is float32\[2\]; in config\.data\.train it is"):
        run_sources.check_transformed({"train": train, "valid": rows(x=np.zeros((40, 2)))}, ())
    texts = ColumnSource({**rows(2).__getitems__(np.arange(2)), "name": np.array(["a", "b"], object)}, CLASSES)
    with pytest.raises(DataError, match=r"config\.data\.train has no field 'name', as config\.data\.valid has"):
        run_sources.check_transformed({"train": train, "valid": texts}, ())


def test_the_index_file_holds_the_splits_that_windows_and_mixtures_are_made_of(tmp_path):
    parts = {name: splits.part(rows(), name, by="time") for name in ("train", "valid")}
    cut = {name: windows.make(part, 2, 1, targets=("x",)) for name, part in parts.items()}
    other = splits.part(rows(30, first=500), "train")
    mixed = {"train": mixture.make((parts["train"], other)), "valid": parts["valid"]}
    for folder, sources in {"parts": parts, "cut": cut, "mixed": mixed}.items():
        (tmp_path / folder).mkdir()
        run_sources.write_splits(tmp_path / folder, sources)
        for name, part in parts.items():
            read = splits.from_file(rows(), str(tmp_path / folder / "splits.json"), name)
            assert read.indices.tolist() == part.indices.tolist()
    written = json.loads((tmp_path / "mixed/splits-1.json").read_text())
    assert written["parts"] == {"train": other.indices.tolist()}


def test_a_run_goes_on_with_the_rows_that_it_began_with_alone(tmp_path):
    run_sources.write_splits(tmp_path, {"train": splits.part(rows())})
    run_sources.write_splits(tmp_path, {"train": splits.part(rows())})
    before = (tmp_path / "splits.json").read_bytes()
    with pytest.raises(DataError, match=r"splits\.json is of data with 40 rows; this data has 41"):
        run_sources.write_splits(tmp_path, {"train": splits.part(rows(41))})
    with pytest.raises(DataError, match=r"splits\.json: the split 'train' has other rows now"):
        run_sources.write_splits(tmp_path, {"train": splits.part(rows(), seed=1)})
    assert (tmp_path / "splits.json").read_bytes() == before


@pytest.mark.parametrize("weighted", [True, False])
def test_the_log_counts_a_mixture_s_rows_by_source(caplog, weighted):
    caplog.set_level("INFO", "jaxlab")
    caplog.clear()
    mixed = mixture.make((rows(10), rows(30, first=100)), (1.0, 1.0))
    run_sources.logging.getLogger("jaxlab").addHandler(caplog.handler)
    try:
        run_sources.log_sampling({"train": mixed}, mixed.row_weights if weighted else None)
    finally:
        run_sources.logging.getLogger("jaxlab").removeHandler(caplog.handler)
    drawn = ("20.0", "20.0") if weighted else ("10.0", "30.0")
    assert f"source 0 (0): 10 rows, {drawn[0]} draws an epoch" in caplog.text
    assert f"source 1 (1): 30 rows, {drawn[1]} draws an epoch" in caplog.text
