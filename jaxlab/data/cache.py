"""Keeps what is slow to compute, decoded rows or tokens, as ``.npy`` files that later runs map into memory.

Texts are kept as bytes and offsets, and nothing is pickled. A cache appears by one rename, so none is ever seen half
written; one whose checksums are wrong is computed anew. Knows no data format: what a folder is called, and when it no
longer holds, is for its user to say. Usage: ``cached(places(folder, key), lambda: (arrays, {"skipped": []}))``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core import limits
from jaxlab.core.errors import DataError
from jaxlab.core.paths import inside

CACHE = "jaxlab_cache"
MANIFEST = "manifest.json"
_CHECK_BYTES = 2**22  # of a file that are in memory at once while it is checked
_TEXTS = (".bytes", ".offsets")
_MISSING = b"\xff"  # no text's bytes in UTF-8

Kept = tuple[Mapping[str, np.ndarray], Mapping[str, Any]]
"""Arrays by name, and facts about them as plain JSON."""

_log = logging.getLogger(__name__)


def key_of(*facts: Any) -> str:
    """Return a cache key that changes with any of `facts`, which are plain JSON: a fingerprint, a tokenizer's hash."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def home() -> Path:
    """Return the folder of the user's caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxlab"


def places(beside: Path, key: str) -> list[Path]:
    """Return where the folder `key` may be: next to the data, or else, where one may only read, the user's cache."""
    return [beside / CACHE / key, home() / key]


def cached(
    folders: Sequence[Path], make: Callable[[], Kept], holds: Callable[[Mapping[str, Any]], bool] = lambda facts: True
) -> Kept:
    """Return what `make` returns, computed once.

    Args:
      folders: where it may be kept, tried in order. If none can be written, a warning says so.
      make: computes arrays of numbers or texts, and facts about them.
      holds: whether what was kept still does, by its facts.

    Returns:
      Arrays and facts; large arrays of numbers read-only and mapped from their files, which processes then share.
    """
    for folder in folders:
        kept = _read(folder)
        if kept is not None and holds(kept[1]):
            return kept
    arrays, facts = make()
    failures = []
    for folder in folders:
        try:
            _write(folder, arrays, facts)
        except OSError as error:  # a full disk, or data that one may only read, is no reason to stop
            failures.append(f"{folder}: {error}")
        else:
            return _read(folder) or (arrays, facts)
    _log.warning("%s could not be kept: %s", ", ".join(arrays), "; ".join(failures))
    return arrays, facts


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a hash of the fields' names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        for part in _files(name, arrays[name]).values():
            digest.update(np.ascontiguousarray(part).data)
    return f"rows:{digest.hexdigest()}"


def ragged(documents: Sequence[np.ndarray], dtype: Any = np.int32) -> dict[str, np.ndarray]:
    """Return documents of various lengths end to end, as ``flat``, and their ``offsets`` [N + 1] int64."""
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    flat = np.concatenate([np.zeros(0, dtype), *documents], dtype=dtype, casting="same_kind")
    return {"flat": flat, "offsets": offsets}


def checksum(array: np.ndarray) -> str:
    """Return the CRC-32 of an array's dtype, shape and bytes."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    value = zlib.crc32(f"{array.dtype.str} {array.shape}".encode())
    for start in range(0, len(flat), _CHECK_BYTES):
        value = zlib.crc32(flat[start : start + _CHECK_BYTES], value)
    return f"{value:08x}"


def _files(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of numbers that stand for a field, by file name: of texts, their UTF-8 bytes and offsets."""
    if values.dtype != object:
        return {name: values}
    pieces = [_MISSING if text is None else text.encode("utf-8", "surrogatepass") for text in values]
    parts = (np.frombuffer(b"".join(pieces), np.uint8), np.cumsum([0, *map(len, pieces)], dtype=np.int64))
    return dict(zip((name + end for end in _TEXTS), parts, strict=True))


def _texts(blob: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    whole, texts = blob.tobytes(), np.empty(len(offsets) - 1, object)
    pieces = (whole[first:last] for first, last in itertools.pairwise(offsets.tolist()))
    texts[:] = [None if piece == _MISSING else piece.decode("utf-8", "surrogatepass") for piece in pieces]
    return texts


def _read(folder: Path) -> Kept | None:
    """Return what is kept in `folder`, or None if there is none or it is damaged."""
    if not (folder / MANIFEST).is_file():
        if folder.exists():
            _log.warning("the cache %s lacks %s and is computed anew", folder, MANIFEST)
        return None
    try:
        manifest = limits.read_json(folder / MANIFEST, limits.LIST_BYTES)
        sums, names, facts = manifest["checksums"], manifest["arrays"], dict(manifest["facts"])
        files = {name: _load(inside(folder, f"{name}.npy")) for name in sums}
        damaged = [name for name, value in files.items() if checksum(value) != sums[name]]
    except FileNotFoundError as error:
        _log.warning("the cache %s lacks %s and is computed anew", folder, error.filename)
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, DataError) as error:
        _log.warning("the cache %s is damaged (%s) and is computed anew", folder, error)
        return None
    if damaged:
        _log.warning("the cache %s is damaged (%s) and is computed anew", folder, ", ".join(damaged))
        return None
    return {n: files[n] if n in files else _texts(*(files[n + end] for end in _TEXTS)) for n in names}, facts


def _load(path: Path) -> np.ndarray:
    """Return the array in a file, mapped: but files of no rows cannot be, and small ones need not be."""
    array = np.load(path, mmap_mode="r" if path.stat().st_size > 2**12 else None, allow_pickle=False)
    if not isinstance(array, np.ndarray):  # an archive of several is opened as well
        raise ValueError(f"{path} holds a {type(array).__name__}")
    return array


def _write(folder: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Write `folder` by one rename; of two processes that write it, one wins with equal content."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incomplete.", dir=folder.parent) as stage:
        content = Path(stage, "content")
        content.mkdir()
        sums = {}
        for name, values in arrays.items():
            for file, part in _files(name, values).items():
                np.save(content / f"{file}.npy", part, allow_pickle=False)
                sums[file] = checksum(part)
        manifest = {"arrays": list(arrays), "checksums": sums, "facts": dict(facts)}
        (content / MANIFEST).write_text(json.dumps(manifest) + "\n")
        before = _read(folder)
        if folder.exists() and (before is None or before[1] != facts):
            folder.rename(Path(stage, "replaced"))
        if not folder.exists():
            content.rename(folder)
