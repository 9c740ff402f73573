"""Arrays larger than memory: a folder of ``.npy`` files, one a field, of which only the rows asked for are read.

The files are mapped, so their pages belong to the operating system's cache and not to this process's own memory.
Usage: ``spec("jaxlab.data.memmap_source:make", path="records", classes=("cat", "dog"))`` for records/image.npy, ….
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import DataSpec
from jaxlab.data.arrays import DEVICE_DTYPES

_RESERVED = ("id", "mask")  # a batch's own fields
_HASHED = 2**16  # bytes at each end of a file
_CHECK_ROWS = 2**20  # labels that are looked at together


def make(path: str, classes: tuple[str, ...] = ()) -> MemmapSource:
    """Return the rows of the ``.npy`` files in a folder, each file a field of the file's name.

    ``meta``: name, classes and fingerprint, a hash of each file's name, size, first and last bytes.

    Args:
      path: the folder; the first axis of every array counts the rows.
      classes: names of the values 0, 1, … of ``label``, which is then read through once and checked.

    Raises:
      ConfigError: `path` is a file.
      DataError: no folder or no ``.npy`` file in it, arrays of unequal lengths or not of numbers, a broken file, a
        label outside the classes.
    """
    folder = Path(path).expanduser()
    if folder.is_file():
        raise ConfigError(f"path={path!r} is a file; expected a folder that holds one .npy file for each field")
    if not folder.is_dir():
        beside = [found.name for found in folder.parent.iterdir() if found.is_dir()] if folder.parent.is_dir() else []
        raise DataError(f"no folder {folder}{did_you_mean(folder.name, beside) if beside else ''}")
    files = {file.stem: file for file in sorted(folder.glob("*.npy"))}
    if not files:
        raise DataError(
            f"{folder} holds no .npy file; save each field with numpy.save({str(folder / 'FIELD.npy')!r}, x)"
        )
    example, lengths = {}, {}
    for name, file in files.items():
        if name in _RESERVED:
            raise DataError(f"{file}: {name!r} is a name of a batch's own field; rename the file")
        array = _mapped(file)
        lengths[name] = len(array)
        example[name] = jax.ShapeDtypeStruct(array.shape[1:], DEVICE_DTYPES.get(array.dtype.name, array.dtype))
    if len(set(lengths.values())) > 1 or min(lengths.values()) < 1:
        raise DataError(f"{folder}: arrays must be equally long and not empty; lengths by file: {lengths}")
    if classes:
        _check_labels(files, len(classes))
    meta = {"name": folder.name, "classes": tuple(classes), "fingerprint": _fingerprint(files)}
    paths = {name: str(file.absolute()) for name, file in files.items()}
    return MemmapSource(paths, DataSpec(example, next(iter(lengths.values())), meta))


class MemmapSource:
    """Gathers rows from mapped files. Can be pickled: a worker process maps them anew."""

    def __init__(self, files: dict[str, str], spec: DataSpec) -> None:
        """Serve the ``.npy`` file of each field as `spec` says."""
        self._files, self._spec = files, spec

    @property
    def spec(self) -> DataSpec:
        """The fields' shapes and dtypes, the number of rows and the facts of the folder."""
        return self._spec

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `indices` [n], one array [n, ...] a field; a DataError if they don't fit JAX's dtype."""
        rows = {}
        for name, array in self._arrays.items():
            values = array.take(indices, axis=0)
            rows[name] = values.astype(self._spec.example[name].dtype, copy=False)
            if (
                values.dtype.kind in "iu"
                and rows[name].dtype != values.dtype
                and not np.array_equal(rows[name], values)
            ):
                limits = f"values from {values.min()} to {values.max()}"
                raise DataError(f"{self._files[name]}: {limits} do not fit {rows[name].dtype}, JAX's default")
        return rows

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the mapped files."""
        return {name: value for name, value in vars(self).items() if name != "_arrays"}

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: _mapped(Path(file)) for name, file in self._files.items()}


def _mapped(file: Path) -> np.ndarray:
    """Return the file's array [N, ...] as a plain ndarray over the mapped bytes."""
    try:
        array = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError, SyntaxError, OverflowError, TypeError) as error:
        raise DataError(f"{file}: not a readable .npy file of numbers: {error}") from error
    if array.dtype.kind not in "biuf" or not array.dtype.isnative or not array.ndim:
        raise DataError(
            f"{file}: holds {array.dtype} of shape {array.shape}; expected rows of native numbers or booleans"
        )
    return array


def _check_labels(files: dict[str, Path], classes: int) -> None:
    if "label" not in files:
        raise DataError(
            f"classes are given, but there is no label.npy among {', '.join(f.name for f in files.values())}"
        )
    label = _mapped(files["label"])
    if label.ndim != 1 or label.dtype.kind not in "iu":
        raise DataError(f"{files['label']}: {label.dtype} of shape {label.shape}; expected one integer a row")
    for start in range(0, len(label), _CHECK_ROWS):
        part = label[start : start + _CHECK_ROWS]
        wrong = np.flatnonzero((part < 0) | (part >= classes))
        if len(wrong):
            row = start + wrong[0]
            raise DataError(
                f"{files['label']}: row {row} is {label[row]}; {classes} classes are given, 0 to {classes - 1}"
            )


def _fingerprint(files: dict[str, Path]) -> str:
    """Hash what is quick to read of files of any size and is the same on every machine, so no times."""
    digest = hashlib.sha256()
    for name, file in files.items():
        size = file.stat().st_size
        digest.update(f"{name} {size} ".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_HASHED))
            opened.seek(max(0, size - _HASHED))
            digest.update(opened.read(_HASHED))
    return f"files:{digest.hexdigest()}"
