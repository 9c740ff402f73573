"""Hashes of what a run is made of, for its receipt: the rows of its data, and the code that was imported.

Rows are hashed whole where that is quick, and else by a sample that is the same each time; the receipt says which.
Usage: ``data_fingerprint(source)``, ``package_hash()``, ``own_modules()``.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core.types import DataSpec, Source
from jaxlab.data.arrays import in_memory
from jaxlab.data.subset import fingerprint

SAMPLE = 64  # rows of a source that states a fingerprint, or is large, that are read
_WHOLE_BYTES = {
    True: 2**28,
    False: 2**26,
}  # of rows in memory, or elsewhere, that are hashed whole: some tenths of a second
_MOST_MODULES = 200
_LARGEST_MODULE = 2**22  # bytes


class _Rows:
    """Some rows of a source, which says nothing of itself."""

    def __init__(self, source: Source, rows: np.ndarray) -> None:
        self._source, self._rows = source, rows
        self.spec = DataSpec(source.spec.example, len(rows), {})

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        return self._source.__getitems__(self._rows[indices])


def data_fingerprint(source: Source) -> dict[str, Any]:
    """Return what tells a split's rows from others: ``fingerprint``, ``sample`` and ``of``.

    ``fingerprint`` is what the source states of itself, or a hash of all rows, or None where neither is at hand.
    ``sample`` is a hash of rows at even distances, the first and the last among them, ``of`` says how many; it tells of
    a change that the source does not state. None where the hash is of all rows.
    """
    known, size = source.spec.meta.get("fingerprint"), len(source)
    row = sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in source.spec.example.values())
    if not known and size * row <= _WHOLE_BYTES[in_memory(source)]:
        return {"fingerprint": fingerprint(source), "sample": None, "of": f"all {size} rows"}
    rows = np.unique(np.linspace(0, size - 1, min(size, SAMPLE)).round().astype(np.int64))
    sample = fingerprint(_Rows(source, rows))
    return {"fingerprint": str(known) if known else None, "sample": sample, "of": f"{len(rows)} of {size} rows"}


def package_hash() -> str:
    """Return the SHA-256 of jaxlab's own files, names and contents."""
    folder, digest = package_folder(), hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def package_folder() -> Path:
    """Return the folder of jaxlab's own files."""
    return Path(__file__).resolve().parents[1]


def own_modules() -> dict[str, dict[str, str]]:
    """Return file and SHA-256 of each module that was imported from outside of Python, its packages and jaxlab.

    So a plug-in beside a config is told even where no repository holds it.
    """
    found = dict(sorted(_module_files())[:_MOST_MODULES])
    return {name: {"file": str(path), "sha256": file_hash(path)} for name, path in found.items()}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _module_files() -> Iterator[tuple[str, Path]]:
    named = (sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
    homes = {sys.prefix, sys.base_prefix, *named, str(package_folder())}
    others = tuple({f"{place}{os.sep}" for home in homes for place in (home, os.path.realpath(home))})
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name == "__mp_main__" or not isinstance(file, str) or not file.endswith(".py") or file.startswith(others):
            continue
        path = Path(file).resolve()  # after the comparison, as this costs more than all others here
        if path.is_file() and not str(path).startswith(others) and path.stat().st_size <= _LARGEST_MODULE:
            yield name, path
