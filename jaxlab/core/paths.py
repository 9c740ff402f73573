"""Paths: of folders that a user names, and those that stand in a folder's files, which may not lead out of it.

Usage: ``folder_of("~/runs/one")``, ``inside(folder, "predictions/test.parquet")``. Knows no schema.
"""

from __future__ import annotations

import os
from pathlib import Path

from jaxlab.core.errors import DataError, UsageError


def folder_of(place: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a folder that a user names.

    Raises:
      UsageError: it is a bucket's; the command line takes those, by `jaxlab.mirrored`.
    """
    if "://" in os.fspath(place):
        raise UsageError(f"{place}: expected a folder; with jaxlab.mirrored({os.fspath(place)!r}) as folder: gives one")
    return Path(place).expanduser().resolve()


def inside(folder: Path, relative: str) -> Path:
    """Return the path `relative` of a run directory, which it may not leave: not by ``..``, nor a link.

    The folder itself may be reached through a link.

    Raises:
      DataError: it leads out of `folder`.
    """
    if not isinstance(relative, str) or "\0" in relative:
        raise DataError(f"{folder}: {relative!r} is no name of a file")
    try:
        root = folder.resolve()
        leads_to = (root / relative).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, names too long
        raise DataError(f"{folder}: {relative!r} leads nowhere: {error}") from error
    if os.path.isabs(relative) or not leads_to.is_relative_to(root):
        raise DataError(f"{folder}: {relative!r} leads out of it, to {leads_to}; nothing there is read or written")
    return folder / relative


def check_links(folder: Path) -> None:
    """Raise DataError for a link anywhere in `folder` that leads out of it."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink():
                inside(folder, str(path.relative_to(folder)))
