"""Tables come out as pandas reads them, in every format alike, and each way in which a file is broken is named."""

import datetime
import gzip
import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import table_source
from jaxlab.data.arrays import ArraySource
from jaxlab.data.column_source import ColumnSource

N = 40
GENERATOR = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "length": GENERATOR.normal(size=N).round(3),
        "count": GENERATOR.integers(-5, 50, N),
        "weight": np.where(np.arange(N) % 7 == 3, np.nan, GENERATOR.normal(size=N).round(3)),
        "colour": np.array(["red", "blau", 'ÄÖ, "x"\ny', None], object)[np.arange(N) % 4],
        "new": np.arange(N) % 3 == 0,
        "size": np.array(["S", "M", "L"], object)[GENERATOR.integers(0, 3, N)],
        "price": GENERATOR.normal(size=N).round(3),
        "customer": np.array(["c10", "c2", "c1"], object)[GENERATOR.integers(0, 3, N)],
        "key": np.arange(N) + 100,
        "when": pd.date_range("2020-02-28", periods=N, freq="h").strftime("%Y-%m-%dT%H:%M:%S").to_numpy(object),
    }
)
SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
ROLES = {"target": "size", "id": "key", "group": "customer", "time": "when"}


def write(folder, suffix, frame=FRAME):
    path = folder / f"shirts{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix.startswith(".csv"):
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)
    return str(path)


def text(folder, content, name="shirts.csv"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder / name)


def everything(source):
    return source.__getitems__(np.arange(len(source)))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_values_that_pandas_holds(tmp_path, suffix):
    source = table_source.make(write(tmp_path, suffix), **ROLES)
    rows = everything(source)
    expected = {"length": "float32", "count": "int32", "weight": "float32", "colour": "object", "new": "bool"}
    expected |= {"price": "float32", "label": "int32", "group": "int32", "time": "int32"}
    assert {name: str(value.dtype) for name, value in rows.items()} == expected
    assert {name: str(example.dtype) for name, example in source.spec.example.items()} == expected
    for name in ("length", "count", "weight", "new", "price"):
        np.testing.assert_array_equal(rows[name], FRAME[name].to_numpy().astype(expected[name]))
    assert rows["colour"].tolist() == [v if isinstance(v, str) else None for v in FRAME["colour"]]
    assert source.spec.meta["classes"] == ("L", "M", "S")
    assert [source.spec.classes[i] for i in rows["label"]] == FRAME["size"].tolist()
    assert rows["group"].tolist() == [["c1", "c10", "c2"].index(value) for value in FRAME["customer"]]
    seconds = pd.to_datetime(FRAME["when"]).to_numpy().astype("datetime64[s]").astype(int)
    assert rows["time"].tolist() == seconds.tolist()


def test_the_spec_holds_the_features_in_order_the_roles_and_the_hash_of_the_file(tmp_path):
    path = write(tmp_path, ".csv")
    meta = table_source.make(path, features=("new", "length"), **ROLES).spec.meta
    assert meta["features"] == ("new", "length")
    assert meta["roles"] == ROLES
    assert meta["name"] == "shirts.csv"
    assert meta["fingerprint"] == "file:" + hashlib.sha256((tmp_path / "shirts.csv").read_bytes()).hexdigest()


def test_rows_are_gathered_as_asked_and_numbers_alone_are_an_array_source(tmp_path):
    path = write(tmp_path, ".parquet")
    mixed = table_source.make(path, features=("colour", "count"))
    numbers = table_source.make(path, features=("count", "weight"))
    assert isinstance(mixed, ColumnSource)
    assert isinstance(numbers, ArraySource)
    indices = np.array([3, 0, 3, N - 1])
    assert mixed.__getitems__(indices)["colour"].tolist() == [None, "red", None, None]
    assert mixed.__getitems__(indices)["count"].tolist() == FRAME["count"].iloc[indices].tolist()
    assert len(mixed) == len(numbers) == N


@pytest.mark.parametrize(
    ("target", "given", "field", "classes"),
    [
        ("price", {}, "target", ()),
        ("count", {}, "target", ()),
        ("size", {}, "label", ("L", "M", "S")),
        ("new", {}, "label", ("False", "True")),
        ("new", {"task": "regression"}, "target", ()),
        ("size", {"classes": ("S", "M", "L", "XL")}, "label", ("S", "M", "L", "XL")),
    ],
)
def test_the_target_s_type_the_classes_and_the_task_decide_what_is_predicted(tmp_path, target, given, field, classes):
    source = table_source.make(write(tmp_path, ".csv"), target=target, features=("length",), **given)
    assert source.spec.meta["classes"] == classes
    assert set(source.spec.example) == {"length", field}
    values = everything(source)[field]
    if field == "target":
        np.testing.assert_array_equal(values, FRAME[target].to_numpy().astype(np.float32))
    else:
        assert [classes[i] for i in values] == [str(value) for value in FRAME[target]]


def test_numbers_as_classes_are_sorted_as_numbers_and_may_be_given_as_numbers(tmp_path):
    path = text(tmp_path, "x,y\n1,10\n2,9\n3,10\n")
    source = table_source.make(path, target="y", task="classification")
    assert source.spec.classes == ("9", "10")
    assert everything(source)["label"].tolist() == [1, 0, 1]
    assert everything(table_source.make(path, target="y", classes=(10, 9)))["label"].tolist() == [0, 1, 0]
    path = text(tmp_path, "x,y\n1,1.0\n2,0.0\n")
    assert table_source.make(path, target="y", task="classification").spec.classes == ("0", "1")


def test_a_type_is_inferred_from_all_rows(tmp_path):
    rows = 300_000
    path = text(tmp_path, "x,y\n" + "1,2\n" * rows + "1.5,z\n")
    source = table_source.make(path)
    assert {n: str(e.dtype) for n, e in source.spec.example.items()} == {"x": "float32", "y": "object"}
    assert source.__getitems__(np.array([0, rows]))["x"].tolist() == [1, 1.5]


def test_missing_values_are_those_that_the_config_names(tmp_path):
    path = text(tmp_path, "x,y\n1,?\n?,NA\n-,b\n")
    rows = everything(table_source.make(path, missing_values=("?", "-")))
    assert rows["y"].tolist() == [None, "NA", "b"]
    np.testing.assert_array_equal(rows["x"], np.array([1, np.nan, np.nan], np.float32))
    assert everything(table_source.make(path))["y"].tolist() == ["?", None, "b"]


def test_dates_as_features_are_iso_texts_and_as_time_are_utc_seconds_rounded_down(tmp_path):
    path = tmp_path / "dates.parquet"
    when = pd.to_datetime(["1969-12-31T23:59:59.5", "2020-01-01T00:00:00.0"])
    zoned = when.tz_localize("UTC").tz_convert("Europe/Vienna")
    frame = pd.DataFrame({"when": when, "zoned": zoned, "day": [datetime.date(2020, 1, 1), None]})
    frame.to_parquet(path)
    source = table_source.make(str(path), features=("day",), time="when")
    assert everything(source)["day"].tolist() == ["2020-01-01", None]
    assert everything(source)["time"].tolist() == [-1, 1577836800]
    assert everything(table_source.make(str(path), time="zoned"))["time"].tolist() == [-1, 1577836800]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1), min_size=1))
def test_any_text_comes_back_from_jsonl_and_parquet(tmp_path, values):
    frame = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"x": value}) + "\n" for value in values))
    for name in ("a.parquet", "a.jsonl"):
        assert everything(table_source.make(str(tmp_path / name)))["x"].tolist() == values


BROKEN = {
    "a line too short": ("a,b\n1,2\n\n3\n4,5\n", "line 4 has 1 fields where the header has 2"),
    "a line too long": ('a,b\n"x\ny",2\n4,5,6\n', "line 4 has 3 fields where the header has 2"),
    "a quote that is not closed": ('a,b\n"x,1\n', "line 2 has 1 fields"),
    "columns twice": ("a,b,a\n1,2,3\n", "more than once: 'a'"),
    "no rows": ("a,b\n", "holds no rows; its columns are a, b"),
    "nothing": ("", "is empty"),
    "blank": ("\n", "is empty"),
    "Latin-1": (b"a,b\n1,2\n3,caf\xe9\n", r"byte 13 \(0xe9, line 3\) is not UTF-8"),
    "a column named as a batch's field": ("id,b\n1,2\n", "feature 'id' has the name of a field"),
    "an integer too large": ("a,b\n1,3000000000\n", "field 'b': .* do not fit int32"),
    "a column without a name": (",a\n0,5\n1,6\n", "column 0 has no name .*name others in features"),
    "a number too large": ("a,b\n1,1e39\n", "column 'b': 1e[+]39 in row 0 does not fit float32"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_csv_file_is_an_error_that_names_the_place(tmp_path, case):
    content, message = BROKEN[case]
    with pytest.raises(DataError, match=f"shirts.csv: .*{message}"):
        table_source.make(text(tmp_path, content))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', "line 3 is not JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2 is a list; expected an object"),
        ("a.jsonl", '{"a": 1, "a": 2}\n', "line 1 .*'a' is there more than once"),
        (
            "a.jsonl",
            '{"a": 1}\n{"a": "x"}\n',
            "column 'a' mixes kinds of values: int first in row 0, str first in row 1",
        ),
        ("a.jsonl", '{"a": [1]}\n', "column 'a' holds list.*; expected numbers"),
        ("a.jsonl", '{"a": {"b": 1}}\n', "column 'a' holds struct"),
        ("a.jsonl", "", "holds no rows"),
        ("a.jsonl", b'{"a": "\xff"}\n', "byte 7 .0xff, line 1. is not UTF-8"),
        ("a.parquet", "PAR1 no", "not a readable Parquet file"),
        ("a.csv.gz", "a\n1\n", "not a whole gzip file"),
        ("a.csv.gz", gzip.compress(b"a\n1\n" * 99, mtime=0)[:-9], "not a whole gzip file"),
        ("a.csv.gz", gzip.compress(b"a\n1\n", mtime=0)[:10] + b"\xff" * 20, "not a whole gzip file"),
        ("a.jsonl", '{"a": "\\ud800"}\n', "column 'a' holds a half of a surrogate pair"),
        ("a.jsonl", "[" * 200_000, "line 1 is not JSON"),
    ],
)
def test_a_broken_file_of_another_format_is_an_error_that_names_the_place(tmp_path, name, content, message):
    with pytest.raises(DataError, match=f"{name}: {message}"):
        table_source.make(text(tmp_path, content, name))


def test_a_file_that_is_not_there_is_an_error_that_names_the_nearest(tmp_path):
    write(tmp_path, ".csv")
    with pytest.raises(DataError, match=r"shirt.csv: no such file; did you mean 'shirts.csv'\?"):
        table_source.make(str(tmp_path / "shirt.csv"))
    with pytest.raises(DataError, match=r"no such file, and no folder .*nowhere"):
        table_source.make(str(tmp_path / "nowhere/shirts.csv"))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        table_source.make(str((tmp_path / "folder.csv").mkdir() or tmp_path / "folder.csv"))
    with pytest.raises(ConfigError, match=r"path='.*shirts.xls': expected a name that ends in \.csv"):
        table_source.make(str(tmp_path / "shirts.xls"))


@pytest.mark.parametrize("role", ["target", "id", "group", "time"])
def test_a_role_s_column_must_be_there_and_complete(tmp_path, role):
    path = text(tmp_path, "x,sizes\n1,3\n2,\n3,\n")
    with pytest.raises(DataError, match=f"{role}: no column 'size'; did you mean 'sizes'"):
        table_source.make(path, **{role: "size"})
    with pytest.raises(DataError, match=f"{role} column 'sizes': 2 of 3 values are missing, first in row 1"):
        table_source.make(path, **{role: "sizes"})


def test_a_feature_must_be_there_once_and_not_be_the_target(tmp_path):
    path = write(tmp_path, ".csv")
    with pytest.raises(DataError, match="features: no column 'colours'; did you mean 'colour'"):
        table_source.make(path, features=("colours",))
    with pytest.raises(ConfigError, match="'colour' is there more than once"):
        table_source.make(path, features=("colour", "colour"))
    with pytest.raises(ConfigError, match="'price' is the target; it cannot be a feature too"):
        table_source.make(path, features=("price",), target="price")
    with pytest.raises(ConfigError, match="group='price': this column is the target"):
        table_source.make(path, target="price", group="price")
    with pytest.raises(DataError, match="feature 'label' has the name of a field"):
        table_source.make(text(tmp_path, "label,y\n1,2\n", "b.csv"), target="y")
    with pytest.raises(DataError, match="no column is left"):
        table_source.make(text(tmp_path, "when\n1\n", "c.csv"), time="when")


def test_a_text_among_numbers_is_logged_with_its_row(tmp_path, caplog):
    table_source.make(text(tmp_path, "x,y\n1,red\n2,4\n3x,blue\n"))
    assert [entry.getMessage().partition(": ")[2] for entry in caplog.records] == [
        "column 'x' is of texts, as 1 are no numbers, first '3x' in row 2"
    ]


def test_bad_values_of_a_role_are_errors_that_name_row_and_value(tmp_path):
    path = text(tmp_path, "key,y,when\na,cat,2020-01-01\nb,dog,soon\na,dgo,2021-01-01\n")
    with pytest.raises(DataError, match="column 'y', row 2: 'dgo' is no class; did you mean 'dog'"):
        table_source.make(path, target="y", classes=("cat", "dog"))
    with pytest.raises(ConfigError, match="a class is there more than once"):
        table_source.make(path, target="y", classes=("cat", "cat"))
    with pytest.raises(DataError, match="id column 'key': 'a' is there more than once, again in row 2"):
        table_source.make(path, id="key")
    with pytest.raises(DataError, match="time column 'when', row 1: 'soon' is no date"):
        table_source.make(path, time="when")
    with pytest.raises(DataError, match="target column 'y' holds string, first 'cat'; expected numbers"):
        table_source.make(path, target="y", task="regression")
    with pytest.raises(ConfigError, match=r"task='classify': expected .*; did you mean 'classification'"):
        table_source.make(path, target="y", task="classify")
    with pytest.raises(DataError, match=r"field 'time': .* do not fit int32"):
        table_source.make(text(tmp_path, "x,when\n1,2040-01-01\n", "late.csv"), time="when")


def test_columns_refuse_what_is_neither_number_nor_text():
    with pytest.raises(DataError, match="field 'x': row 1 is a bytes; expected a text or None"):
        ColumnSource({"x": np.array(["a", b"b"], object)})
    with pytest.raises(DataError, match="equally long"):
        ColumnSource({"x": np.array(["a"], object), "y": np.arange(2)})
    with pytest.raises(DataError, match="equally long"):
        ColumnSource({})
