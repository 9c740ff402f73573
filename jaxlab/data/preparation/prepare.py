"""Prepares a data set once: fetches its files, writes them as ArrayRecord through TFDS, and puts them in place.

Needs no TensorFlow. Training only opens what was prepared here (`jaxlab.data.tfds_source`) and never downloads.
Usage: ``prepare("fashion_mnist", Path("~/data"))``.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxlab.core.config import import_factory
from jaxlab.core.errors import DataError, did_you_mean
from jaxlab.data import builders

FILE_FORMAT = "array_record"  # read at random without TensorFlow; TFDS's parquet has lost rows without a word
ORIGIN = "jaxlab_origin.json"

_log = logging.getLogger(__name__)


def prepare(name: str, data_dir: Path | str | None = None) -> dict[str, Any]:
    """Prepare the data set `name` below `data_dir`, if it isn't, and say what is there.

    It appears by one rename, complete: what fails or is interrupted before leaves at most a folder ``incomplete.*``.

    Args:
      name: a module of `jaxlab.data.builders`, or ``"module:Builder"`` of your own.
      data_dir: the root of all data sets; None is `data_root`'s default.

    Returns:
      dataset, version, path, splits (rows by split), source (where the files came from), already_prepared, seconds.

    Raises:
      DataError: no such data set, its files cannot be had, or the disk does not hold them.
    """
    start, root, builder_class = time.perf_counter(), data_root(data_dir), find_builder(name)
    fetch = _fetch_of(name, builder_class)
    try:
        builder = builder_class(data_dir=str(root), file_format=FILE_FORMAT)
        already = is_prepared(Path(builder.data_dir))
        if not already:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="incomplete.", dir=root) as stage:
                source = _write(builder_class, fetch, Path(stage))
                _put_in_place(Path(stage, "prepared"), root, Path(builder.data_dir), source)
    except OSError as error:
        raise DataError(f"{name}: could not be prepared in {root}: {error}") from error
    return {**_describe(Path(builder.data_dir)), "already_prepared": already, "seconds": time.perf_counter() - start}


def data_root(data_dir: Path | str | None = None) -> Path:
    """Return the folder of all data sets: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().resolve()


def is_prepared(folder: Path) -> bool:
    """Return whether `folder` is a version of a data set that TFDS has finished; it writes that file last."""
    return (folder / "dataset_info.json").is_file()


def find_builder(name: str) -> Callable[..., tfds.core.DatasetBuilder]:
    """Return the builder class of a data set of ours, or of ``"module:Class"``.

    Raises:
      DataError: no data set of ours has that name; names the nearest.
      ConfigError: the class can't be imported.
    """
    if ":" in name:
        return import_factory(name, "data set")
    if name not in builders.names():
        raise DataError(f"no data set {name!r}{did_you_mean(name, builders.names())}")
    return import_factory(f"{builders.__name__}.{name}:Builder", "data set")


def _fetch_of(name: str, builder_class: Callable[..., Any]) -> Callable[[Path], str]:
    module = sys.modules[builder_class.__module__]
    if not hasattr(module, "fetch"):
        raise DataError(f"{name}: its module {module.__name__} has no function fetch(folder)")
    return module.fetch


def _write(builder_class: Callable[..., Any], fetch: Callable[[Path], str], stage: Path) -> str:
    """Fetch into ``stage/files``, write below ``stage/prepared``, read back; return the source of the files."""
    files = stage / "files"
    files.mkdir()
    source = fetch(files)
    builder = builder_class(data_dir=str(stage / "prepared"), file_format=FILE_FORMAT)
    _log.info("%s: got from %s; writing", builder.name, source)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    # TFDS prints to stdout, which belongs to the command's result, and names the folder that is about to go.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_dir=str(stage / "downloads"),
            download_config=tfds.download.DownloadConfig(manual_dir=str(files)),
        )
    for split, info in builder.info.splits.items():
        rows = builder.as_data_source(split)
        if not info.num_examples or len(rows) != info.num_examples:
            raise DataError(f"{builder.name}: {len(rows)} rows of {split} can be read back of {info.num_examples}")
        rows.__getitems__([0, len(rows) - 1])
    return source


def _put_in_place(prepared: Path, root: Path, target: Path, source: str) -> None:
    ready = prepared / target.relative_to(root)
    (ready / ORIGIN).write_text(json.dumps({"source": source}) + "\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        ready.rename(target)
    except OSError:
        if not is_prepared(target):
            raise
        _log.info("%s was prepared by another process meanwhile; keeping that", target)


def _describe(path: Path) -> dict[str, Any]:
    info = tfds.builder_from_directory(str(path)).info
    origin = path / ORIGIN
    return {
        "dataset": info.name,
        "version": str(info.version),
        "path": str(path),
        "splits": {split: found.num_examples for split, found in info.splits.items()},
        "source": json.loads(origin.read_text())["source"] if origin.exists() else "unknown",
    }
