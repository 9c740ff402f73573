"""Reads files of unknown origin: their size, kind and depth are checked before anything is made of them.

A run directory or a data file may come from anyone, so one that is larger than jaxlab writes it, is no regular file, or
nests without end is a DataError that names it, not an exhausted machine. Knows no schema.
Usage: ``value = read_json(path, JSON_BYTES)``.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlab.core.errors import DataError

JSON_BYTES = 2**26
"""Of config, evaluation, summary, receipt, index: a receipt holds a diff of a megabyte, all others much less."""

LIST_BYTES = 2**30
"""Of rows of metrics, row numbers of splits and what transforms have learnt: a hundred million numbers."""

DEPTH = 100
"""Levels that JSON may nest: a config has about ten, and Python's own limit ends in a RecursionError."""


def memory_bytes() -> int:
    """Return this machine's memory: what is to be held in it can be no larger, whatever a file declares."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_size(what: object, size: int, limit: int) -> None:
    """Raise DataError where `what` has, or says that it will have, more than `limit` bytes."""
    if size > limit:
        raise DataError(f"{what}: {size:,} bytes; at most {limit:,} are read")


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Return the content of a regular file of at most `limit` bytes, the machine's memory where that is None.

    Raises:
      DataError: it is larger, is no regular file (a pipe would never end), or cannot be read.
    """
    most = memory_bytes() if limit is None else limit
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = os.strerror(errno.EISDIR) if stat.S_ISDIR(status.st_mode) else "Not a regular file"
            raise DataError(f"{path}: cannot be read: {kind}")
        check_size(path, status.st_size, most)
        with path.open("rb") as file:
            return file.read(status.st_size)  # and no more, should it grow meanwhile
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_json(path: Path, limit: int = JSON_BYTES) -> Any:
    """Return the value in a JSON file.

    Raises:
      DataError: see `read_bytes`; or it is no JSON in UTF-8, or nests deeper than `DEPTH`.
    """
    return parse_json(read_bytes(path, limit), path)


def parse_json(text: bytes | str, where: object) -> Any:
    """Return the value of JSON text, of a depth of at most `DEPTH`; a DataError that begins with `where` if it is none.

    Numbers that are not finite, which JSON has not but Python writes, are taken.
    """
    try:
        value = json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError as error:
        raise DataError(f"{where}: nests deeper than {DEPTH} levels") from error
    except ValueError as error:  # of JSON, and of text that is not UTF-8
        raise DataError(f"{where}: not JSON: {error}") from error
    level = [value]
    for _ in range(DEPTH):
        level = [x for holder in level for x in _children(holder)]
        if not level:
            return value
    raise DataError(f"{where}: nests deeper than {DEPTH} levels")


def _children(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in inner if isinstance(child, dict | list)]


def gunzip(raw: bytes, where: object, limit: int | None = None) -> bytes:
    """Return what gzip has compressed, if it is at most `limit` bytes, the machine's memory where that is None.

    A thousandth of what comes out is enough to make it, so the size is looked at while unpacking.

    Raises:
      DataError: not gzip, cut off, damaged, or larger.
    """
    most = memory_bytes() if limit is None else limit
    try:
        with gzip.open(io.BytesIO(raw)) as file:
            return read_at_most(file.read, most, where)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where}: not a whole gzip file: {error}") from error


def read_at_most(read: Callable[[int], bytes], limit: int, where: object) -> bytes:
    """Return all that `read` gives, piece by piece, if it is at most `limit` bytes; a DataError if it is more."""
    pieces, size = [], 0
    while piece := read(min(2**20, limit + 1 - size)):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise DataError(f"{where}: unpacks to more than {limit:,} bytes, which are the most that are read")
    return b"".join(pieces)


def check_parquet(file: Any, where: object, limit: int | None = None) -> None:
    """Raise DataError where the footer of a `pyarrow.parquet.ParquetFile` declares more than `limit` bytes.

    Values may be repeated by the million in a few bytes, so they are counted at eight bytes each beside the size that
    the footer gives.
    """
    meta = file.metadata
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    columns = [group.column(j) for group in groups for j in range(meta.num_columns)]
    declared = max(sum(group.total_byte_size for group in groups), 8 * sum(column.num_values for column in columns))
    check_size(f"{where}: by its footer", declared, memory_bytes() if limit is None else limit)
