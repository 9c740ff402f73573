"""Keeps what is slow to compute, such as tokens, as ``.npy`` files that later runs map into memory. Knows no tokenizer.

A cache appears by one rename, so none is ever seen half written. One whose checksums are wrong is computed anew.
Usage: ``cached(key, lambda: ragged(documents), folder)["flat"]``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError

MANIFEST = "manifest.json"
_CHECK_BYTES = 2**22  # of a file that are in memory at once while it is checked

_log = logging.getLogger(__name__)


def key_of(*facts: Any) -> str:
    """Return a cache key that changes with any of `facts`, which are plain JSON: a fingerprint, a tokenizer's hash."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def cached(key: str, make: Callable[[], Mapping[str, np.ndarray]], folder: str | Path) -> Mapping[str, np.ndarray]:
    """Return the arrays that `make` returns, computed once.

    Args:
      key: names the content; see `key_of`.
      make: computes arrays of numbers by name.
      folder: where caches are kept. If nothing can be written there, a warning says so and the arrays are returned.

    Returns:
      The arrays, read-only and mapped from their files, which other processes then share.

    Raises:
      ConfigError: a key or a name of an array that is no file name.
      DataError: an array that is not numbers.
    """
    _check_name(key)
    place = Path(folder).expanduser() / key
    found = _opened(place)
    if found is not None:
        return found
    arrays = {name: np.asarray(value) for name, value in make().items()}
    for name, value in arrays.items():
        _check_name(name)
        if value.dtype.kind not in "biuf":
            raise DataError(f"array {name!r} has dtype {value.dtype}; only numbers can be cached")
    try:
        _write(place, arrays)
    except OSError as error:  # a full disk or a folder that one may only read is no reason to stop
        _log.warning("%s could not be kept in %s: %s", ", ".join(arrays), place, error)
        return arrays
    written = _opened(place)
    return arrays if written is None else written


def ragged(documents: Sequence[np.ndarray], dtype: Any = np.int32) -> dict[str, np.ndarray]:
    """Return documents of various lengths end to end, as ``flat``, and their ``offsets`` [N + 1] int64."""
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    flat = np.concatenate([np.zeros(0, dtype), *documents], dtype=dtype, casting="same_kind")
    return {"flat": flat, "offsets": offsets}


def unragged(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return the documents that `ragged` was given, as views."""
    return np.split(arrays["flat"], arrays["offsets"][1:-1]) if len(arrays["offsets"]) > 1 else []


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(f"{name!r} cannot name a cache; expected letters, digits, '_', '-' and '.'")


def _opened(place: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of a cache, mapped, or None if there is none or it is damaged."""
    try:
        sums = dict(json.loads((place / MANIFEST).read_text())["checksums"])
        arrays = {name: np.load(place / f"{name}.npy", mmap_mode=_mode(place / f"{name}.npy")) for name in sums}
        damaged = [name for name, value in arrays.items() if checksum(value) != sums[name]]
    except FileNotFoundError as error:
        if place.exists():
            _log.warning("the cache %s lacks %s and is computed anew", place, error.filename)
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        _log.warning("the cache %s is damaged (%s) and is computed anew", place, error)
        return None
    if damaged:
        _log.warning("the cache %s is damaged (%s) and is computed anew", place, ", ".join(damaged))
        return None
    return arrays


def _mode(path: Path) -> str | None:
    """Return the mode in which to open an array: files of no rows cannot be mapped, and small ones need not be."""
    return "r" if path.stat().st_size > 2**12 else None


def checksum(array: np.ndarray) -> str:
    """Return the CRC-32 of an array's dtype, shape and bytes."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    value = zlib.crc32(f"{array.dtype.str} {array.shape}".encode())
    for start in range(0, len(flat), _CHECK_BYTES):
        value = zlib.crc32(flat[start : start + _CHECK_BYTES], value)
    return f"{value:08x}"


def _write(place: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the folder `place` by one rename; of two processes that write it, one wins with equal content."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incomplete.", dir=place.parent) as folder:
        content = Path(folder, "content")
        content.mkdir()
        for name, values in arrays.items():
            np.save(content / f"{name}.npy", values, allow_pickle=False)
        sums = {name: checksum(values) for name, values in arrays.items()}
        (content / MANIFEST).write_text(json.dumps({"checksums": sums}) + "\n")
        if place.exists() and _opened(place) is None:
            place.rename(Path(folder, "damaged"))
        if not place.exists():
            content.rename(place)
