"""Opens a data set that TFDS has prepared, without TensorFlow: in memory if it fits, else read at random from disk.

What fits is decoded once and kept as ``.npy`` files beside the data set, because decoding is some hundred times
slower than gathering rows of arrays. Never downloads: `jaxlab.data.preparation.prepare` does, on the user's command.
Usage: ``spec("jaxlab.data.tfds_source:make", name="fashion_mnist", split="train[:90%]")``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds

from jaxlab.core import limits
from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import DataSpec, Source
from jaxlab.data import builders
from jaxlab.data.arrays import ArraySource
from jaxlab.data.cache import CACHE
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.preparation.prepare import FILE_FORMAT, data_root, find_builder, is_prepared
from jaxlab.data.tfds_rows import OBJECT, Field, Rows, corrupt_rows, decoded, field_of


def make(
    name: str,
    split: str = "train",
    data_dir: str | None = None,
    in_memory_bytes: int = 2**32,
    on_error: str = "raise",
) -> Source:
    """Return a split of a prepared data set, in the order in which it was written. Texts are served as `str`.

    ``meta`` of the spec: name, version, split, classes (names of the classes of ``label``, empty if it has none),
    categories:FIELD (the names of the codes of other fields: of classes, and of those that a builder of ours or of your
    own names in ``CATEGORIES``), records (of each file its name, the first record and the one after the last), skipped
    (corrupt rows left out) and fingerprint (a hash: of the rows if they are in memory, else of the files' beginnings
    and sizes).

    Args:
      name: any data set prepared below `data_dir` (``name``, ``name/config`` or ``name/version``), or
        ``"module:Builder"``.
      split: in TFDS's syntax: ``train``, ``train[:90%]``, ``train[100:]+test``.
      data_dir: the root of all data sets; None is $TFDS_DATA_DIR or ~/tensorflow_datasets.
      in_memory_bytes: decoded rows up to this size (texts: as written) are held in memory; larger splits are read
        from disk by row.
      on_error: what a corrupt row, or a text that is not UTF-8, does. ``raise``: a DataError when it is read.
        ``skip``: it is left out, for which a split on disk is read once from end to end.

    Raises:
      DataError: not prepared, or not as ArrayRecord; no such split, or no rows in it; a field of a split in memory
        that is neither a text nor numbers of a fixed shape; a corrupt row.
    """
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error={on_error!r}: expected 'raise' or 'skip'")
    builder = tfds.builder_from_directory(str(_prepared_folder(name, data_root(data_dir))))
    if builder.info.file_format != tfds.core.FileFormat(FILE_FORMAT):
        found = builder.info.file_format
        raise DataError(f"{name}: {builder.data_dir} holds {found and found.value} files; expected {FILE_FORMAT}")
    size, shards = _split_of(builder, split)
    features = dict(builder.info.features.items())
    fields = {field: field_of(feature) for field, feature in features.items()}
    label = features.get("label")
    classes = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()
    meta = {"name": builder.info.name, "version": str(builder.info.version), "split": split, "classes": classes}
    meta |= _categories(name if ":" in name else builder.info.name, features)
    meta["records"] = tuple((Path(shard.filename).name, *_records(shard)) for shard in shards)
    cache = Path(builder.data_dir) / CACHE / _cache_key(builder, split, shards)
    if _row_bytes(builder, fields) * size > in_memory_bytes:
        skipped = corrupt_rows(builder, split, fields, Path(f"{cache}-skipped")) if on_error == "skip" else ()
        meta |= {"skipped": len(skipped), "fingerprint": _files_fingerprint(builder, split, shards, skipped)}
        example = {n: jax.ShapeDtypeStruct(f.shape or (), f.dtype) for n, f in fields.items()}
        spec = DataSpec(example, size - len(skipped), meta)
        return DiskSource(str(builder.data_dir), split, fields, spec, skipped)
    for field, (shape, _) in fields.items():
        if shape is None:
            kind = type(features[field]).__name__
            raise DataError(
                f"{name}: field {field!r} is a {kind}; in memory a field must be numbers of a fixed shape, or a text"
            )
    arrays, facts = decoded(builder, split, fields, cache, on_error)
    holder = ColumnSource if any(field.is_text for field in fields.values()) else ArraySource
    return holder(arrays, {**meta, "skipped": len(facts["skipped"]), "fingerprint": facts["fingerprint"]})


class DiskSource:
    """Reads and decodes rows when asked. Can be pickled: a worker process opens the files anew."""

    def __init__(
        self, folder: str, split: str, fields: Mapping[str, Field], spec: DataSpec, skipped: Sequence[int] = ()
    ) -> None:
        """Read the split `split` of the prepared data set in `folder`, but the rows `skipped`, which ascend.

        Fields of no fixed shape, and texts, come as arrays of objects; their entry in ``spec.example`` is an object
        of shape ().
        """
        self._folder, self._split, self._fields, self._spec = folder, split, dict(fields), spec
        self._before = np.asarray(skipped, int) - np.arange(len(skipped))  # rows kept before each row left out

    @property
    def spec(self) -> DataSpec:
        """The fields' shapes and dtypes, the number of rows and the facts of the data set."""
        return self._spec

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `indices` [n], one array [n, ...] a field."""
        rows = np.asarray(indices, int) + np.searchsorted(self._before, indices, side="right")
        return self._rows.stacked(rows.tolist())

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open files."""
        return {name: value for name, value in vars(self).items() if name != "_rows"}

    @functools.cached_property
    def _rows(self) -> Rows:
        return Rows(tfds.builder_from_directory(self._folder), self._split, self._fields)


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
        newest = max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
        _check_features(newest)
        return newest
    if name in builders.names():
        raise DataError(f"{name} is not prepared: nothing in {root / name}; run: {command}")
    known = {*builders.names(), *(path.parts[len(root.parts)] for path in root.glob("*/*/dataset_info.json"))}
    raise DataError(f"no data set {name!r} in {root}, and no recipe for one{did_you_mean(name, known)}")


def _check_features(folder: Path) -> None:
    """Raise DataError where a data set's features name classes of other packages: TFDS would import them."""
    waiting = [limits.read_json(folder / "features.json")]
    while waiting:
        found = waiting.pop()
        named = [found[key] for key in ("pythonClassName", "type") if key in found] if isinstance(found, dict) else []
        for name in named:
            if isinstance(name, str) and "." in name and not name.startswith("tensorflow_datasets."):
                raise DataError(
                    f"{folder}: a feature is the class {name!r}, whose package opening would import; where you trust "
                    "it, name the data set by its builder, 'module:Builder'"
                )
        waiting += list(found.values()) if isinstance(found, dict) else found if isinstance(found, list) else []


def _categories(name: str, features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of the codes of fields other than the label, by the fact's name."""
    is_ours = ":" in name or name in builders.names()
    named = dict(getattr(find_builder(name), "CATEGORIES", {})) if is_ours else {}
    named |= {n: x.names for n, x in features.items() if isinstance(x, tfds.features.ClassLabel) and n != "label"}
    return {f"categories:{field}": tuple(names) for field, names in named.items() if field in features}


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
        reason = str(error).splitlines()[-1]
        raise DataError(f"{builder.info.name}: split {split!r}: {reason}") from error
    if not size:
        raise DataError(f"{builder.info.name}: split {split!r} holds no rows")
    missing = [shard.filename for shard in shards if not Path(shard.filename).is_file()]
    if missing:
        raise DataError(f"{builder.info.name}: {missing[0]} is missing; prepare the data set again")
    return size, shards


def _records(shard: Any) -> tuple[int, int]:
    """Return the first record of a part of a file and the one after its last; -1 stands for all that follow."""
    return shard.skip, shard.examples_in_shard if shard.take == -1 else shard.skip + shard.take


def _row_bytes(builder: tfds.core.DatasetBuilder, fields: Mapping[str, Field]) -> float:
    """Return the bytes of a decoded row; of texts, whose lengths only reading tells, what was written for the row."""
    size = float(sum(np.prod(field.shape or (), dtype=int) * field.dtype.itemsize for field in fields.values()))
    if any(field.dtype == OBJECT for field in fields.values()):
        splits = builder.info.splits.values()
        size += sum(split.num_bytes for split in splits) / max(sum(split.num_examples for split in splits), 1)
    return size


def _cache_key(builder: tfds.core.DatasetBuilder, split: str, shards: Sequence[Any]) -> str:
    """Return a folder name that changes with the rows wanted, the fields, and the files' sizes and times."""
    facts = [split, Path(builder.data_dir, "features.json").read_text()]
    for shard in shards:
        status = Path(shard.filename).stat()
        facts.append([Path(shard.filename).name, shard.skip, shard.take, status.st_size, status.st_mtime_ns])
    readable = re.sub(r"[^A-Za-z0-9]+", "-", split).strip("-")[:40]
    return f"{readable}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"


def _files_fingerprint(
    builder: tfds.core.DatasetBuilder, split: str, shards: Sequence[Any], skipped: Sequence[int]
) -> str:
    """Hash what is quick to read of files of any size and is the same on every machine, so no times."""
    digest = hashlib.sha256(f"{split} {Path(builder.data_dir, 'features.json').read_text()}".encode())
    for shard in shards:
        path = Path(shard.filename)
        digest.update(f"{path.name} {shard.skip} {shard.take} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(2**16))
    if skipped:
        digest.update(f"without {skipped}".encode())
    return f"files:{digest.hexdigest()}"
