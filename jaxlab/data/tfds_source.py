"""Opens a data set that TFDS has prepared, without TensorFlow: in memory if it fits, else read at random from disk.

What fits is decoded once and kept as ``.npy`` files beside the data set, because decoding is some hundred times
slower than gathering rows of arrays. Never downloads: `jaxlab.data.prepare` does, on the user's command.
Usage: ``spec("jaxlab.data.tfds_source:make", name="fashion_mnist", split="train[:90%]")``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError, did_you_mean
from jaxlab.core.types import DataSpec, Source
from jaxlab.data import builders
from jaxlab.data.arrays import DEVICE_DTYPES, ArraySource
from jaxlab.data.prepare import FILE_FORMAT, data_root, find_builder, is_prepared

CACHE = "jaxlab_cache"
MANIFEST = "manifest.json"
_DECODE_ROWS = 1024  # decoded Python objects that exist at once

_log = logging.getLogger(__name__)


class Field(NamedTuple):
    """One field of an example: its shape, or None if rows differ or aren't numbers, and the dtype it is served in."""

    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]


def make(name: str, split: str = "train", data_dir: str | None = None, in_memory_bytes: int = 2**32) -> Source:
    """Return a split of a prepared data set, in the order in which it was written.

    ``meta`` of the spec: name, version, split, classes (names of the classes of ``label``, empty if it has none) and
    fingerprint (a hash: of the rows if they are in memory, else of the files' beginnings and sizes).

    Args:
      name: any data set prepared below `data_dir` (``name``, ``name/config`` or ``name/version``), or
        ``"module:Builder"``.
      split: in TFDS's syntax: ``train``, ``train[:90%]``, ``train[100:]+test``.
      data_dir: the root of all data sets; None is $TFDS_DATA_DIR or ~/tensorflow_datasets.
      in_memory_bytes: decoded rows up to this size are held in memory; larger splits are read from disk by row.

    Raises:
      DataError: not prepared, or not as ArrayRecord; no such split, or no rows in it; a field of a split in memory
        that is not numbers of a fixed shape.
    """
    builder = tfds.builder_from_directory(str(_prepared_folder(name, data_root(data_dir))))
    if builder.info.file_format != tfds.core.FileFormat(FILE_FORMAT):
        found = builder.info.file_format
        raise DataError(f"{name}: {builder.data_dir} holds {found and found.value} files; expected {FILE_FORMAT}")
    size, shards = _split_of(builder, split)
    features = dict(builder.info.features.items())
    fields = {field: _field_of(feature) for field, feature in features.items()}
    label = features.get("label")
    classes = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()
    meta = {"name": builder.info.name, "version": str(builder.info.version), "split": split, "classes": classes}
    row_bytes = sum(np.prod(field.shape or (), dtype=int) * field.dtype.itemsize for field in fields.values())
    if row_bytes * size > in_memory_bytes:
        meta["fingerprint"] = _files_fingerprint(builder, split, shards)
        example = {n: jax.ShapeDtypeStruct(f.shape or (), f.dtype) for n, f in fields.items()}
        return DiskSource(str(builder.data_dir), split, fields, DataSpec(example, size, meta))
    for field, (shape, _) in fields.items():
        if shape is None:
            kind = type(features[field]).__name__
            raise DataError(f"{name}: field {field!r} is a {kind}; in memory a field must be numbers of a fixed shape")
    arrays, fingerprint = _decoded(builder, split, shards, size, fields)
    return ArraySource(arrays, {**meta, "fingerprint": fingerprint})


class DiskSource:
    """Reads and decodes rows when asked. Can be pickled: a worker process opens the files anew."""

    def __init__(self, folder: str, split: str, fields: Mapping[str, Field], spec: DataSpec) -> None:
        """Read the split `split` of the prepared data set in `folder`.

        Fields of no fixed shape, and texts, come as arrays of objects; their entry in ``spec.example`` is an object
        of shape ().
        """
        self._folder, self._split, self._fields, self._spec = folder, split, dict(fields), spec

    @property
    def spec(self) -> DataSpec:
        """The fields' shapes and dtypes, the number of rows and the facts of the data set."""
        return self._spec

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `indices` [n], one array [n, ...] a field."""
        return _stack(self._rows.__getitems__([int(i) for i in indices]), self._fields)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open files."""
        return {name: value for name, value in vars(self).items() if name != "_rows"}

    @functools.cached_property
    def _rows(self) -> Any:
        return tfds.builder_from_directory(self._folder).as_data_source(self._split)


def _prepared_folder(name: str, root: Path) -> Path:
    """Return the folder of the newest prepared version of `name`."""
    command = f"python scripts/prepare_data.py {name} --data_dir={root}"
    if ":" in name:
        folder = Path(find_builder(name)(data_dir=str(root), file_format=FILE_FORMAT).data_dir)
        if is_prepared(folder):
            return folder
        raise DataError(f"{name} is not prepared: nothing in {folder}; run: {command}")
    # TFDS writes ROOT/NAME/VERSION or ROOT/NAME/CONFIG/VERSION, and what it hasn't finished into incomplete.*
    found = [path.parent for pattern in ("", "*/", "*/*/") for path in root.glob(f"{name}/{pattern}dataset_info.json")]
    found = [path for path in found if not any(part.startswith("incomplete.") for part in path.parts)]
    configs = {path.parent for path in found}
    if len(configs) > 1:
        options = ", ".join(sorted(path.relative_to(root).as_posix() for path in configs))
        raise DataError(f"{name} has several configs in {root}; name one of {options}")
    if found:
        return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    if name in builders.names():
        raise DataError(f"{name} is not prepared: nothing in {root / name}; run: {command}")
    known = {*builders.names(), *(path.parts[len(root.parts)] for path in root.glob("*/*/dataset_info.json"))}
    raise DataError(f"no data set {name!r} in {root}, and no recipe for one{did_you_mean(name, known)}")


def _split_of(builder: tfds.core.DatasetBuilder, split: str) -> tuple[int, Sequence[Any]]:
    """Return the number of rows of a split and the parts of files that hold them."""
    splits = builder.info.splits
    for part in split.split("+"):
        base = part.partition("[")[0].strip()
        if base not in splits and base != "all":
            raise DataError(f"{builder.info.name} has no split {base!r}{did_you_mean(base, splits)}")
    try:
        found = splits[split]
        size, shards = found.num_examples, found.file_instructions
    except ValueError as error:
        raise DataError(f"{builder.info.name}: split {split!r}: {error}") from error
    if not size:
        raise DataError(f"{builder.info.name}: split {split!r} holds no rows")
    return size, shards


def _field_of(feature: Any) -> Field:
    shape, dtype = feature.shape, feature.np_dtype
    if not isinstance(shape, tuple) or None in shape or isinstance(dtype, dict) or np.dtype(dtype).kind not in "biuf":
        return Field(None, np.dtype(object))
    return Field(shape, np.dtype(DEVICE_DTYPES.get(np.dtype(dtype).name, dtype)))


def _stack(rows: Sequence[Mapping[str, Any]], fields: Mapping[str, Field]) -> dict[str, np.ndarray]:
    """Return the rows' fields stacked: [n, *shape] in the field's dtype, or [n] objects."""
    stacked = {}
    for name, (shape, dtype) in fields.items():
        if shape is None:
            stacked[name] = np.empty(len(rows), object)
            for i, row in enumerate(rows):
                stacked[name][i] = row[name]
            continue
        values = np.stack([row[name] for row in rows]) if rows else np.empty((0, *shape), dtype)
        if values.shape[1:] != shape:
            raise DataError(f"field {name!r}: rows of shape {values.shape[1:]}; its features say {shape}")
        stacked[name] = values.astype(dtype, copy=False)
        if dtype.kind in "iu" and values.dtype != dtype and not np.array_equal(stacked[name], values):
            raise DataError(f"field {name!r}: values up to {np.abs(values).max()} do not fit {dtype}, JAX's default")
    return stacked


def _decoded(
    builder: tfds.core.DatasetBuilder, split: str, shards: Sequence[Any], size: int, fields: Mapping[str, Field]
) -> tuple[dict[str, np.ndarray], str]:
    """Return the split's arrays and their fingerprint, from the cache or by decoding."""
    cache = Path(builder.data_dir) / CACHE / _cache_key(builder, split, shards)
    if (cache / MANIFEST).is_file():
        try:
            fingerprint = json.loads((cache / MANIFEST).read_text())["fingerprint"]
            return {name: np.load(cache / f"{name}.npy", allow_pickle=False) for name in fields}, fingerprint
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"the decoded rows in {cache} are damaged ({error}); delete that folder") from error
    _log.info("%s: decoding %d rows of %s, once", builder.info.name, size, split)
    rows = builder.as_data_source(split)
    arrays = {name: np.empty((size, *(field.shape or ())), field.dtype) for name, field in fields.items()}
    for start in range(0, size, _DECODE_ROWS):
        chunk = list(range(start, min(start + _DECODE_ROWS, size)))
        for name, values in _stack(rows.__getitems__(chunk), fields).items():
            arrays[name][chunk[0] : chunk[-1] + 1] = values
    fingerprint = _arrays_fingerprint(arrays)
    try:
        _write_cache(cache, arrays, fingerprint)
    except OSError as error:  # a data set that one may only read is no reason to stop
        _log.warning("%s: decoded rows could not be kept in %s: %s", builder.info.name, cache, error)
    return arrays, fingerprint


def _write_cache(cache: Path, arrays: Mapping[str, np.ndarray], fingerprint: str) -> None:
    """Write the folder `cache` by one rename; of two processes that write it, one wins with equal content."""
    cache.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incomplete.", dir=cache.parent) as folder:
        content = Path(folder, "content")
        content.mkdir()
        for name, values in arrays.items():
            np.save(content / f"{name}.npy", values, allow_pickle=False)
        (content / MANIFEST).write_text(json.dumps({"fingerprint": fingerprint}) + "\n")
        if not cache.exists():
            content.rename(cache)


def _cache_key(builder: tfds.core.DatasetBuilder, split: str, shards: Sequence[Any]) -> str:
    """Return a folder name that changes with the rows wanted, the fields, and the files' sizes and times."""
    facts = [split, Path(builder.data_dir, "features.json").read_text()]
    for shard in shards:
        status = Path(shard.filename).stat()
        facts.append([Path(shard.filename).name, shard.skip, shard.take, status.st_size, status.st_mtime_ns])
    readable = re.sub(r"[^A-Za-z0-9]+", "-", split).strip("-")[:40]
    return f"{readable}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"


def _arrays_fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return f"rows:{digest.hexdigest()}"


def _files_fingerprint(builder: tfds.core.DatasetBuilder, split: str, shards: Sequence[Any]) -> str:
    """Hash what is quick to read of files of any size and is the same on every machine, so no times."""
    digest = hashlib.sha256(f"{split} {Path(builder.data_dir, 'features.json').read_text()}".encode())
    for shard in shards:
        path = Path(shard.filename)
        digest.update(f"{path.name} {shard.skip} {shard.take} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(2**16))
    return f"files:{digest.hexdigest()}"
