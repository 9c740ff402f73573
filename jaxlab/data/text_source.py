"""Texts as a source: files of one example a line, folders of one example a file, and line-aligned parallel texts.

A text is served as a `str` in an array of objects, until a transform makes numbers of it. All is held in memory.
Knows no tokenizer and no language. Shape letters: L lines of the files, N examples kept of them.
Usage: ``spec("jaxlab.data.text_source:lines", path="reviews/*.txt")``.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core import limits
from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.data.column_source import ColumnSource

_GZIP = b"\x1f\x8b"  # no UTF-8 text begins so


def lines(path: str, field: str = "text", label: str | None = None, classes: tuple[str, ...] = ()) -> ColumnSource:
    """Return the lines of text files as examples, in the files' order; blank lines are left out.

    ``meta`` of the spec: name, classes, files, dropped (blank lines left out) and fingerprint (of the bytes).

    Args:
      path: a UTF-8 file, may be gzipped, or a pattern such as ``corpus/**/*.txt``, whose files are read sorted.
      field: the name under which the texts are served.
      label: a file, or pattern, with the class name of each line; served as ``label``. None: no labels.
      classes: the class names in the order of their numbers; () are those that occur, sorted.

    Raises:
      DataError: no such file, not UTF-8, no text, as many labels as lines are not there, or a label not in `classes`.
    """
    files = _matching(path)
    text_L, digest = _lines(files)
    kept = [row for row, text in enumerate(text_L) if text.strip()]
    meta = {"name": Path(path).name, "files": tuple(map(str, files)), "dropped": len(text_L) - len(kept)}
    if not kept:
        raise DataError(f"{path}: holds no text")
    if label is None:
        _refuse_alone(classes)
        fields = {field: _objects([text_L[row] for row in kept])}
        return ColumnSource(fields, {**meta, "classes": (), "fingerprint": _fingerprint(digest)})
    if field == "label":
        raise ConfigError("lines: field='label' is the labels' own name; name the texts otherwise, e.g. 'text'")
    label_L, label_digest = _lines(_matching(label))
    if len(label_L) != len(text_L):
        raise DataError(f"{path} has {len(text_L)} lines, its labels {label} have {len(label_L)}; expected as many")
    label_N, names = _numbered([label_L[row].strip() for row in kept], classes, label)
    fields = {field: _objects([text_L[row] for row in kept]), "label": label_N}
    return ColumnSource(fields, {**meta, "classes": names, "fingerprint": _fingerprint(digest, label_digest, names)})


def documents(path: str, field: str = "text", classes: tuple[str, ...] = ()) -> ColumnSource:
    """Return the ``.txt`` files (or ``.txt.gz``) of a folder as examples, sorted by name.

    Where the files lie in folders within it, each such folder is a class, served as ``label``. ``meta`` of the spec:
    name, classes, files, dropped (blank files left out) and fingerprint (of the bytes).

    Args:
      path: the folder.
      field: the name under which the texts are served.
      classes: the class names in the order of their numbers; () are the folders' names, sorted.

    Raises:
      DataError: no such folder, no ``.txt`` file in it, some in folders and some not, not UTF-8, no text, or a class
        folder not in `classes`.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{path}: no such folder{_nearest(folder)}")
    files = sorted(
        file for pattern in ("*.txt", "*.txt.gz") for place in ("", "*/") for file in folder.glob(place + pattern)
    )
    flat = {file.parent == folder for file in files}
    if len(flat) != 1:
        lone = next((str(file.relative_to(folder)) for file in files if file.parent == folder), None)
        beside = f"{lone} lies beside class folders; move it into one" if lone else "no .txt file in it or its folders"
        raise DataError(f"{path}: {beside}")
    texts, digest = zip(*map(_decoded, files), strict=True)
    kept = [row for row, text in enumerate(texts) if text.strip()]
    if not kept:
        raise DataError(f"{path}: holds no text")
    files_kept = [files[row].relative_to(folder) for row in kept]
    meta = {"name": folder.name, "files": tuple(map(str, files_kept)), "dropped": len(texts) - len(kept)}
    fields = {field: _objects([texts[row] for row in kept])}
    if flat == {True}:
        _refuse_alone(classes)
        return ColumnSource(fields, {**meta, "classes": (), "fingerprint": _fingerprint(*digest)})
    fields["label"], names = _numbered([file.parent.name for file in files_kept], classes, path)
    facts = (*digest, [str(file) for file in files_kept], names)
    return ColumnSource(fields, {**meta, "classes": names, "fingerprint": _fingerprint(*facts)})


def parallel(source_path: str, target_path: str, fields: tuple[str, str] = ("source", "target")) -> ColumnSource:
    """Return the pairs of lines of two texts, such as a sentence and its translation.

    A pair of which a side is blank is left out. ``meta`` of the spec: name, files, dropped (pairs left out) and
    fingerprint (of the bytes).

    Args:
      source_path: a UTF-8 file, may be gzipped, or a pattern, whose files are read sorted.
      target_path: the same for the other side; its line n belongs to the source's line n.
      fields: the names under which the two sides are served.

    Raises:
      ConfigError: `fields` are not two different names.
      DataError: no such file, not UTF-8, unequal numbers of lines, or no pair of texts.
    """
    if len(fields) != 2 or len(set(fields)) != 2:
        raise ConfigError(f"parallel: fields={fields!r}; expected two different names, e.g. ('source', 'target')")
    sides = [_matching(path) for path in (source_path, target_path)]
    (source_L, source_digest), (target_L, target_digest) = map(_lines, sides)
    if len(source_L) != len(target_L):
        counts = f"{source_path} has {len(source_L)} lines, {target_path} has {len(target_L)}"
        raise DataError(f"{counts}; line n of one must belong to line n of the other")
    pairs = [(s, t) for s, t in zip(source_L, target_L, strict=True) if s.strip() and t.strip()]
    if not pairs:
        raise DataError(f"{source_path} and {target_path}: no pair of lines with text on both sides")
    columns = {name: _objects(side) for name, side in zip(fields, zip(*pairs, strict=True), strict=True)}
    meta = {"name": Path(source_path).name, "files": tuple(str(file) for files in sides for file in files)}
    meta |= {"dropped": len(source_L) - len(pairs), "fingerprint": _fingerprint(source_digest, target_digest)}
    return ColumnSource(columns, meta)


def text_of(content: bytes, name: str) -> str:
    """Return `content` decoded; a DataError that says where it is not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        bad, line = content[error.start], content.count(b"\n", 0, error.start) + 1
        where = f"byte {error.start} (0x{bad:02x}, line {line})"
        raise DataError(f"{name}: {where} is not UTF-8; convert it, e.g. with iconv -t utf-8") from error


def _matching(path: str) -> list[Path]:
    """Return the file, or the files that the pattern matches, sorted."""
    if Path(path).is_file():
        return [Path(path)]
    found = sorted(Path(match) for match in glob.glob(path, recursive=True) if Path(match).is_file())
    if not found:
        kind = "a folder; expected a file or a pattern" if Path(path).is_dir() else "no such file"
        raise DataError(f"{path}: {kind}{_nearest(Path(path))}")
    return found


def _nearest(path: Path) -> str:
    """Return a hint at the names that are there instead of `path`."""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return did_you_mean(path.name, beside) if beside and len(beside) <= 1000 and not path.exists() else ""


def _decoded(file: Path) -> tuple[str, str]:
    """Return a file's text and the hash of its unpacked bytes."""
    content = limits.read_bytes(file)
    if content.startswith(_GZIP):
        content = limits.gunzip(content, file)
    return text_of(content, str(file)).removeprefix("\ufeff"), hashlib.sha256(content).hexdigest()


def _lines(files: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Return the lines of all files and each file's hash. Only newlines end a line, not all that Unicode calls so."""
    found, digests = [], []
    for file in files:
        text, digest = _decoded(file)
        digests.append(digest)
        found += [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    return found, digests


def _numbered(names: Sequence[str], classes: tuple[str, ...], where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class numbers [N] of `names` and the names in the numbers' order."""
    order = tuple(classes) or tuple(sorted(set(names)))
    if len(set(order)) != len(order):
        raise ConfigError(f"classes={classes!r}: a name occurs twice")
    number = {name: place for place, name in enumerate(order)}
    for row, name in enumerate(names):
        if name not in number:
            raise DataError(f"{where}: class {name!r} of example {row} is not in classes{did_you_mean(name, order)}")
    return np.array([number[name] for name in names], np.int32), order


def _refuse_alone(classes: tuple[str, ...]) -> None:
    if classes:
        raise ConfigError(f"classes={classes!r} are given for texts without labels")


def _objects(texts: Sequence[str]) -> np.ndarray:
    held = np.empty(len(texts), object)
    held[:] = texts
    return held


def _fingerprint(*facts: Any) -> str:
    return f"bytes:{hashlib.sha256(repr(facts).encode()).hexdigest()}"
