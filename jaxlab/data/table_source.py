"""A table in memory, from a CSV, Parquet or JSONL file, whose columns have roles: features, target, group, time.

Rows keep the file's order, so a prediction's ``id`` is the row's number in the file, counted from 0.
Usage: ``spec("jaxlab.data.table_source:make", path="shirts.csv", target="size", features=("length", "colour"))``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Source
from jaxlab.data.arrays import ArraySource
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.table_files import read_table

if TYPE_CHECKING:
    import pyarrow as pa

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
TASKS = ("classification", "regression")
_RESERVED = ("id", "mask")  # a batch's own fields


def make(
    path: str,
    target: str | None = None,
    features: tuple[str, ...] = (),
    id: str | None = None,
    group: str | None = None,
    time: str | None = None,
    classes: tuple[str, ...] = (),
    task: str | None = None,
    missing_values: tuple[str, ...] = MISSING,
) -> Source:
    """Return the table's rows: a field for each feature, by its column's name, and one for each role given.

    Features: numbers are float32 or int32, and float32 with NaN where values are missing; booleans stay; texts are
    ``str`` objects, None where missing; dates are texts in ISO 8601. ``label`` int32 is a classification's target and
    ``target`` float32 a regression's. ``group`` int32 numbers the sorted values of its column. ``time`` is the column's
    numbers, or for dates the whole seconds since 1970, UTC, as int32 (1901 to 2038).

    Args:
      path: a .csv, .csv.gz, .jsonl, .jsonl.gz or .parquet file.
      target: the column to predict.
      features: the columns to serve; empty is all that have no other role.
      id: a column that names rows: checked to be unique, and served as no field.
      group: the column of which no value may be on both sides of a split.
      time: the column to split and window by.
      classes: the target's classes in the order of their numbers; empty is its sorted values. Give them where
        several files, such as a train and a test file, must agree.
      task: classification or regression; None is classification if `classes` are given or the target isn't numbers.
      missing_values: texts that mean a missing value, in a CSV file.

    Raises:
      ConfigError: no such suffix or task, or a column in two roles that exclude each other.
      DataError: no such file or column, a broken file, missing or unknown values in target, group, time or id.
    """
    if task not in (None, *TASKS):
        raise ConfigError(f"task={task!r}: expected one of {', '.join(TASKS)}{did_you_mean(str(task), TASKS)}")
    table, fingerprint = read_table(path, tuple(missing_values))
    roles = {"target": target, "id": id, "group": group, "time": time}
    roles = {role: name for role, name in roles.items() if name is not None}
    names = _feature_names(path, table, roles, tuple(features))
    for role, name in roles.items():
        _check_complete(path, table[name], f"{role} column {name!r}")
    fields = {name: _values(path, name, table[name]) for name in names}
    found: tuple[str, ...] = ()
    if target is not None and _is_classification(table[target].type, tuple(classes), task):
        fields["label"], found = _labels(path, target, table[target], tuple(classes))
    elif target is not None:
        fields["target"] = _numbers(path, f"target column {target!r}", table[target]).astype(np.float32)
    if id is not None:
        _check_unique(path, id, table[id])
    if group is not None:
        fields["group"] = _sorted_codes(_plain(path, f"group column {group!r}", table[group]))[0]
    if time is not None:
        fields["time"] = _times(path, time, table[time])
    meta = {"name": Path(path).name, "features": names, "classes": found, "roles": roles, "fingerprint": fingerprint}
    texts = any(value.dtype == object for value in fields.values())
    try:
        return ColumnSource(fields, meta) if texts else ArraySource(fields, meta)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _feature_names(path: str, table: pa.Table, roles: dict[str, str], features: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the features; check that they and the roles' columns are there and do not clash."""
    columns = table.column_names
    for parameter, name in [*roles.items(), *(("features", name) for name in features)]:
        if name not in columns:
            raise DataError(f"{path}: {parameter}: no column {name!r}{did_you_mean(name, columns)}")
    twice = sorted({name for name in features if features.count(name) > 1})
    if twice:
        raise ConfigError(f"features={features!r}: {twice[0]!r} is there more than once")
    secret = [role for role in ("target", "id") if roles.get(role) in features]
    if secret:
        raise ConfigError(f"features={features!r}: {roles[secret[0]]!r} is the {secret[0]}; it cannot be a feature too")
    for role, name in roles.items():
        if role != "target" and name == roles.get("target"):
            raise ConfigError(f"{role}={name!r}: this column is the target; it cannot be the {role} too")
    names = features or tuple(name for name in columns if name not in roles.values())
    served = {"group", "time"} & roles.keys() | ({"label", "target"} if "target" in roles else set())
    clash = [name for name in names if name in served or name in _RESERVED]
    if clash:
        raise DataError(
            f"{path}: feature {clash[0]!r} has the name of a field of jaxlab's own; rename it or leave it out"
        )
    if "" in names:
        raise DataError(f"{path}: column {columns.index('')} has no name (pandas' index?); name others in features")
    if not names and "target" not in roles:
        raise DataError(f"{path}: no column is left to be a feature")
    return names


def _check_complete(path: str, column: pa.ChunkedArray, what: str) -> None:
    from pyarrow import compute

    missing = np.flatnonzero(compute.is_null(column, nan_is_null=True).to_numpy())
    if len(missing):
        raise DataError(
            f"{path}: {what}: {len(missing)} of {len(column)} values are missing, first in row {missing[0]}"
        )


def _check_unique(path: str, name: str, column: pa.ChunkedArray) -> None:
    codes, values = _sorted_codes(_plain(path, f"id column {name!r}", column))
    if len(values) < len(codes):
        _, first = np.unique(codes, return_index=True)
        row = int(np.setdiff1d(np.arange(len(codes)), first)[0])
        raise DataError(
            f"{path}: id column {name!r}: {values[codes[row]]!r} is there more than once, again in row {row}"
        )


def _is_classification(kind: pa.DataType, classes: tuple[str, ...], task: str | None) -> bool:
    from pyarrow import types

    if task is not None:
        return task == "classification"
    return bool(classes) or not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _plain(path: str, what: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column as int, float64, bool, text or timestamp; refuse lists, mappings and bytes."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(path, what, column.cast(kind.value_type))
    if pa.types.is_decimal(kind) or pa.types.is_null(kind) or pa.types.is_floating(kind):
        return column.cast(pa.float64())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_time(kind):
        return column.cast(pa.string())
    kinds = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_date, pa.types.is_timestamp)
    if not any(test(kind) for test in kinds):
        raise DataError(f"{path}: {what} holds {kind}; expected numbers, booleans, texts or dates")
    return column


def _values(path: str, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return a feature's values [N]: numbers, booleans, or texts as objects."""
    from pyarrow import types

    column = _plain(path, f"column {name!r}", column)
    if types.is_string(column.type) or types.is_temporal(column.type):
        values = np.empty(len(column), object)
        values[:] = [v if v is None or isinstance(v, str) else v.isoformat() for v in column.to_pylist()]
        return values
    if types.is_boolean(column.type) and not column.null_count:
        return column.to_numpy()
    return _numbers(path, f"column {name!r}", column)


def _numbers(path: str, what: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return the numbers [N] as they are if all are there and integers, else float32 with NaN."""
    import pyarrow as pa

    column = _plain(path, what, column)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        raise DataError(f"{path}: {what} holds {column.type}, first {column[0].as_py()!r}; expected numbers")
    if pa.types.is_integer(column.type) and not column.null_count:
        return column.to_numpy()
    wide = column.cast(pa.float64(), safe=False).to_numpy()
    large = np.flatnonzero(np.isfinite(wide) & (np.abs(wide) > np.finfo(np.float32).max))
    if len(large):
        raise DataError(f"{path}: {what}: {wide[large[0]]} in row {large[0]} does not fit float32")
    return wide.astype(np.float32)


def _sorted_codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[Any]]:
    """Return each row's place [N] among the sorted distinct values, and those values."""
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    order = sorted(range(len(values)), key=values.__getitem__)
    rank = np.empty(len(values), np.int32)
    rank[order] = np.arange(len(values))
    return rank[encoded.indices.to_numpy()], [values[i] for i in order]


def _class_name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _labels(
    path: str, name: str, column: pa.ChunkedArray, classes: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class numbers [N] int32 and the classes' names."""
    codes, values = _sorted_codes(_plain(path, f"target column {name!r}", column))
    present = [_class_name(value) for value in values]
    wanted = [_class_name(value) for value in classes] or present
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"classes={classes!r}: a class is there more than once")
    for code, value in enumerate(present):
        if value not in wanted:
            row = int(np.argmax(codes == code))
            raise DataError(f"{path}: column {name!r}, row {row}: {value!r} is no class{did_you_mean(value, wanted)}")
    number = {value: i for i, value in enumerate(wanted)}
    return np.array([number[value] for value in present], np.int32)[codes], tuple(wanted)


def _times(path: str, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return the times [N]: numbers as they are, dates as int64 seconds since 1970, rounded down."""
    import pandas as pd
    from pyarrow import types

    what = f"time column {name!r}"
    column = _plain(path, what, column)
    if types.is_temporal(column.type):
        return column.to_numpy().astype("datetime64[s]").astype(np.int64)
    if not types.is_string(column.type):
        return _numbers(path, what, column)
    texts = column.to_pylist()
    dates = pd.to_datetime(pd.Series(texts, dtype=object), errors="coerce", utc=True, format="ISO8601")
    wrong = np.flatnonzero(dates.isna().to_numpy())
    if len(wrong):
        raise DataError(
            f"{path}: {what}, row {wrong[0]}: {texts[wrong[0]]!r} is no date in ISO 8601 (2024-05-31T18:00)"
        )
    return dates.dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)
