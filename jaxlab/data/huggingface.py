"""Opens a data set that Hugging Face `datasets` has saved to disk; its Arrow files are memory-mapped, not read in.

Never downloads: save what you have with ``dataset.save_to_disk(folder)``. Needs the extra ``jaxlab[huggingface]``.
Usage: ``spec("jaxlab.data.huggingface:make", path="data/imdb", split="train", columns=("text",), label="label")``.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from jaxlab.core import limits
from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.paths import inside
from jaxlab.core.types import DataSpec
from jaxlab.data.huggingface_columns import Column, check_values, column_of, pictures_of, values_of
from jaxlab.data.picture import check_options

_RESERVED = ("id", "mask")  # a batch's own fields


def make(
    path: str,
    split: str | None = None,
    columns: tuple[str, ...] = (),
    label: str | None = None,
    size: tuple[int, ...] = (),
    channels: int = 3,
) -> HuggingFaceSource:
    """Return a data set saved by ``save_to_disk``: numbers, texts as `str` (missing: None) and pictures as uint8.

    ``meta`` of the spec: name, split, classes (of ``label``, empty if it is no ClassLabel) and fingerprint (of the
    files' beginnings and sizes). A missing float is NaN.

    Args:
      path: the folder that was saved.
      split: one of a DatasetDict's; None where the folder holds a single data set or a single split.
      columns: what to serve; () is all.
      label: the column to serve as ``label``; None leaves a column of that name, if there is one, as it is.
      size: height and width that pictures are brought to (see `jaxlab.data.picture`); () where all have one size.
      channels: of pictures: 1 (grey), 3 (RGB) or 4 (RGBA).

    Raises:
      ConfigError: `datasets` is not installed, or `size` or `channels` is none that is expected.
      DataError: no such folder, split or column, no rows, or a column that holds neither numbers of a fixed shape,
        nor texts, nor pictures; a missing number where there is no NaN; a label outside its classes.
    """
    check_options("huggingface", size or (1, 1), channels)
    folder = _folder(Path(path), split)
    dataset = _opened(folder)
    served = _served(dataset, folder, columns, label)
    if not len(dataset):
        raise DataError(f"{folder} holds no rows")
    known = {}
    for name, column in served.items():
        known[name] = column_of(f"{folder}: column {column!r}", dataset.features[column], size, channels)
        if known[name].kind == "image" and not size:
            first = dataset.select_columns([column]).with_format("arrow")[[0]][column]
            known[name] = known[name]._replace(shape=pictures_of(first, [0], column, known[name]).shape[1:])
        check_values(f"{folder}: column {column!r}", known[name], dataset.data.column(column))
    classes = known["label"].classes if "label" in known else ()
    meta = {"name": Path(path).name, "split": split, "classes": classes}
    facts = f"{sorted(served.items())} {size} {channels}"
    example = {name: jax.ShapeDtypeStruct(column.shape, column.dtype) for name, column in known.items()}
    spec = DataSpec(example, len(dataset), {**meta, "fingerprint": _fingerprint(folder, facts)})
    return HuggingFaceSource(str(folder), served, known, spec)


class HuggingFaceSource:
    """Gathers rows of memory-mapped columns. Can be pickled: a worker process maps the files anew."""

    def __init__(self, folder: str, served: Mapping[str, str], columns: Mapping[str, Column], spec: DataSpec) -> None:
        """Serve the data set in `folder`: `served` is the column of each field, `columns` what it holds."""
        self._folder, self._served, self._columns, self._spec = folder, dict(served), dict(columns), spec

    @property
    def spec(self) -> DataSpec:
        """The fields' shapes and dtypes, the number of rows and the facts of the data set."""
        return self._spec

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `indices` [n], one array [n, ...] a field."""
        rows = [int(index) for index in indices]
        table = self._table[rows]
        return {
            name: values_of(table[column], rows, column, self._columns[name]) for name, column in self._served.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the mapped files."""
        return {name: value for name, value in vars(self).items() if name != "_table"}

    @functools.cached_property
    def _table(self) -> Any:
        return _opened(Path(self._folder)).select_columns(list(self._served.values())).with_format("arrow")


def _datasets() -> ModuleType:
    try:
        import datasets  # almost a second
    except ImportError as error:
        raise ConfigError("this source needs the package datasets: pip install jaxlab[huggingface]") from error
    return datasets


def _folder(path: Path, split: str | None) -> Path:
    """Return the folder of the data set meant: `path`, or that of a split in it."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; expected one that dataset.save_to_disk wrote")
    if not (path / "dataset_dict.json").is_file():
        if not (path / "state.json").is_file():
            raise DataError(f"{path} is no saved data set: it has no state.json; expected what save_to_disk wrote")
        if split is not None:
            raise DataError(f"{path} holds a single data set, so it has no split {split!r}; leave split out")
        return path
    listed = limits.read_json(path / "dataset_dict.json")
    splits = listed.get("splits") if isinstance(listed, dict) else None
    if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
        raise DataError(f"{path / 'dataset_dict.json'}: has no 'splits', a list of names")
    if split is None and len(splits) == 1:
        return inside(path, splits[0])
    if split not in splits:
        raise DataError(f"{path} has no split {split!r}{did_you_mean(str(split), splits)}")
    return inside(path, str(split))


def _opened(folder: Path) -> Any:
    library = _datasets()
    if not _data_files(folder):
        raise DataError(f"{folder} holds no rows")
    limits.read_json(folder / "dataset_info.json")
    try:
        return library.load_from_disk(str(folder), keep_in_memory=False)
    except Exception as error:  # of the library, of Arrow, or a name of a feature that there is not
        raise DataError(f"{folder} cannot be opened: {error}; save the data set again") from error


def _data_files(folder: Path) -> list[Path]:
    """Return the files of a saved data set, which lie in its folder."""
    try:
        return [inside(folder, entry["filename"]) for entry in limits.read_json(folder / "state.json")["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / 'state.json'}: has no '_data_files', each with a 'filename'") from error


def _served(dataset: Any, folder: Path, columns: tuple[str, ...], label: str | None) -> dict[str, str]:
    """Return the column that each field is served from."""
    for name in (*columns, *([label] if label else [])):
        if name not in dataset.features:
            raise DataError(f"{folder} has no column {name!r}{did_you_mean(name, dataset.features)}")
    served: dict[str, str] = {}
    for column in dict.fromkeys((*(columns or dataset.features), *([label] if label else []))):
        field = "label" if column == label else column
        if field in served or field in _RESERVED:
            reason = "twice" if field in served else "which is a batch's own field"
            raise DataError(
                f"{folder}: column {column!r} would be served as {field!r}, {reason}; name others in columns"
            )
        served[field] = column
    return served


def _fingerprint(folder: Path, facts: str) -> str:
    """Hash what is quick to read of files of any size and is the same on every machine, so no times."""
    digest = hashlib.sha256(facts.encode())
    for path in _data_files(folder):
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size}".encode() + file.read(2**16))
    return f"files:{digest.hexdigest()}"
