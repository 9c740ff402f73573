"""Splits as files: the indices of each part with a seed and fingerprints, and lists of rows to leave out.

An index file is JSON: seed, by, base_fingerprint, size (rows of the whole data), parts (name to indices) and
fingerprint, a hash of all that. A filter file is ``{SPLIT: {"drop": [index, ...]}}``, as an audit writes it;
base_fingerprint and size of a split are checked where it has them.
Usage: ``spec("jaxlab.data.splits:from_file", source=spec("..."), path="split.json", part="train")``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core import limits
from jaxlab.core.errors import DataError, did_you_mean


def write(path: str, content: Mapping[str, Any]) -> None:
    """Write an index file and its fingerprint by one rename."""
    whole = {**content, "fingerprint": digest(content)}
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.incomplete")
    partial.write_text(json.dumps(whole) + "\n")
    partial.replace(target)


def digest(content: Mapping[str, Any]) -> str:
    """Return the hash of all of an index file's entries but its fingerprint."""
    rest = {name: value for name, value in content.items() if name != "fingerprint"}
    return f"file:{hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}"


def load(path: str, base_fingerprint: str, size: int, split: str | None = None) -> dict[str, Any]:
    """Return a file's content, or its entry `split`; DataError if unreadable, changed, or of other data."""
    content = _object(path)
    if split is not None:
        if not isinstance(content.get(split), dict):
            raise DataError(f"{path}: no split {split!r}{did_you_mean(split, content)}")
        content = content[split]
    if content.get("size", size) != size:
        raise DataError(f"{path} is of data with {content['size']} rows; this data has {size}")
    if content.get("base_fingerprint", base_fingerprint) != base_fingerprint:
        raise DataError(
            f"{path} is of data with the fingerprint {content['base_fingerprint']}; this data's is {base_fingerprint}"
        )
    if content.get("fingerprint", digest(content)) != digest(content):
        raise DataError(f"{path} has been changed since it was written: its fingerprint does not fit its content")
    return content


def _object(path: str) -> dict[str, Any]:
    content = limits.read_json(Path(path), limits.LIST_BYTES)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected an object")
    return content


def indices(path: str, what: str, values: Any, size: int) -> np.ndarray:
    """Return a list of a file as indices [n] int64; DataError unless they are different row numbers below `size`."""
    if not isinstance(values, Sequence) or not all(type(value) is int for value in values):
        raise DataError(f"{path}: {what!r}: expected a list of row numbers")
    found = np.asarray(values, np.int64)
    wrong = found[(found < 0) | (found >= size)]
    if len(wrong):
        raise DataError(f"{path}: {what!r}: index {wrong[0]} is outside the data's {size} rows")
    unique, counts = np.unique(found, return_counts=True)
    if len(unique) < len(found):
        raise DataError(f"{path}: {what!r}: index {unique[counts > 1][0]} is there more than once")
    return found


def check_overlap(path: str, parts: Mapping[str, np.ndarray]) -> None:
    """Raise DataError if two parts of a file share a row."""
    names = list(parts)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            shared = np.intersect1d(parts[name], parts[other])
            if len(shared):
                first = ", ".join(map(str, shared[:5]))
                raise DataError(f"{path}: the parts {name!r} and {other!r} share {len(shared)} rows: {first}")
