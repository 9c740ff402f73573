"""The sources of a config's splits: opened, checked against each other, and written down with the run.

Usage: ``sources = open_sources(config, ("train", "valid"))``; knows no transform and no model.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.config import build
from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Source, Transform
from jaxlab.data import sampling, splits
from jaxlab.data.arrays import in_memory
from jaxlab.data.fitting import Transformed
from jaxlab.data.mixture import Mixture
from jaxlab.data.overlap import check_classes, check_disjoint
from jaxlab.data.subset import Subset
from jaxlab.data.table_columns import chunks, read
from jaxlab.data.windows import Windows

SPLITS = ("train", "valid", "test")
_FEW_BYTES = 2**26  # of rows on disk, or of windows, that are read through before training
_NO_INPUTS = ("source", "group", "time")  # fields that a split may do without
_MOST_ROWS = 1024  # rows with missing values that are transformed to see whether they are filled in

_log = logging.getLogger("jaxlab")


def open_sources(config: ConfigDict, names: tuple[str, ...] = SPLITS) -> dict[str, Source]:
    """Return the sources of those splits that the config has.

    Raises:
      ConfigError: the config has no training split, or a factory makes something that is no source.
      DataError: data that is not there.
    """
    if "train" not in config.data:
        raise ConfigError(f"config.data.train is missing{did_you_mean('train', config.data)}")
    return {name: _opened(config, name) for name in names if name in config.data}


def _opened(config: ConfigDict, name: str) -> Source:
    try:
        source = build(config.data[name], path=f"config.data.{name}")
    except OSError as error:  # of a factory of the user's own
        raise DataError(f"config.data.{name}: {error}") from error
    if not all(hasattr(source, part) for part in ("spec", "__len__", "__getitems__")):
        raise ConfigError(
            f"config.data.{name}: {config.data[name].get('factory')} makes a {type(source).__name__}; expected a "
            "source, such as jaxlab.ArraySource(fields, facts)"
        )
    return source


def check_sources(sources: Mapping[str, Source], config: ConfigDict) -> None:
    """Raise an error for splits that share rows or groups, have other classes, or cannot make a batch.

    Labels of the test split are left alone unless it is the only one, that is where it is evaluated.
    """
    check_disjoint(sources)
    if "train" in sources and config.train.batch_size > len(sources["train"]):
        size = len(sources["train"])
        raise ConfigError(f"config.train.batch_size={config.train.batch_size}: config.data.train has {size} examples")
    classes = {name: tuple(source.spec.meta.get("classes") or ()) for name, source in sources.items()}
    first, expected = next(iter(classes.items()))
    for name, found in classes.items():
        if found != expected:
            odd = sorted(set(found) ^ set(expected)) or "their order"
            raise DataError(f"config.data.{name} has other classes than config.data.{first}: {odd}")
    labelled = {n: s for n, s in _seen(sources).items() if expected and "label" in s.spec.example and _is_quick(s)}
    for name, source in labelled.items():
        _check_labels(name, source, len(expected))
    others = {name: source for name, source in labelled.items() if name != "train"}
    train = sources.get("train") or ("test" in others and _opened(config, "train"))
    if others and train and _is_quick(train):
        check_classes(train, others)


def check_transformed(sources: Mapping[str, Source], transforms: Sequence[Transform]) -> None:
    """Raise DataError for a split whose fields, once transformed, aren't the first split's, or for a NaN in them.

    So a column that a later split lacks, or a missing value that nothing fills in, is found before training.
    """
    views = {}
    for name, source in sources.items():
        with _naming(name):
            views[name] = Transformed(source, transforms, {})
    first, expected = next(iter(views)), next(iter(views.values())).spec.example
    for name, view in views.items():
        found = view.spec.example
        lone = [field for field in found if field not in expected and np.dtype(found[field].dtype).kind not in "biuf"]
        for field in [*expected, *lone]:
            if field not in found and field in _NO_INPUTS:
                continue
            if field not in found or field in lone:
                where, elsewhere = (first, name) if field in found else (name, first)
                raise DataError(f"config.data.{where} has no field {field!r}, as config.data.{elsewhere} has")
            kinds = [f"{example[field].dtype}{list(example[field].shape)}" for example in (found, expected)]
            if kinds[0] != kinds[1]:
                pair = f"is {kinds[0]}; in config.data.{first} it is {kinds[1]}"
                raise DataError(f"config.data.{name}: the field {field!r} {pair}")
    for name, source in _seen(sources).items():
        if _is_quick(source):
            _check_missing(name, source, views[name])


def _seen(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Return the splits whose labels and values may be looked at: test only where it alone is evaluated."""
    return {name: source for name, source in sources.items() if name != "test" or len(sources) == 1}


@contextlib.contextmanager
def _naming(split: str) -> Iterator[None]:
    """Let what a transform finds wrong with a split begin with the split's name."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise DataError(f"config.data.{split}: {error}") from error


def _check_missing(name: str, source: Source, view: Source) -> None:
    """Raise DataError if rows with a missing number still have one in the transformed `view` of them."""
    floats = [field for field, x in source.spec.example.items() if np.dtype(x.dtype).kind == "f"]
    pieces = chunks(source, floats) if floats else ()
    absent = [np.any([np.isnan(x).reshape(len(x), -1).any(1) for x in piece.values()], axis=0) for piece in pieces]
    rows = np.flatnonzero(np.concatenate(absent))[:_MOST_ROWS] if absent else np.zeros(0, int)
    if not len(rows):
        return
    with _naming(name):
        fields = view.__getitems__(rows)
    for field, value in fields.items():
        if value.dtype.kind == "f" and np.isnan(value).any():
            wrong = int(rows[np.isnan(value).reshape(len(rows), -1).any(1)][0])
            raise DataError(
                f"config.data.{name}: the field {field!r} is NaN in row {_row(source, wrong)}; "
                "fill it by a transform such as jaxlab.data.table_numeric:impute, or leave such rows out by "
                "jaxlab.data.splits:drop_missing"
            )


def write_splits(workdir: Path, sources: Mapping[str, Source]) -> None:
    """Write the indices of splits to the run's index file, or files where the splits are of several data.

    Raises:
      DataError: the run has such a file of other rows: its data have changed since.
    """
    found: dict[str, dict[str, list[Subset]]] = {}
    for name, source in sources.items():
        for part in _subsets(source):
            found.setdefault(part.base_fingerprint, {}).setdefault(name, []).append(part)
    for number, named in enumerate(found.values()):
        path = workdir / record.SPLIT_INDICES
        path = path.with_stem(f"{path.stem}-{number}") if number else path
        parts = {name: _joined(several) for name, several in named.items()}
        for name, part in parts.items() if path.exists() else ():
            if not np.array_equal(splits.from_file(part.base, str(path), name).indices, part.indices):
                raise DataError(f"{path}: the split {name!r} has other rows now; train into another --workdir")
        splits.save(str(path), parts)


def _subsets(source: Source) -> Iterator[Subset]:
    """Yield the subsets that `source` is, or is made of."""
    if isinstance(source, Subset):
        yield source
    elif hasattr(source, "origins"):
        for inner, _ in source.origins():
            yield from _subsets(inner)


def _joined(parts: Sequence[Subset]) -> Subset:
    """Return the rows of all `parts`, which are of one source."""
    indices = np.unique(np.concatenate([part.indices for part in parts])) if len(parts) > 1 else parts[0].indices
    return Subset(parts[0].base, indices, parts[0].spec.meta["split"])


def keep_tokenizers(workdir: Path, sources: Mapping[str, Source]) -> None:
    """Copy the files of tokenizers that sources name into the run, by their hash: the originals may go."""
    for source in sources.values():
        if source.spec.meta.get("tokenizer_file"):
            name = record.TOKENIZER.format(hash=source.spec.meta["tokenizer"])
            shutil.copyfile(source.spec.meta["tokenizer_file"], workdir / name)


def log_sampling(sources: Mapping[str, Source], weights: np.ndarray | None) -> None:
    """Log how many rows of each class, or of each part of a mixture, there are and an epoch draws."""
    train = sources["train"]
    if train.spec.meta.get("classes") and "label" in train.spec.example and _is_quick(train):
        made = train.spec.meta.get("synthetic", {})
        for name, (count, draws) in sampling.class_counts(train, weights).items():
            before = f"{count - made[name]} rows and {made[name]} synthetic" if made.get(name) else f"{count} rows"
            _log.info("class %s: %s, %.1f draws an epoch", name, before, draws)
    mixture, rows = (train.base, train.indices) if isinstance(train, Subset) else (train, np.arange(len(train)))
    if isinstance(mixture, Mixture):
        which, names = mixture.which(rows), [part["name"] for part in mixture.spec.meta["sources"]]
        drawn = np.ones(len(rows)) if weights is None else weights * (len(weights) / weights.sum())
        for part, name in enumerate(names):
            here = which == part
            _log.info("source %d (%s): %d rows, %.1f draws an epoch", part, name, here.sum(), drawn[here].sum())


def _is_quick(source: Source) -> bool:
    """Return whether all rows can be looked at before training: from memory, or few bytes from wherever they are."""
    row = sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in source.spec.example.values())
    return (in_memory(source) and not isinstance(source, Windows)) or len(source) * row <= _FEW_BYTES


def _check_labels(split: str, source: Source, classes: int) -> None:
    if source.spec.example["label"].shape:
        return
    labels = read(source, ("label",))["label"]
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        row, label = _row(source, int(wrong[0])), labels[wrong[0]]
        raise DataError(f"config.data.{split}: row {row} has the label {label}; expected 0 to {classes - 1}")


def _row(source: Source, row: int) -> int:
    """Return the number of a row in the whole data."""
    return int(source.indices[row]) if isinstance(source, Subset) else row
