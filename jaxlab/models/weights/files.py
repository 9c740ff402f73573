"""``.safetensors`` files of a local folder: one, or several that an index names. Reads nothing else, and never the net.

Usage: ``tensors = read("folder")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlab.core import limits
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.paths import inside

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADER_BYTES = 10**8
"""That a header may have, as the format says: a name, a type, a shape and two offsets a tensor."""

TYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "BOOL": np.bool_,
    **{f"{kind[0].upper()}{bits}": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def read(path: str) -> dict[str, np.ndarray]:
    """Return the tensors of a file, or of a folder with ``model.safetensors`` or its index; half precision as float32.

    Raises:
      ConfigError: nothing of that kind there.
      DataError: a file that is damaged, or holds other tensors than the index says.
    """
    place = Path(path).expanduser()
    file = place / FILE if place.is_dir() else place
    if file.is_file():
        return _read_file(file)
    if (place / INDEX).is_file():
        return _read_files(place / INDEX)
    found = sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
    raise ConfigError(
        f"path={path!r}: expected a .safetensors file, or a folder with {FILE} or {INDEX}; there is "
        f"{', '.join(found[:12]) or 'nothing'}"
    )


def _read_files(index: Path) -> dict[str, np.ndarray]:
    try:
        listed = {(str(name), str(file)) for name, file in limits.read_json(index)["weight_map"].items()}
    except (DataError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index}: is no index of weights: {error!r}") from error
    tensors: dict[str, np.ndarray] = {}
    found = set()
    for file in sorted({file for _, file in listed}):
        part = _read_file(inside(index.parent, file))
        found |= {(name, file) for name in part}
        tensors |= part
    for name, file in sorted(listed ^ found):
        here, there = ("in it", "not in the index") if (name, file) in found else ("in the index", "not in it")
        raise DataError(f"{index.parent / file}: {name!r} is {here}, but {there}")
    return tensors


def _read_file(file: Path) -> dict[str, np.ndarray]:
    library = _library()
    content = limits.read_bytes(file)
    header = int.from_bytes(content[:8], "little")  # its length; the library checks the offsets that it declares
    if header > min(HEADER_BYTES, len(content)):
        raise DataError(f"{file}: is damaged or no .safetensors file: its header declares {header:,} bytes")
    try:
        entries = library.deserialize(content)
    except library.SafetensorError as error:
        raise DataError(f"{file}: is damaged or no .safetensors file: {error}") from error
    return {name: _array(entry, f"{file}: {name!r}") for name, entry in sorted(entries, key=lambda pair: pair[0])}


def _array(entry: Mapping[str, Any], where: str) -> np.ndarray:
    kind = entry["dtype"]
    if kind not in TYPES:
        raise DataError(f"{where} is of the type {kind}; expected one of {', '.join(TYPES)}")
    value = np.frombuffer(entry["data"], TYPES[kind]).reshape(entry["shape"])
    return value.astype(np.float32) if kind in ("F16", "BF16") else value


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
        import safetensors.numpy
    except ImportError as error:
        raise ConfigError("weights of other libraries need safetensors: pip install 'jaxlab[weights]'") from error
    return safetensors
