"""Reads a CSV, Parquet or JSONL file whole, as an Arrow table, or says exactly where it is broken.

Knows no roles of columns: `jaxlab.data.table_source` gives them. Types are inferred from all rows, not from the first.
Usage: ``table, fingerprint = read_table("data/shirts.csv", ("", "NA"))``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlab.core import limits
from jaxlab.core.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # what pandas adds of its own to a Parquet file


def read_table(path: str, missing_values: tuple[str, ...] = ("",)) -> tuple[pa.Table, str]:
    """Return the file's columns and its fingerprint, the SHA-256 of its bytes.

    Args:
      path: a file whose name ends in one of `SUFFIXES`.
      missing_values: texts that mean a missing value in a CSV file; JSONL and Parquet have nulls of their own.

    Raises:
      ConfigError: the suffix is none of `SUFFIXES`.
      DataError: no such file, no rows, a column twice, or a broken row, named by its line or byte.
    """
    file = Path(path).expanduser()
    suffix = next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise ConfigError(f"path={path!r}: expected a name that ends in {', '.join(SUFFIXES)}")
    raw = _bytes_of(file)
    data = limits.gunzip(raw, file) if suffix.endswith(".gz") else raw
    if suffix == ".parquet":
        table = _parquet(file, data)
    else:
        _check_utf8(file, data)
        table = _csv(file, data, missing_values) if suffix.startswith(".csv") else _jsonl(file, data)
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise DataError(f"{file}: columns that are there more than once: {', '.join(map(repr, twice))}")
    if not table.num_rows:
        raise DataError(f"{file}: holds no rows; its columns are {', '.join(table.column_names) or 'none'}")
    return table, f"file:{hashlib.sha256(raw).hexdigest()}"


def _bytes_of(file: Path) -> bytes:
    if "\0" not in str(file) and not file.exists():
        if not file.parent.is_dir():
            raise DataError(f"{file}: no such file, and no folder {file.parent}")
        names = [path.name for path in file.parent.iterdir() if path.is_file()]
        near = did_you_mean(file.name, names) if "did you mean" in did_you_mean(file.name, names) else ""
        raise DataError(f"{file}: no such file{near}")
    return limits.read_bytes(file)


def _check_utf8(file: Path, data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise DataError(
            f"{file}: byte {error.start} (0x{byte:02x}, line {line}) is not UTF-8; re-save it as UTF-8"
        ) from error


def _csv(file: Path, data: bytes, missing_values: tuple[str, ...]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    broken: list[Any] = []

    def note(row: Any) -> str:
        broken.append(row)
        return "skip"

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            # one block, as Arrow infers a column's type from the first block alone
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=min(len(data) + 1, 2**31 - 1)),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=arrow_csv.ConvertOptions(null_values=list(missing_values), strings_can_be_null=True),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{file}: {'is empty' if not data.strip() else error}") from error
    if broken:
        row = broken[0]
        line = _line_of_first_ragged_row(data, row.expected_columns) or row.number
        counts = f"{row.actual_columns} fields where the header has {row.expected_columns}"
        raise DataError(f"{file}: line {line} has {counts} ({len(broken)} such rows in all): {row.text[:80]!r}")
    _warn_of_odd_texts(file, table)
    return table


def _warn_of_odd_texts(file: Path, table: pa.Table) -> None:
    """Log the first text of a column that would be numbers but for a few, such as one mistyped."""
    import pandas as pd
    from pyarrow import types

    for name, column in zip(table.column_names, table.columns, strict=True):
        given = column.to_pandas().dropna() if types.is_string(column.type) else pd.Series([], dtype=object)
        odd = given[pd.to_numeric(given, errors="coerce").isna()]
        if 0 < 2 * len(odd) < len(given):
            first = f"{odd.iloc[0]!r} in row {odd.index[0]}"
            _log.warning("%s: column %r is of texts, as %d are no numbers, first %s", file, name, len(odd), first)


def _line_of_first_ragged_row(data: bytes, expected: int) -> int | None:
    """Return the line in the file, blank lines and line breaks in quotes counted, which Arrow does not say."""
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    before = 0
    for row in reader:
        if row and len(row) != expected:
            return before + 1
        before = reader.line_num
    return None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {name!r} is there more than once")
    return found


def _jsonl(file: Path, data: bytes) -> pa.Table:
    """Return one column a name, in order of first appearance; null where a line lacks it."""
    import pyarrow as pa

    rows = []
    for number, line in enumerate(io.StringIO(data.decode("utf-8-sig")), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_no_repeats)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{file}: line {number} is a {type(row).__name__}; expected an object, {{...}}")
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns.append(pa.array(values))
        except UnicodeEncodeError as error:
            raise DataError(f"{file}: column {name!r} holds a half of a surrogate pair: {error}") from error
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            kinds = {
                type(value).__name__: place for place, value in reversed(list(enumerate(values))) if value is not None
            }
            first = ", ".join(
                f"{kind} first in row {place}" for kind, place in sorted(kinds.items(), key=lambda k: k[1])
            )
            raise DataError(f"{file}: column {name!r} mixes kinds of values: {first}") from error
    return pa.table(columns, names=names)


def _parquet(file: Path, data: bytes) -> pa.Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(pa.BufferReader(data))
        limits.check_parquet(opened, file)
        table = opened.read()
        table.validate(full=True)  # texts that are not UTF-8 among them
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file: {' '.join(str(error).split())}") from error
    return table.select([i for i, name in enumerate(table.column_names) if not _PANDAS_INDEX.fullmatch(name)])
