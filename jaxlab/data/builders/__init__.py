"""The data sets that ``scripts/prepare_data.py`` can prepare, one module each.

A data set is a module here with two names: a TFDS ``Builder`` whose ``name`` is the module's, and
``fetch(folder: Path) -> str``, which fills `folder` with the files that the builder reads (as its
``dl_manager.manual_dir``), raises `DataError` where it cannot, and returns the source it used.
Where the files number what a field holds from 0 and name nothing (users, items), the builder may have ``CATEGORIES``,
the names of the codes by field: facts of the data beside what was prepared.
Adding a file here adds a data set; a module of your own with the same two names works as ``"module:Builder"``.
"""

from __future__ import annotations

import pkgutil


def names() -> list[str]:
    """Return the names of the data sets that have a builder here."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
