"""Folders of checkpoints: put in place, removed and swept so that half of one is never taken for one.

Usage: write to ``folder / f"{SAVING}{step}"``, then ``put_in_place(that, folder / str(step))``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from jaxlab.train import disk, manifest

SAVING = ".saving-"
_OLD, _TEMPORARY = ".old-", ".orbax-checkpoint-tmp"


def put_in_place(saving: Path, place: Path) -> None:
    """Make a finished folder the step's, whatever stood there."""
    old = place.with_name(f"{_OLD}{place.name}")
    if place.exists():
        place.rename(old)
    saving.rename(place)
    disk.flush_folder(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a checkpoint so that half of it is never taken for one."""
    old = folder.with_name(f"{_OLD}{folder.name}")
    folder.rename(old)
    (old / manifest.NAME).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed writer left; a checkpoint that it was about to replace is put back."""
    for path in folder.iterdir():
        place = folder / path.name.removeprefix(_OLD)
        half = path.name.startswith((SAVING, _OLD)) or _TEMPORARY in path.name
        if path.name.startswith(_OLD) and not place.exists() and manifest.read(path) is not None:
            path.rename(place)
        elif half or (path.name.isdigit() and path.is_dir() and not (path / manifest.NAME).is_file()):
            shutil.rmtree(path)
