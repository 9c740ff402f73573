"""Keeps decoded arrays on disk, so that data is decoded once: numbers as ``.npy`` files, texts as bytes and offsets.

A cache folder appears by one rename, complete, and holds no pickle. Knows no data format: what a folder is called,
and when it no longer holds, is for the source that uses it to say.
Usage: ``write([root / CACHE / key], arrays, {"fingerprint": fingerprint})``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core.errors import DataError

CACHE = "jaxlab_cache"
MANIFEST = "manifest.json"

_log = logging.getLogger(__name__)


def places(beside: Path, key: str) -> list[Path]:
    """Return where the folder `key` may be: next to the data, or else, where one may only read, the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return [beside / CACHE / key, Path(home) / "jaxlab" / key]


def read(folders: Sequence[Path]) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Return the arrays and facts of the first of `folders` that exists, None where none does.

    Raises:
      DataError: the folder is damaged.
    """
    for folder in folders:
        if not (folder / MANIFEST).is_file():
            continue
        try:
            facts = json.loads((folder / MANIFEST).read_text())
            names = facts.pop("arrays", None) or [path.stem for path in folder.glob("*.npy")]
            return {name: _load(folder, name) for name in names}, facts
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"the decoded rows in {folder} are damaged ({error}); delete that folder") from error
    return None


def write(folders: Sequence[Path], arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Write `arrays` and `facts` (plain JSON) into the first of `folders` that can be written; else only warn.

    Of two processes that write the same folder one wins, with equal content.
    """
    failures = []
    for folder in folders:
        try:
            return _write(folder, arrays, facts)
        except OSError as error:  # data that one may only read is no reason to stop
            failures.append(f"{folder}: {error}")
    _log.warning("decoded rows could not be kept: %s", "; ".join(failures))
    return None


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a hash of the fields' names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        if arrays[name].dtype == object:
            blob, offsets = _packed(arrays[name])
            digest.update(offsets.data)
            digest.update(blob.data)
        else:
            digest.update(np.ascontiguousarray(arrays[name]).data)
    return f"rows:{digest.hexdigest()}"


def _packed(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the texts' UTF-8 bytes end to end, and where each begins and ends."""
    pieces = [text.encode("utf-8") for text in texts]
    return np.frombuffer(b"".join(pieces), np.uint8), np.cumsum([0, *map(len, pieces)], dtype=np.int64)


def _write(folder: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incomplete.", dir=folder.parent) as stage:
        content = Path(stage, "content")
        content.mkdir()
        for name, values in arrays.items():
            if values.dtype == object:
                blob, offsets = _packed(values)
                np.save(content / f"{name}.bytes.npy", blob)
                np.save(content / f"{name}.offsets.npy", offsets)
            else:
                np.save(content / f"{name}.npy", values, allow_pickle=False)
        (content / MANIFEST).write_text(json.dumps({**facts, "arrays": sorted(arrays)}) + "\n")
        if not folder.exists():
            content.rename(folder)


def _load(folder: Path, name: str) -> np.ndarray:
    if not (folder / f"{name}.offsets.npy").is_file():
        return np.load(folder / f"{name}.npy", allow_pickle=False)
    blob = np.load(folder / f"{name}.bytes.npy", allow_pickle=False).tobytes()
    offsets = np.load(folder / f"{name}.offsets.npy", allow_pickle=False).tolist()
    texts = np.empty(len(offsets) - 1, object)
    texts[:] = [blob[first:last].decode("utf-8") for first, last in itertools.pairwise(offsets)]
    return texts
