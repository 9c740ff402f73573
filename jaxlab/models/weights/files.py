"""``.safetensors`` files of a local folder: one, or several that an index names. Reads nothing else, and never the net.

Usage: ``tensors = read("folder")``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read(path: str) -> dict[str, np.ndarray]:
    """Return the tensors of a file, or of a folder with ``model.safetensors`` or its index; half precision as float32.

    Raises:
      ConfigError: nothing of that kind there.
      DataError: a file that is damaged, or lacks what the index promises.
    """
    place = Path(path).expanduser()
    if place.is_dir() and (place / INDEX).is_file():
        try:
            listed: dict[str, str] = json.loads((place / INDEX).read_text())["weight_map"]
        except (ValueError, KeyError) as error:
            raise DataError(f"{place / INDEX}: is no index of weights: {error}") from error
        tensors = {n: x for file in sorted(set(listed.values())) for n, x in _read_file(place / file).items()}
        absent = sorted(set(listed) - set(tensors))
        if absent:
            raise DataError(f"{place / INDEX} names {absent[0]!r}, which is in none of its files")
        return tensors
    file = place / FILE if place.is_dir() else place
    if not file.is_file():
        found = sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
        there = ", ".join(found) or "nothing"
        raise ConfigError(f"{path!r}: expected a .safetensors file, or a folder with {FILE}; there is {there}")
    return _read_file(file)


def _read_file(file: Path) -> dict[str, np.ndarray]:
    safe = _library()
    try:
        tensors = safe.flax.load_file(file)
    except FileNotFoundError as error:
        raise DataError(f"{file}: is not there, but the index names it") from error
    except safe.SafetensorError as error:
        raise DataError(f"{file}: is damaged or no .safetensors file: {error}") from error
    return {name: _held(np.asarray(value)) for name, value in tensors.items()}


def _held(value: np.ndarray) -> np.ndarray:
    """Return half precision, which NumPy may lack, as float32; other types as they are."""
    return value if value.dtype.kind in "biu" else value.astype(np.float32)


def write(path: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Write ``model.safetensors`` into the folder `path`, made if need be, by one rename."""
    folder = Path(path).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{FILE}.part"
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    _library().numpy.save_file(arrays, part, metadata={"format": "pt"})
    part.replace(folder / FILE)


def _library() -> Any:
    try:
        import safetensors
        import safetensors.flax
        import safetensors.numpy
    except ImportError as error:
        raise ConfigError("weights of other libraries need safetensors: pip install 'jaxlab[weights]'") from error
    return safetensors
