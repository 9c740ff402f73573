"""The folds of a cross-validation: what is split and how, the config of each fold's run, and the index files.

A fold's config names `jaxlab.data.splits:fold` and no index file, so that its run stays whole where it is moved to; the
files are kept beside it, and data or rules that no longer give their rows are refused.
Usage: ``rule, folds = cut(config, 5, "auto", None)``; knows no training and no metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxlab.core import config as configs
from jaxlab.core.config import build, spec
from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Source
from jaxlab.data import splits
from jaxlab.data.subset import Subset
from jaxlab.data.table_columns import missing, read
from jaxlab.data.windows import Windows
from jaxlab.run.sources import check_sources, open_sources
from jaxlab.run.units import START

AUTO = "auto"
SEED = 0  # of the split, apart from the run's: runs with other seeds, and other models, see the same folds


class Rule(NamedTuple):
    """How many folds, what rows they keep together or apart, and the field that says so."""

    folds: int
    by: str
    field: str | None


class Fold(NamedTuple):
    """One fold's run, the rows that it trains on and those that are held out, and what its evaluation reads of them."""

    config: ConfigDict
    train: Subset
    held: Subset
    source: Source  # the held-out rows, or windows cut from them

    def rows(self, ids_N: np.ndarray) -> np.ndarray:
        """Return which held-out rows [N] the examples `ids_N` of an evaluation are; of windows, their first ones."""
        windows = isinstance(self.source, Windows)
        return read(self.source, (START,))[START][ids_N] if windows else ids_N


class _Whole(NamedTuple):
    """What is split, and the node around it that makes windows or synthetic rows of each fold."""

    node: ConfigDict
    source: Source
    around: ConfigDict | None
    windows: bool


def check_flags(folds: int, by: str, field: str | None) -> None:
    """Raise ConfigError for flags that no data can fulfil."""
    if folds < 2:
        raise ConfigError(f"--cv={folds}: expected two folds or more")
    if by not in (AUTO, *splits.FIELDS):
        raise ConfigError(f"--cv_by={by}{did_you_mean(by, (AUTO, *splits.FIELDS))}")
    if field is not None and by in (AUTO, "random"):
        raise ConfigError(
            f"--cv_field={field}: --cv_by={by} looks at no named field; expected grouped, stratified or time"
        )


def cut(config: ConfigDict, folds: int, by: str, field: str | None) -> tuple[Rule, list[Fold]]:
    """Return how ``config.data.train`` is split, and its folds, each checked as a run's splits are.

    Its rows are held out in turn. ``config.data.valid`` gives way to the held-out rows, ``config.data.test`` is left
    out. Windows are cut, and synthetic rows made, within each fold; the latter for training only.

    Args:
      config: complete.
      folds: how many.
      by: a kind of `jaxlab.data.splits`, or ``auto``: as the source itself was split by group or time, else grouped
        with a field ``group``, by time with a field ``time`` or of windows, stratified with classes, or random.
      field: the label, group or time; None is ``label``, ``group`` or ``time``.

    Raises:
      ConfigError, DataError: no such kind or field, or too few rows, groups, times or rows of a class.
    """
    check_flags(folds, by, field)
    whole = _open(config)
    rule = _rule(whole, folds, by, field)
    _check_enough(whole.source, rule)
    return rule, [_fold(config, whole, rule, number) for number in range(folds)]


def keep(folder: Path, folds: list[Fold]) -> None:
    """Write an index file for each fold, or check that the one that stands there has the same rows.

    Raises:
      DataError: the data, or their split, have changed since.
    """
    for number, fold in enumerate(folds):
        path = folder / f"fold-{number}.json"
        parts = {"train": fold.train, "valid": fold.held}
        for name, part in parts.items() if path.exists() else ():
            if not np.array_equal(splits.from_file(part.base, str(path), name).indices, part.indices):
                raise DataError(f"{path}: the part {name!r} has other rows now; cross-validate into another --workdir")
        if not path.exists():
            splits.save(str(path), parts)


def _open(config: ConfigDict) -> _Whole:
    source, node = open_sources(config, ("train",))["train"], config.data.train
    if not _is_made(source):
        return _Whole(node, source, None, windows=False)
    if isinstance(node.get("source"), ConfigDict):
        inner = build(node.source, path="config.data.train.source")
        if not _is_made(inner):
            return _Whole(node.source, inner, node, isinstance(source, Windows))
    raise DataError(
        "config.data.train: its rows are windows or synthetic, and a fold has to be taken of what they are made of; "
        "expected the factory that makes them to be config.data.train's own, and their rows its source"
    )


def _is_made(source: Source) -> bool:
    """Return whether rows are made of others, which may not be in two folds."""
    return isinstance(source, Windows) or bool(source.spec.meta.get("synthetic"))


def _rule(whole: _Whole, folds: int, by: str, field: str | None) -> Rule:
    example = whole.source.spec.example
    if by == AUTO:
        by, field = _earlier(whole.source.spec.meta) or (_fitting(whole), None)
    name = field or splits.FIELDS[by]
    if name is not None and name not in example:
        raise DataError(
            f"--cv_by={by}: config.data.train has no field {name!r}{did_you_mean(name, example)}; --cv_field names it"
        )
    return Rule(folds, by, name)


def _fitting(whole: _Whole) -> str:
    """Return the kind of split that the data's fields ask for."""
    example, meta = whole.source.spec.example, whole.source.spec.meta
    if whole.windows or ("time" in example and "group" not in example):
        return "time"
    if "group" in example:
        return "grouped"
    return "stratified" if meta.get("classes") and "label" in example and not example["label"].shape else "random"


def _earlier(meta: Mapping[str, object]) -> tuple[str, str | None] | None:
    """Return by what group or time the source was split already: what it kept together stays so."""
    split = meta.get("split")
    while isinstance(split, Mapping):
        if split.get("by") in ("grouped", "time"):
            return split["by"], split.get("field")
        split = split.get("within")
    return None


def _check_enough(source: Source, rule: Rule) -> None:
    if len(source) < rule.folds:
        raise DataError(f"--cv={rule.folds}: config.data.train has {len(source)} rows")
    values = np.zeros((0, 0)) if rule.field is None else read(source, (rule.field,))[rule.field]
    if values.ndim != 1:
        return  # nothing to look at, or several values a row, which the split itself refuses
    counts = Counter(values[~missing(values)].tolist())
    least = rule.folds + (rule.by == "time")
    if rule.by == "stratified":
        value, count = min(counts.items(), key=lambda pair: pair[1])
        if count < rule.folds:
            classes = source.spec.meta.get("classes") or ()
            known = rule.field == "label" and isinstance(value, int) and 0 <= value < len(classes)
            name = classes[value] if known else value
            raise DataError(
                f"--cv={rule.folds} --cv_by=stratified: the class {name!r} has {count} rows; expected one a fold"
            )
    elif len(counts) < least:
        what = "different times" if rule.by == "time" else "groups"
        raise DataError(
            f"--cv={rule.folds} --cv_by={rule.by}: the field {rule.field!r} has {len(counts)} {what}; "
            f"expected at least {least}"
        )


def _fold(config: ConfigDict, whole: _Whole, rule: Rule, number: int) -> Fold:
    nodes = {}
    for part in ("train", "valid"):
        options = {"part": part, **rule._asdict(), "fold": number, "seed": SEED}
        nodes[part] = spec("jaxlab.data.splits:fold", source=whole.node, **options)
        if whole.around is not None and (whole.windows or part == "train"):
            nodes[part] = ConfigDict({**whole.around, "source": nodes[part]})
    own = configs.from_json(configs.to_json(config)).unlock()
    own.data = ConfigDict({**{name: own.data[name] for name in own.data if name != "test"}, **nodes})
    own.lock()
    try:
        sources = open_sources(own, ("train", "valid"))
        check_sources(sources, own)
        train, held = (_rows(sources[part], whole, rule, number, part) for part in ("train", "valid"))
    except (ConfigError, DataError) as error:
        raise type(error)(f"fold {number} of {rule.folds}: {error}") from error
    return Fold(own, train, held, sources["valid"])


def _rows(source: Source, whole: _Whole, rule: Rule, number: int, part: str) -> Subset:
    """Return the rows of a fold's part, of which windows and synthetic rows are made."""
    if whole.around is None and isinstance(source, Subset):
        return source
    return splits.fold(whole.source, number, rule.folds, part, rule.by, rule.field, SEED)
