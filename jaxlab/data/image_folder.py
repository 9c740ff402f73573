"""A folder of pictures, one folder a class: in memory if they fit, decoded once and kept, else decoded when asked.

What is decoded is kept next to the data, or in the user's cache where one may only read; it is decoded anew when a
file's name, size or time, or an option, changes. Needs Pillow, which matplotlib brings.
Usage: ``spec("jaxlab.data.image_folder:make", path="pets/train", size=(64, 64), classes=("cat", "dog"))``.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import DataSpec, Source
from jaxlab.data.arrays import ArraySource
from jaxlab.data.cache import CACHE, Kept, cached, fingerprint, places
from jaxlab.data.picture import check_options, decode

_AHEAD = 256  # decoded pictures that wait at once, beside the array that they go into

_log = logging.getLogger(__name__)


def make(
    path: str,
    size: tuple[int, int],
    channels: int = 3,
    classes: tuple[str, ...] = (),
    on_error: str = "raise",
    in_memory_bytes: int = 2**32,
) -> Source:
    """Return the pictures of a folder as ``image`` uint8 [H, W, C] and ``label`` int32, by class and file name.

    A picture is resized until it just covers `size` and cropped at the centre. Hidden files are not looked at.
    ``meta`` of the spec: name, classes, files (relative to `path`, in the rows' order), skipped (corrupt files left
    out) and fingerprint (of the rows if they are in memory, else of the files' beginnings and sizes).

    Args:
      path: the folder; each folder in it is a class and holds nothing but pictures that Pillow can read.
      size: height and width that pictures are brought to.
      channels: 1 (grey), 3 (RGB) or 4 (RGBA).
      classes: the class names in the order of their numbers; () are the folders' names, sorted. A split that may
        lack a class needs them.
      on_error: what a corrupt file does. ``raise``: a DataError when it is read. ``skip``: it is left out, for which
        pictures that do not fit in memory are read once from end to end.
      in_memory_bytes: decoded pictures up to this size are held in memory.

    Raises:
      ConfigError: `size`, `channels`, `classes` or `on_error` is none that is expected.
      DataError: no such folder, no picture in it or in a class folder, a file beside class folders, a folder within
        one, a class folder that is not in `classes`, or a corrupt file.
    """
    check_options("image_folder", size, channels)
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"image_folder: on_error={on_error!r}; expected 'raise' or 'skip'")
    folder = Path(path)
    found = _class_folders(folder, classes)
    names = tuple(classes) or tuple(place.name for place in found)
    files = [file for place in found for file in _pictures(place)]
    pictures = FolderSource(str(folder), files, names, size, channels)
    in_memory = len(files) * int(np.prod([*size, channels])) <= in_memory_bytes
    if not in_memory and on_error == "raise":
        return pictures
    try:
        arrays, facts = _decoded(pictures, keep_rows=in_memory, skip=on_error == "skip")
    except OSError as error:
        raise DataError(f"{folder}: a file cannot be read: {error}") from error
    pictures = pictures.without(facts["skipped"])
    if in_memory:
        return ArraySource(arrays, {**pictures.facts, "fingerprint": facts["fingerprint"]})
    return pictures


class FolderSource:
    """Decodes pictures when asked. Can be pickled."""

    def __init__(
        self,
        folder: str,
        files: Sequence[str],
        classes: tuple[str, ...],
        size: tuple[int, int],
        channels: int,
        skipped: int = 0,
    ) -> None:
        """Serve `files`, each ``CLASS/NAME`` below `folder`, in this order; `skipped` others were left out."""
        self.folder, self.files, self.size, self.channels = folder, tuple(files), tuple(size), channels
        number = {name: place for place, name in enumerate(classes)}
        self.label_N = np.array([number[file.split("/", 1)[0]] for file in files], np.int32)
        self.facts = {"name": Path(folder).name, "classes": classes, "files": self.files, "skipped": skipped}

    @functools.cached_property
    def spec(self) -> DataSpec:
        """The fields' shapes and dtypes, the number of pictures and the facts of the folder."""
        image = jax.ShapeDtypeStruct((*self.size, self.channels), np.uint8)
        example = {"image": image, "label": jax.ShapeDtypeStruct((), np.int32)}
        return DataSpec(example, len(self), {**self.facts, "fingerprint": _files_fingerprint(self)})

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `indices` [n]: ``image`` [n, H, W, C] and ``label`` [n]."""
        image_BHWC = np.empty((len(indices), *self.size, self.channels), np.uint8)
        for place, index in enumerate(indices):
            image_BHWC[place] = self.picture(int(index))
        return {"image": image_BHWC, "label": self.label_N.take(indices)}

    def picture(self, index: int) -> np.ndarray:
        """Return the picture [H, W, C] of row `index`; a DataError where its file is corrupt."""
        file = Path(self.folder, self.files[index])
        try:
            return decode(file.read_bytes(), self.size, self.channels)
        except (ImportError, MemoryError):  # nothing that the file could help
            raise
        except Exception as error:  # each of Pillow's plug-ins has errors of its own
            remedy = "mend or delete it, or leave such files out with on_error='skip'"
            raise DataError(f"example {index}: {file} cannot be read as a picture: {error}; {remedy}") from error

    def without(self, rows: Sequence[int]) -> FolderSource:
        """Return the source without `rows`, which are counted in ``meta``."""
        if not rows:
            return self
        dropped = set(rows)
        files = [file for row, file in enumerate(self.files) if row not in dropped]
        return FolderSource(self.folder, files, self.facts["classes"], self.size, self.channels, len(dropped))


def _class_folders(folder: Path, classes: tuple[str, ...]) -> list[Path]:
    """Return the class folders in `folder`, sorted by name."""
    if len(set(classes)) != len(classes):
        raise ConfigError(f"image_folder: classes={classes!r}; a name occurs twice")
    if not folder.is_dir():
        beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        hint = did_you_mean(folder.name, beside) if len(beside) <= 100 else ""
        raise DataError(f"{folder}: no such folder{hint}")
    entries = sorted(e for e in folder.iterdir() if not e.name.startswith(".") and e.name != CACHE)
    lone = next((entry for entry in entries if not entry.is_dir()), None)
    if lone:
        raise DataError(f"{lone} lies beside class folders; expected {folder} to hold one folder a class and no files")
    if not entries:
        raise DataError(f"{folder} is empty; expected one folder a class with its pictures in it")
    for entry in entries:
        if classes and entry.name not in classes:
            hint = did_you_mean(entry.name, classes)
            raise DataError(f"{entry} is a class folder, but {entry.name!r} is not in classes{hint}")
    return entries


def _pictures(place: Path) -> list[str]:
    """Return the files of a class folder as ``CLASS/NAME``, sorted."""
    with os.scandir(place) as entries:
        found = sorted((e.name, e.is_dir()) for e in entries if not e.name.startswith("."))
    inner = next((name for name, is_folder in found if is_folder), None)
    if inner:
        raise DataError(f"{place / inner} is a folder within a class folder; expected pictures only")
    if not found:
        raise DataError(f"{place} holds no pictures; delete the folder (and name its class in classes, if it is one)")
    return [f"{place.name}/{name}" for name, _ in found]


def _decoded(pictures: FolderSource, keep_rows: bool, skip: bool) -> Kept:
    """Return the arrays (none without `keep_rows`), their fingerprint and the rows skipped, kept or decoded now."""
    folders = places(Path(pictures.folder).resolve().parent, _cache_key(pictures, keep_rows))
    return cached(folders, lambda: _decode(pictures, keep_rows, skip), lambda facts: skip or not facts["skipped"])


def _decode(pictures: FolderSource, keep_rows: bool, skip: bool) -> Kept:
    _log.info("%s: decoding %d pictures, once", pictures.folder, len(pictures))
    image_NHWC = np.empty((len(pictures) if keep_rows else 0, *pictures.size, pictures.channels), np.uint8)
    kept, skipped = [], []
    for row, picture in enumerate(_in_threads(pictures)):
        if isinstance(picture, DataError):
            if not skip:
                raise picture
            _log.warning("left out: %s", picture)
            skipped.append(row)
            continue
        if keep_rows:
            image_NHWC[len(kept)] = picture
        kept.append(row)
    if not kept:
        raise DataError(f"{pictures.folder}: none of its {len(pictures)} files can be read as a picture")
    arrays = {"image": image_NHWC[: len(kept)], "label": pictures.label_N[kept]} if keep_rows else {}
    return arrays, {"fingerprint": fingerprint(arrays), "skipped": skipped}


def _in_threads(pictures: FolderSource) -> Iterator[np.ndarray | DataError]:
    """Yield every row's picture, or what is wrong with it, in order; Pillow decodes without Python's lock."""

    def attempt(row: int) -> np.ndarray | DataError:
        try:
            return pictures.picture(row)
        except DataError as error:
            return error

    rows = iter(range(len(pictures)))
    with ThreadPoolExecutor() as pool:
        while chunk := list(itertools.islice(rows, _AHEAD)):
            yield from pool.map(attempt, chunk)


def _cache_key(pictures: FolderSource, keep_rows: bool) -> str:
    """Return a folder name that changes with the options, and the files' names, sizes and times."""
    stats = [os.stat(os.path.join(pictures.folder, file)) for file in pictures.files]
    files = [(file, s.st_size, s.st_mtime_ns) for file, s in zip(pictures.files, stats, strict=True)]
    facts = [files, pictures.size, pictures.channels, pictures.facts["classes"], keep_rows]
    return f"{Path(pictures.folder).name}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"


def _files_fingerprint(pictures: FolderSource) -> str:
    """Hash what is quick to read and is the same on every machine, so no times."""
    digest = hashlib.sha256(f"{pictures.size} {pictures.channels} {pictures.label_N.tolist()}".encode())
    for file in pictures.files:
        try:
            with open(os.path.join(pictures.folder, file), "rb") as opened:
                digest.update(f"{file} {os.fstat(opened.fileno()).st_size}".encode() + opened.read(2**12))
        except OSError as error:
            raise DataError(f"{pictures.folder}: a file cannot be read: {error}") from error
    return f"files:{digest.hexdigest()}"
