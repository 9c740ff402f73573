"""What a whole checkpoint consists of: its files with their digests, its leaves, and what was measured of it.

Written last, the manifest is the commit: a step without one is no checkpoint. Orbax itself checks no data it reads.
Knows no format but names: the leaf ``state/params/kernel`` stands in the folder ``state.params.kernel``.
Usage: ``write(folder, Manifest(...))``; later ``damage(folder, read(folder))`` is None or says what is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxlab.core import limits, record
from jaxlab.core.errors import DataError
from jaxlab.core.paths import inside

NAME = "manifest.json"
ITEM = "default"  # the folder of the arrays within a step's: where Orbax's own manager looks for them


class Manifest(NamedTuple):
    """A checkpoint's contents; `files` are (bytes, SHA-256) by path, `leaves` (shape, dtype) by name."""

    step: int
    metrics: Mapping[str, float]
    leaves: Mapping[str, tuple[list[int], str]]
    files: Mapping[str, tuple[int, str]]


class Damage(NamedTuple):
    """A file that is not as it was saved."""

    file: Path
    leaf: str | None
    problem: str

    def __str__(self) -> str:
        """Name the file and the leaf whose numbers stand in it."""
        return f"{self.file} {self.problem}{f' (it holds {self.leaf})' if self.leaf else ''}"


def digests(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of every file below `folder`, each of them flushed to the disk first."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / NAME):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            found[str(path.relative_to(folder))] = (
                path.stat().st_size,
                hashlib.file_digest(file, "sha256").hexdigest(),
            )
    return found


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a step's folder, whole or not at all, with a digest of its own."""
    contents = record.jsonable(manifest._asdict())
    record.write_json(folder / NAME, {**contents, "sha256": _digest(contents)})


def read(folder: Path) -> Manifest | None:
    """Return the manifest of a step's folder; None where there is none, or it is not what was written."""
    try:
        found: dict[str, Any] = limits.read_json(folder / NAME, limits.LIST_BYTES)
        if found.pop("sha256") != _digest(found):
            return None
        measured = {name: float(value) for name, value in found["metrics"].items()}  # nan and inf are written as names
        return Manifest(int(found["step"]), measured, found["leaves"], found["files"])
    except (DataError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _digest(contents: Any) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def damage(folder: Path, manifest: Manifest, names: Iterable[str] | None = None) -> Damage | None:
    """Return the first file that is missing or differs from what was saved; reads every byte.

    Args:
      folder: of the step.
      manifest: its own.
      names: of the files to look at; None: all.

    Raises:
      DataError: a file's name leads out of `folder`.
    """
    for name in manifest.files if names is None else names:
        size, digest = manifest.files[name]
        path = inside(folder, name)
        try:
            with path.open("rb") as file:
                found, now = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return Damage(path, _leaf(name, manifest), f"cannot be read: {error.strerror}")
        if found != size:
            return Damage(path, _leaf(name, manifest), f"has {found} bytes; {size} were saved")
        if now != digest:
            return Damage(path, _leaf(name, manifest), "is not what was saved: its SHA-256 differs")
    return None


def _leaf(file: str, manifest: Manifest) -> str | None:
    parts = Path(file).parts
    folders = {name.replace("/", "."): name for name in manifest.leaves}
    return folders[parts[1]] if len(parts) > 2 and parts[1] in folders else None
