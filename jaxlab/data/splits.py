"""Splits of a source by index: at random, stratified, by group or by time; parts, folds and index files.

A split is a pure function of the source's fields and a seed of its own, apart from the run's. Knows no batch and no
transform. Usage: ``spec("jaxlab.data.splits:part", source=spec("..."), part="train", by="stratified")``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Source
from jaxlab.data import split_files
from jaxlab.data.split_rules import assign, expanding, folds_of
from jaxlab.data.subset import Subset, fingerprint
from jaxlab.data.table_columns import chunks, missing, read

FIELDS = {"random": None, "stratified": "label", "grouped": "group", "time": "time"}
"""The kinds of split, and the field that each looks at unless the config names another."""

Fractions = tuple[tuple[str, float], ...]


def part(
    source: Source,
    part: str = "train",
    fractions: Fractions = (("train", 0.8), ("valid", 0.1), ("test", 0.1)),
    by: str = "random",
    field: str | None = None,
    seed: int = 0,
) -> Subset:
    """Return one of the parts that a source is split into.

    Args:
      source: what is split.
      part: one of the names in `fractions`.
      fractions: the parts' names and shares, in order of time for a split by time; what they leave is in no part.
      by: ``random``; ``stratified``: each class has its share of each part, to less than one row; ``grouped``: no
        group in two parts, sizes as near the shares as a greedy search gets; ``time``: each part is later than the
        one before it, rows of one time stay together.
      field: the label, group or time; None is ``label``, ``group`` or ``time``.
      seed: decides all but a split by time.

    Raises:
      ConfigError: no such part or kind, or shares that are not shares.
      DataError: no such field, missing values in it, or an empty part.
    """
    names, shares = _checked_fractions(fractions)
    if part not in names:
        raise ConfigError(f"part: part={part!r}{did_you_mean(part, names)}")
    owner = assign(_keys(source, by, field), by, shares, len(source), seed)
    _check_filled(names, owner, by)
    facts = {"part": part, "by": by, "field": field or FIELDS[by], "seed": seed}
    return Subset(source, np.flatnonzero(owner == names.index(part)), facts)


def fold(
    source: Source,
    fold: int = 0,
    folds: int = 5,
    part: str = "train",
    by: str = "random",
    field: str | None = None,
    seed: int = 0,
) -> Subset:
    """Return the rows of one fold of a cross-validation (``valid``) or those that it trains on (``train``).

    By time the training window expands: fold f trains on the first f + 1 of ``folds + 1`` spans and is validated on the
    next. Otherwise the folds' valid parts together are the source.

    Args:
      source: what is split.
      fold: which, from 0.
      folds: how many, at least 2.
      part: ``train`` or ``valid``.
      by: as for `part`.
      field: as for `part`.
      seed: as for `part`.

    Raises:
      ConfigError: no such fold, part or kind.
      DataError: no such field, missing values in it, or an empty part.
    """
    if part not in ("train", "valid"):
        raise ConfigError(f"fold: part={part!r}: expected 'train' or 'valid'")
    if folds < 2 or not 0 <= fold < folds:
        raise ConfigError(f"fold: fold={fold} of folds={folds}: expected 0 <= fold < folds and two folds or more")
    keys = _keys(source, by, field)
    owner = expanding(keys, folds) if by == "time" else folds_of(keys, by, folds, len(source), seed)
    _check_filled([f"fold {number}" for number in range(folds + (by == "time"))], owner, by)
    valid = owner == fold + (by == "time")
    train = owner <= fold if by == "time" else ~valid
    facts = {"part": part, "by": by, "field": field or FIELDS[by], "seed": seed, "fold": fold, "folds": folds}
    return Subset(source, np.flatnonzero(valid if part == "valid" else train), facts)


def drop_missing(source: Source, columns: tuple[str, ...] = ()) -> Subset:
    """Return the rows in which no column has a missing value: NaN, None or an empty text; () means all columns."""
    names = tuple(columns) or tuple(source.spec.example)
    for name in names:
        if name not in source.spec.example:
            raise ConfigError(f"drop_missing: the data has no column {name!r}{did_you_mean(name, source.spec.example)}")
    absent = [
        np.any([missing(column).reshape(len(column), -1).any(1) for column in piece.values()], axis=0)
        for piece in chunks(source, names)
    ]
    return Subset(source, np.flatnonzero(~np.concatenate(absent)), {"part": "complete", "by": "missing"})


def save(path: str, parts: Mapping[str, Subset]) -> None:
    """Write the indices of splits of one source to an index file, which `from_file` reads.

    Raises:
      DataError: no parts, parts of different data, or parts that share rows.
    """
    splits = list(parts.values())
    if not splits or len({split.base_fingerprint for split in splits}) > 1:
        raise DataError(f"{path}: expected splits of one source; found {', '.join(parts) or 'none'}")
    split_files.check_overlap(path, {name: split.indices for name, split in parts.items()})
    facts = splits[0].spec.meta["split"]
    content = {name: facts.get(name) for name in ("seed", "by", "field")}
    content |= {"base_fingerprint": splits[0].base_fingerprint, "size": len(splits[0].base)}
    split_files.write(path, {**content, "parts": {name: split.indices.tolist() for name, split in parts.items()}})


def from_file(source: Source, path: str, part: str = "train") -> Subset:
    """Return a part that an index file lists.

    Args:
      source: the whole data that the file is of; its size and fingerprint are checked against the file's.
      path: of the file, see `jaxlab.data.split_files`.
      part: one of its names.

    Raises:
      DataError: a file that cannot be read, has been changed or is of other data; an index out of range or there
        twice, parts that share rows, no such part, or an empty one.
    """
    content = split_files.load(path, fingerprint(source), len(source))
    listed = content.get("parts")
    if not isinstance(listed, dict):
        raise DataError(f"{path}: no 'parts', an object of lists of row numbers")
    if part not in listed:
        raise DataError(f"{path}: no part {part!r}{did_you_mean(part, listed)}")
    parts = {name: split_files.indices(path, name, rows, len(source)) for name, rows in listed.items()}
    split_files.check_overlap(path, parts)
    facts = {name: content.get(name) for name in ("by", "field", "seed")}
    return Subset(source, parts[part], {"part": part, **facts})


def filtered(source: Source, path: str, split: str = "train") -> Subset:
    """Return a source without the rows that a filter file, such as an audit's, lists under ``drop`` of its `split`.

    Raises:
      DataError: as for `from_file`, or no row is left.
    """
    content = split_files.load(path, fingerprint(source), len(source), split)
    if "drop" not in content:
        raise DataError(f"{path}: no 'drop', a list of the row numbers to leave out{did_you_mean('drop', content)}")
    drop = split_files.indices(path, "drop", content["drop"], len(source))
    kept = np.setdiff1d(np.arange(len(source)), drop)
    return Subset(source, kept, {"part": "filtered", "by": "file"})


def _keys(source: Source, by: str, field: str | None) -> np.ndarray | None:
    """Return the values [N] that the split looks at; None at random."""
    if by not in FIELDS:
        raise ConfigError(f"by={by!r}{did_you_mean(by, FIELDS)}")
    name = field or FIELDS[by]
    if by == "random" or name is None:
        return None
    values = read(source, (name,))[name]
    if values.ndim != 1:
        raise DataError(f"a split by {name!r}: it has {values.shape[1:]} values a row; expected one")
    absent = np.flatnonzero(missing(values))
    if len(absent):
        raise DataError(f"a split by {name!r}: {len(absent)} values are missing, first in row {absent[0]}")
    return values


def _checked_fractions(fractions: Fractions) -> tuple[list[str], list[float]]:
    try:
        pairs = [(str(name), float(share)) for name, share in fractions]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"fractions={fractions!r}: expected pairs such as (('train', 0.9), ('valid', 0.1))"
        ) from error
    names, shares = [name for name, _ in pairs], [share for _, share in pairs]
    if len(set(names)) < len(names) or not pairs or min(shares) <= 0 or sum(shares) > 1 + 1e-9:
        raise ConfigError(f"fractions={fractions!r}: expected different names and positive shares of at most 1 in all")
    return names, shares


def _check_filled(names: Sequence[str], owner: np.ndarray, by: str) -> None:
    for number, name in enumerate(names):
        if not (owner == number).any():
            raise DataError(f"a split by={by!r} of {len(owner)} rows leaves {name!r} empty; give it a larger share")
