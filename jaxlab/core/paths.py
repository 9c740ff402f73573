"""Paths of a run directory, or of a data set's folder, that stand in its files: they may not lead out of it.

Usage: ``inside(folder, "predictions/test.parquet")``. Knows no schema.
"""

from __future__ import annotations

import os
from pathlib import Path

from jaxlab.core.errors import DataError


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
