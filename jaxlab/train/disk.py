"""Whether checkpoints have room on the disk: looked at before a run and before each save, as a full disk comes late."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxlab.core.errors import ConfigError, JaxlabError

_MARGIN = 2**24  # bytes: rows, logs and what a file system keeps for itself


def bytes_of(leaves: Iterable[Any]) -> int:
    """Return the bytes of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def check_save(folder: Path, step: int, needed: int) -> None:
    """Raise JaxlabError where one more checkpoint has no room."""
    free = _free(folder)
    if free < needed + _MARGIN:
        raise JaxlabError(
            f"no room to save step {step}: it takes {_megabytes(needed + _MARGIN)}, {folder} has {_megabytes(free)} "
            "free; the checkpoints before it stand, and the same command goes on from the latest"
        )


def check_run(folder: Path, keep: int, size: int) -> None:
    """Raise ConfigError where the checkpoints that stand at once, while one is written, have no room.

    Args:
      folder: theirs; it may not exist yet.
      keep: how many of the latest stay, besides the best.
      size: bytes of one.
    """
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    needed, free = (keep + 2) * size + _MARGIN - there, _free(folder)
    if free < needed:
        raise ConfigError(
            f"config.train.keep={keep}: that many checkpoints, the best and the one being written take "
            f"{_megabytes(needed)} more, of {_megabytes(size)} each; {folder} has {_megabytes(free)} free"
        )


def flush_folder(folder: Path) -> None:
    """Flush a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
