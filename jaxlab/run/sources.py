"""The sources of a config's splits: opened, checked against each other, and written down with the run.

Usage: ``sources = open_sources(config, ("train", "valid"))``; knows no transform and no model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.config import build
from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Source
from jaxlab.data import sampling, splits
from jaxlab.data.arrays import in_memory
from jaxlab.data.subset import Subset, check_classes, check_disjoint
from jaxlab.data.table_columns import chunks, read

SPLITS = ("train", "valid", "test")

_log = logging.getLogger("jaxlab")


def open_sources(config: ConfigDict, names: tuple[str, ...] = SPLITS) -> dict[str, Source]:
    """Return the sources of those splits that the config has.

    Raises:
      ConfigError: the config has no training split.
      DataError: data that is not there.
    """
    if "train" not in config.data:
        raise ConfigError(f"config.data.train is missing{did_you_mean('train', config.data)}")
    return {name: build(config.data[name], path=f"config.data.{name}") for name in names if name in config.data}


def check_sources(sources: Mapping[str, Source], config: ConfigDict) -> None:
    """Raise an error for splits that share rows or groups, have other classes, or cannot make a batch.

    Labels of the test split are left alone unless it is the only one, that is where it is evaluated.
    """
    check_disjoint(sources)
    if "train" in sources and config.train.batch_size > len(sources["train"]):
        size = len(sources["train"])
        raise ConfigError(f"config.train.batch_size={config.train.batch_size}: config.data.train has {size} examples")
    seen = {name: source for name, source in sources.items() if name != "test" or len(sources) == 1}
    classes = {name: tuple(source.spec.meta.get("classes") or ()) for name, source in sources.items()}
    for name, source in seen.items():
        _check_values(name, source, learning=bool(config.data.transforms))
    first, expected = next(iter(classes.items()))
    for name, found in classes.items():
        if found != expected:
            odd = sorted(set(found) ^ set(expected)) or "their order"
            raise DataError(f"config.data.{name} has other classes than config.data.{first}: {odd}")
    labelled = {name: s for name, s in seen.items() if name != "train" and "label" in s.spec.example}
    if "train" in sources and classes["train"] and labelled and all(in_memory(s) for s in seen.values()):
        check_classes(sources["train"], labelled)


def write_splits(workdir: Path, sources: Mapping[str, Source]) -> None:
    """Write the indices of splits of one source to the run's index file, where there are such splits."""
    parts = {name: source for name, source in sources.items() if isinstance(source, Subset)}
    if parts and len({part.base_fingerprint for part in parts.values()}) == 1:
        splits.save(str(workdir / record.SPLIT_INDICES), parts)


def log_sampling(sources: Mapping[str, Source], weights: np.ndarray | None) -> None:
    """Log how many rows of each class, or of each part of a mixture, there are and an epoch draws."""
    train = sources["train"]
    if train.spec.meta.get("classes") and "label" in train.spec.example and in_memory(train):
        for name, (count, draws) in sampling.class_counts(train, weights).items():
            _log.info("class %s: %d rows, %.1f draws an epoch", name, count, draws)
    if weights is not None and "source" in train.spec.example:
        parts = read(train, ("source",))["source"]
        draws = np.bincount(parts, weights) * len(weights) / weights.sum()
        for part, (count, drawn) in enumerate(zip(np.bincount(parts), draws, strict=True)):
            _log.info("source %d of the mixture: %d rows, %.1f draws an epoch", part, count, drawn)


def _check_values(split: str, source: Source, learning: bool) -> None:
    """Raise DataError for a label outside the classes, and for a feature that is no number and never will be."""
    if not in_memory(source):
        return
    classes = source.spec.meta.get("classes")
    names = [name for name, x in source.spec.example.items() if name == "label" or np.dtype(x.dtype).kind == "f"]
    start = 0
    for piece in chunks(source, names):
        for name, value in piece.items():
            if name == "label" and classes and value.ndim == 1:
                _check_labels(split, value, len(classes), start)
            elif not learning and np.isnan(value).any():
                row = start + int(np.argwhere(np.isnan(value))[0][0])
                raise DataError(
                    f"config.data.{split}: the field {name!r} is NaN in row {row}; "
                    "fill it by a transform such as jaxlab.data.table_numeric:impute, or leave such rows out by "
                    "jaxlab.data.splits:drop_missing"
                )
        start += len(next(iter(piece.values())))


def _check_labels(split: str, labels: np.ndarray, classes: int, start: int) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"config.data.{split}: row {start + wrong[0]} has the label {labels[wrong[0]]}; expected 0 to {classes - 1}"
        )
