"""Table transforms agree with scikit-learn, learn from training data alone, and treat each row on its own."""

import datetime
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec
from jaxlab.data import table, table_categories, table_numeric
from jaxlab.data.arrays import ArraySource
from jaxlab.data.fitting import fit_all
from jaxlab.data.table_columns import CHUNK

COLOURS = ("red", "green", "blue", "mauve")


class Texts:
    """A source whose fields may hold texts."""

    def __init__(self, fields, meta=None):
        self.fields = fields
        example = {name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in fields.items()}
        self.spec = DataSpec(example, len(next(iter(fields.values()))), meta or {})

    def __len__(self):
        return self.spec.size

    def __getitems__(self, indices):
        return {name: value[indices] for name, value in self.fields.items()}


def strings(values):
    column = np.empty(len(values), object)
    column[:] = values
    return column


def make_fields(rows=200, seed=0, missing=True):
    generator = np.random.default_rng(seed)
    age = generator.normal(40, 12, rows).astype(np.float32)
    pay = generator.lognormal(3, 1, (rows, 2)).astype(np.float32)
    if missing:
        age[generator.random(rows) < 0.1] = np.nan
        pay[generator.random((rows, 2)) < 0.2] = np.nan
    colour = strings([COLOURS[i] for i in generator.integers(0, 3, rows)])
    city = strings([f"city{i}" for i in generator.integers(0, 30, rows)])
    start = datetime.datetime(2019, 12, 30)
    when = strings([(start + datetime.timedelta(hours=int(i))).isoformat() for i in generator.integers(0, 9999, rows)])
    return {
        "age": age,
        "pay": pay,
        "rooms": generator.integers(0, 9, rows).astype(np.int32),
        "colour": colour,
        "city": city,
        "when": when,
        "label": generator.integers(0, 2, rows).astype(np.int32),
    }


def apply(part, fields, train=None):
    """Return `fields` transformed; what is learnt goes through JSON."""
    for value in fields.values():
        value.setflags(write=False)  # so that a transform in place raises
    if hasattr(part, "fit"):
        part = part.bind(json.loads(json.dumps(part.fit(Texts(train or fields)))))
    return part(fields, None)


NUMERIC = ("age", "pay", "rooms")
FITTED = {
    "standard": table_numeric.scale(),
    "robust": table_numeric.scale(method="robust"),
    "minmax": table_numeric.scale(method="minmax"),
    "clip": table_numeric.clip(),
    "mean": table_numeric.impute(),
    "median": table_numeric.impute(method="median"),
    "one_hot": table_categories.one_hot(("city",)),
    "ordinal": table_categories.ordinal(("city",)),
}
PLAIN = {
    "log": table_numeric.scale(method="log"),
    "constant": table_numeric.impute(method="constant", value=-1.0),
    "one_hot of all": table_categories.one_hot(("colour",), unknown="zeros"),
    "hashed": table_categories.hashed(),
    "cross": table_categories.cross(("colour", "rooms"), 64),
    "date_parts": table.date_parts("when"),
    "cyclic": table.date_parts("when", cyclic=True, keep=True),
    "assemble": table.assemble(("rooms",)),
}
ALL = FITTED | PLAIN


@pytest.mark.parametrize("name", ALL)
def test_a_batch_is_transformed_as_its_rows_are_one_by_one(name):
    fields, train = make_fields(50), make_fields(seed=1)
    whole = apply(ALL[name], fields, train)
    rows = [apply(ALL[name], {n: v[i : i + 1] for n, v in fields.items()}, train) for i in range(50)]
    assert all(list(row) == list(whole) for row in rows)
    for field, value in whole.items():
        stacked = np.concatenate([row[field] for row in rows])
        assert stacked.dtype == value.dtype
        np.testing.assert_array_equal(stacked, value)


@pytest.mark.parametrize("name", FITTED)
def test_what_is_learnt_changes_with_the_training_data_and_its_json_comes_back_exactly(name):
    learnt = FITTED[name].fit(Texts(make_fields(30)))
    assert learnt == FITTED[name].fit(Texts(make_fields(30)))
    assert learnt != FITTED[name].fit(Texts(make_fields(30, seed=1)))
    assert json.loads(json.dumps(learnt)) == learnt


@pytest.mark.parametrize("name", FITTED)
def test_a_test_row_is_transformed_alike_whatever_the_other_test_rows_are(name):
    train, one, other = make_fields(), make_fields(20, 1), make_fields(20, 2)
    other = {field: np.concatenate([value[:1], other[field][1:]]) for field, value in one.items()}
    found, again = apply(FITTED[name], one, train), apply(FITTED[name], other, train)
    for field, value in found.items():
        np.testing.assert_array_equal(value[0], again[field][0])


def test_fitting_reads_every_row_of_a_source_longer_than_a_chunk():
    x = np.arange(2 * CHUNK + 3, dtype=np.float32)
    assert table_numeric.scale().fit(ArraySource({"x": x}))["columns"]["x"]["centre"] == x.astype(float).mean()
    names = strings([f"n{i}" for i in range(CHUNK + 1)])
    assert len(table_categories.ordinal().fit(Texts({"x": names}))["columns"]["x"]) == CHUNK + 1


ORACLES = {
    "standard": (StandardScaler(), {}),
    "robust": (RobustScaler(), {}),
    "robust, other quantiles": (RobustScaler(quantile_range=(10, 80)), {"quantiles": (0.1, 0.8)}),
    "minmax": (MinMaxScaler(), {}),
    "minmax, other interval": (MinMaxScaler((-1, 3)), {"interval": (-1.0, 3.0)}),
}


@pytest.mark.parametrize("name", ORACLES)
def test_scaling_is_scikit_learn_s_also_with_missing_values_and_several_columns(name):
    oracle, settings_ = ORACLES[name]
    train, test = make_fields(), make_fields(50, 1)
    found = apply(table_numeric.scale(method=name.partition(",")[0], **settings_), test, train)
    for column in NUMERIC:
        oracle.fit(train[column].reshape(200, -1).astype(float))
        expected = oracle.transform(test[column].reshape(50, -1).astype(float))
        assert found[column].dtype == np.float32
        np.testing.assert_allclose(found[column].reshape(50, -1), expected, rtol=1e-5, atol=1e-6)
    for column in ("colour", "label"):
        assert found[column] is test[column]


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, 20, elements=st.floats(-1e6, 1e6, width=32)))
def test_standard_scaling_undone_is_the_data_and_a_constant_is_only_shifted(x):
    fitted = table_numeric.scale()
    learnt = fitted.fit(ArraySource({"x": x}))
    known = learnt["columns"]["x"]
    scaled = fitted.bind(learnt)({"x": x}, None)["x"]
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(scaled * known["spread"] + known["centre"], x, rtol=1e-4, atol=1e-4 * np.abs(x).max())
    if np.ptp(x) == 0:
        assert known["spread"] == 1


def test_log_scaling_is_odd_and_grows_and_is_log1p_of_what_is_positive():
    x = np.linspace(-1000, 1000, 101, dtype=np.float32)
    found = apply(table_numeric.scale(method="log"), {"x": x})["x"]
    np.testing.assert_allclose(found, -found[::-1], rtol=1e-6)
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found[x >= 0], np.log1p(x[x >= 0]), rtol=1e-6)


def test_clipping_moves_only_what_lies_outside_the_training_split_s_quantiles_infinities_too():
    train = {"x": np.append(np.arange(101), np.inf).astype(np.float32)}
    test = {"x": np.array([-np.inf, -5, 3, 50, 97, 200, np.inf, np.nan], np.float32)}
    found = apply(table_numeric.clip(low_quantile=0.05, high_quantile=0.9), test, train)["x"]
    np.testing.assert_allclose(found, [5, 5, 5, 50, 90, 90, 90, np.nan])
    np.testing.assert_array_equal(
        apply(table_numeric.clip(("rooms",), 0, 1), make_fields())["rooms"], make_fields()["rooms"]
    )


@pytest.mark.parametrize("method", table_numeric.FILLS)
def test_filling_in_is_scikit_learn_s(method):
    train, test = make_fields(), make_fields(50, 1)
    found = apply(table_numeric.impute(method=method, value=7.0), test, train)
    for column in NUMERIC:
        before, known = (fields[column].reshape(len(fields[column]), -1).astype(float) for fields in (test, train))
        oracle = SimpleImputer(strategy=method, fill_value=7.0).fit(known)
        np.testing.assert_allclose(found[column].reshape(50, -1), oracle.transform(before), rtol=1e-6)
        if np.isnan(known).any():
            indicator = MissingIndicator(features="all").fit(known).transform(before)
            np.testing.assert_array_equal(found[f"{column}_missing"].reshape(50, -1), indicator)
    assert "rooms_missing" not in found  # training lacks none, so there is nothing to learn from an indicator
    assert "age_missing" not in apply(table_numeric.impute(indicators=False), test, train)


def test_texts_and_objects_are_filled_in_too():
    train = {"colour": strings(["red", None, "blue", "blue", "", float("nan")]), "n": strings([1, None, 2.0, 2, 7, 2])}
    found = apply(table_numeric.impute(("colour", "n"), method="most_frequent"), train)
    assert found["colour"].tolist() == ["red", "blue", "blue", "blue", "blue", "blue"]
    assert found["colour_missing"].tolist() == [0, 1, 0, 0, 1, 1]
    assert found["n"].tolist() == [1, 2, 2, 2, 7, 2]
    constant = apply(table_numeric.impute(("colour",), method="constant", value="none"), train)
    assert constant["colour"].tolist() == ["red", "none", "blue", "blue", "none", "none"]


@pytest.mark.parametrize("most", [0, 5])
def test_one_hot_is_scikit_learn_s_with_unknown_categories_all_zeros(most):
    train, test = make_fields(100), make_fields(400, 1)
    chosen = sorted(set(train["city"]))
    if most:
        values, counts = np.unique(train["city"].astype(str), return_counts=True)
        chosen = sorted(values[np.argsort(-counts, kind="stable")[:most]])
    oracle = OneHotEncoder(categories=[chosen], handle_unknown="ignore", sparse_output=False)
    expected = oracle.fit(strings(chosen)[:, None]).transform(test["city"][:, None])
    assert (expected.sum(1) == 0).any()
    zeros = apply(table_categories.one_hot(("city",), most, unknown="zeros"), test, train)["city"]
    np.testing.assert_array_equal(zeros, expected)
    column = apply(table_categories.one_hot(("city",), most), test, train)["city"]
    assert (column.sum(1) == 1).all()
    np.testing.assert_array_equal(column[:, 1:], expected)


def test_a_category_that_training_never_saw_is_an_error_only_if_so_configured():
    train, test = {"colour": strings(["red", "blue"])}, {"colour": strings(["red", "mauve"])}
    with pytest.raises(DataError, match=r"column 'colour', row 1 .*'mauve'"):
        apply(table_categories.one_hot(unknown="error"), test, train)


@given(st.lists(st.text(), min_size=1), st.lists(st.text(), min_size=1))
@settings(max_examples=50, deadline=None)
def test_ordinal_codes_name_their_category_and_0_is_what_training_never_saw(train, test):
    fitted = table_categories.ordinal()
    learnt = json.loads(json.dumps(fitted.fit(Texts({"x": strings(train)}))))
    names = fitted.meta(learnt)["categories:x"]
    codes = fitted.bind(learnt)({"x": strings(test)}, None)["x"]
    assert codes.dtype == np.int32
    assert [names[code] if code else None for code in codes] == [text if text in train else None for text in test]


def test_categories_are_the_same_as_bytes_texts_and_numbers_and_missing_ones_are_one_category():
    fitted = table_categories.ordinal(("x",))
    transform = fitted.bind(fitted.fit(Texts({"x": strings(["", "3", "é"])})))
    assert transform({"x": strings([None, float("nan"), "", b"3", 3, 3.0, "é".encode(), "4"])}, None)["x"].tolist() == [
        1, 1, 1, 2, 2, 2, 3, 0,
    ]  # fmt: skip
    assert transform({"x": np.array([3, 4])}, None)["x"].tolist() == [2, 0]
    with pytest.raises(DataError, match="column 'x', row 1, byte 2: not UTF-8"):
        transform({"x": strings([b"a", b"ab\xff"])}, None)


def test_hashes_are_those_of_any_process_and_spread():
    cities = strings([f"city{i}" for i in range(5000)])
    found = apply(table_categories.hashed(("city",), 16), {"city": cities})["city"]
    assert found.dtype == np.int32
    assert (np.bincount(found, minlength=16)[1:] > 5000 / 15 * 0.8).all()
    # CRC-32's published check value, as another hash would break trained models
    check = apply(table_categories.hashed(buckets=2**31), {"x": strings(["123456789", "", None])})["x"]
    assert check.tolist() == [0xCBF43926 % (2**31 - 1) + 1, 0, 0]


def test_hashed_columns_state_how_many_codes_they_have_as_embeddings_need():
    source = Texts(make_fields(20))
    for part, names in (
        (table_categories.hashed(buckets=9), {"colour", "city", "when"}),
        (table_categories.cross(("colour", "city"), 9), {"colour_x_city"}),
        (table_categories.cross(("colour", "city"), 9, "place"), {"place"}),
    ):
        facts = part.meta(json.loads(json.dumps(part.fit(source))))
        assert set(facts) == {f"categories:{name}" for name in names}
        assert {len(codes) for codes in facts.values()} == {9}
        found = apply(part, source.__getitems__(np.arange(20)))
        assert all(0 <= found[name].min() <= found[name].max() < 9 for name in names)


def test_a_cross_tells_rows_apart_by_all_its_columns_and_not_by_where_they_join():
    fields = {"a": strings(["a", "ab", "a", "a"]), "b": strings(["bc", "c", "bc", "bd"])}
    found = apply(table_categories.cross(("a", "b"), 2**30), fields)
    assert list(found) == ["a", "b", "a_x_b"]
    first, second, third, fourth = found["a_x_b"].tolist()
    assert first == third
    assert len({first, second, fourth}) == 3


@given(st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)))
@settings(max_examples=100, deadline=None)
def test_date_parts_are_python_s_from_texts_and_from_seconds(date):
    date = date.replace(microsecond=0)
    seconds = int(date.replace(tzinfo=datetime.UTC).timestamp())
    ahead = date.replace(tzinfo=datetime.UTC).astimezone(datetime.timezone(datetime.timedelta(hours=5.5)))
    expected = [date.year, date.month, date.day, date.weekday(), date.hour, date.minute]
    texts = strings([date.isoformat(), ahead.isoformat(), date.isoformat(" "), date])
    for column in (texts, np.array([seconds]), np.array([date], "datetime64[s]")):
        found = table.date_parts("t", table.PARTS)({"t": column}, None)
        for part, value in zip(table.PARTS, expected, strict=True):
            assert found[f"t_{part}"].dtype == np.float32
            assert (found[f"t_{part}"] == value).all(), (part, column)


def test_cyclic_parts_are_evenly_spaced_on_a_circle_and_missing_dates_are_missing_parts():
    hours = strings([*(f"2024-05-06T{hour:02}:30" for hour in range(24)), None, ""])
    found = apply(table.date_parts("t", ("year", "hour"), cyclic=True), {"t": hours})
    assert list(found) == ["t_year", "t_hour_sin", "t_hour_cos"]
    point = np.stack([found["t_hour_sin"], found["t_hour_cos"]], 1)[:24]
    np.testing.assert_allclose((point**2).sum(1), 1, rtol=1e-5)
    steps = np.linalg.norm(point - np.roll(point, 1, 0), axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    for value in found.values():
        assert np.isnan(value[24:]).all()
        assert not np.isnan(value[:24]).any()


def test_a_text_that_is_no_date_is_an_error_that_names_the_row():
    with pytest.raises(DataError, match=r"date_parts: column 't', row 1 .*'31\.12\.2024'"):
        table.date_parts("t")({"t": strings(["2024-12-31", "31.12.2024"])}, None)


def test_assembling_puts_the_columns_side_by_side_and_names_each_feature():
    fields = make_fields(missing=False)
    source = Texts(fields)
    parts = (
        table_categories.one_hot(("colour",)),
        table_categories.ordinal(("city",)),
        table.assemble(("rooms", "colour", "pay", "city")),
    )
    fit = fit_all(parts, source, None)
    found = dict(fields)
    for transform in fit.transforms:
        found = transform(found, None)
    assert list(found) == ["age", "when", "label", "features"]
    assert found["features"].dtype == np.float32
    assert found["features"].shape == (200, 8)
    np.testing.assert_array_equal(found["features"][:, 0], fields["rooms"])
    np.testing.assert_array_equal(found["features"][:, 5:7], fields["pay"])
    assert len(fit.meta["features"]) == 8
    assert fit.meta["features"][-3:] == ("pay[0]", "pay[1]", "city")
    named = table.assemble(("colour",)).fit(Texts({"colour": np.eye(2)}, {"categories:colour": ("red", "blue")}))
    assert named["features"] == ["colour=red", "colour=blue"]


def test_assembling_all_leaves_out_the_roles_and_the_texts():
    found = apply(table.assemble(), make_fields(missing=False))
    assert list(found) == ["colour", "city", "when", "label", "features"]
    assert found["features"].shape == (200, 4)


def test_missing_or_infinite_features_are_an_error_when_fitted_and_in_every_batch():
    train = make_fields(missing=False)
    bad = {**train, "age": train["age"].copy()}
    bad["age"][[3, 5]] = np.nan
    advice = r"column 'age': 2 values in 200 rows are missing .*table_numeric:impute\", columns=\('age',\)"
    with pytest.raises(DataError, match=advice):
        table.assemble().fit(Texts(bad))
    with pytest.raises(DataError, match=advice):
        apply(table.assemble(), bad, train)
    filled = apply(table_numeric.impute(), bad, bad)
    assert np.isfinite(apply(table.assemble(), filled)["features"]).all()
    bad["age"] = np.where(np.isnan(bad["age"]), np.inf, bad["age"])
    with pytest.raises(DataError, match="2 values in 200 rows are infinite"):
        table.assemble().fit(Texts(bad))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda: table_numeric.scale(("agee",)), "no column 'agee'; did you mean 'age'"),
        (lambda: table_numeric.clip(("agee",)), "no column 'agee'; did you mean 'age'"),
        (lambda: table_numeric.impute(("agee",)), "no column 'agee'; did you mean 'age'"),
        (lambda: table_categories.one_hot(("colours",)), "no column 'colours'; did you mean 'colour'"),
        (lambda: table_categories.ordinal(("colours",)), "no column 'colours'; did you mean 'colour'"),
        (lambda: table_categories.hashed(("colours",)), "no column 'colours'; did you mean 'colour'"),
        (lambda: table_categories.cross(("colours", "age")), "no column 'colours'; did you mean 'colour'"),
        (lambda: table.date_parts("then"), "no column 'then'; did you mean 'when'"),
        (lambda: table.assemble(("agee",)), "no column 'agee'; did you mean 'age'"),
        (lambda: table_numeric.scale("age"), r"expected a tuple of names"),
        (lambda: table_numeric.scale(("age", "age")), "'age' twice"),
        (lambda: table_numeric.scale(method="minimax"), "did you mean 'minmax'"),
        (lambda: table_numeric.scale(method="robust", quantiles=(0.7, 0.3)), "0 <= low < high <= 1"),
        (lambda: table_numeric.scale(method="minmax", interval=(1.0, 1.0)), "interval"),
        (lambda: table_numeric.clip((), 0.5, 1.5), "0 <= low < high <= 1"),
        (lambda: table_numeric.impute(method="average"), "valid names|did you mean"),
        (lambda: table_numeric.impute(method="constant", value="x"), "expected a finite number"),
        (lambda: table_numeric.impute(("colour",), method="constant"), "expected a text"),
        (lambda: table_categories.one_hot(unknown="zero"), "did you mean 'zeros'"),
        (lambda: table_categories.one_hot(max_categories=-1), "max_categories=-1"),
        (lambda: table_categories.hashed(buckets=1), "buckets=1: expected 2"),
        (lambda: table_categories.cross(("colour",)), "two names or more"),
        (lambda: table.date_parts("when", ("moth",)), "did you mean 'month'"),
    ],
)
def test_a_bad_setting_is_an_error_that_says_what_was_expected(part, message):
    with pytest.raises(ConfigError, match=message):
        apply(part(), make_fields())


@pytest.mark.parametrize(
    ("part", "column", "message"),
    [
        (table_numeric.scale(("x",)), strings(["a", "b"]), "column 'x' holds values such as 'a'; expected numbers"),
        (table_numeric.scale(("x",)), np.full(2, np.nan), "column 'x' has no value in the training split"),
        (table_numeric.scale(("x",)), np.array([1, np.inf]), "column 'x' holds 1 infinite values"),
        (table_numeric.impute(("x",)), strings(["a", None]), "holds texts, which have no mean"),
        (table_numeric.impute(("x",)), np.full(2, np.nan), "column 'x' has no value"),
        (table_numeric.impute(("x",), "most_frequent"), strings(["", None]), "column 'x' has no value"),
        (table_categories.one_hot(("x",)), np.ones((2, 3)), "expected one category a row"),
        (table.assemble(("x",)), strings(["1", "2"]), "column 'x' holds values such as '1'; expected numbers"),
    ],
)
def test_unusable_training_data_is_an_error_that_names_the_column(part, column, message):
    with pytest.raises(DataError, match=message):
        apply(part, {"x": column})


@pytest.mark.parametrize("name", FITTED)
def test_a_split_without_a_column_is_an_error_that_names_it(name):
    fields = make_fields()
    column = "city" if name in ("one_hot", "ordinal") else "age"
    with pytest.raises(DataError, match=f"no column {column!r}"):
        apply(FITTED[name], {n: v for n, v in fields.items() if n != column}, fields)


@pytest.mark.parametrize("factory", [table_numeric.scale, table_numeric.clip, table_numeric.impute])
def test_a_channel_of_windows_is_treated_alike_at_all_times(factory):
    series = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) * [1, 10, 100]
    series[3, 1] = np.nan
    fittable, flat = factory(columns=("x",)), factory(columns=("x",))
    learnt = fittable.fit(ArraySource({"x": series.reshape(8, 5, 3)}))
    assert learnt == flat.fit(ArraySource({"x": series}))
    windows = fittable.bind(learnt)({"x": series.reshape(8, 5, 3)}, None)["x"]
    np.testing.assert_array_equal(windows.reshape(40, 3), flat.bind(learnt)({"x": series}, None)["x"])
