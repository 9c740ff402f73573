"""Checks of splits against each other: no row, no group and no time of one in another, and no class new to training.

Rows are followed to where they come from: through subsets, mixtures and windows, which state their ``origins``. Equal
rows of different data are the audit's business. Usage: ``check_disjoint({"train": train, "valid": valid})``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from jaxlab.core.errors import DataError
from jaxlab.core.types import Source
from jaxlab.data.arrays import in_memory
from jaxlab.data.subset import Origin, fingerprint
from jaxlab.data.table_columns import read


def check_disjoint(sources: Mapping[str, Source]) -> None:
    """Raise DataError if two splits share a row of the same data, or a group or a time by which they were split.

    Args:
      sources: by name, in order of time where they were split by it.
    """
    names = list(sources)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            for one in origins(sources[name]):
                for two in origins(sources[other]):
                    _check_rows(name, one, other, two)
                    if _is_same(one[0], two[0]):
                        _check_keys(name, sources[name], one, other, sources[other], two)


def origins(source: Source, rows: np.ndarray | None = None) -> Iterator[Origin]:
    """Yield the sources that the `rows` of `source` (None: all) come from, and which of theirs they are."""
    if not hasattr(source, "origins"):
        yield source, rows
        return
    for inner, theirs in source.origins(rows):
        yield from origins(inner, theirs)


def check_classes(train: Source, others: Mapping[str, Source], field: str = "label") -> None:
    """Raise DataError if a split holds a class that training never saw."""
    known = np.unique(read(train, (field,))[field])
    for name, source in others.items():
        labels = read(source, (field,))[field]
        values, counts = np.unique(labels[~np.isin(labels, known)], return_counts=True)
        if len(values):
            classes = source.spec.meta.get("classes") or ()
            label = values[0]
            inside = isinstance(label, np.integer) and 0 <= label < len(classes)
            raise DataError(
                f"the split {name!r} holds {counts[0]} rows of class {classes[label] if inside else label!r}, which "
                "training never saw; split by='stratified', or drop the class"
            )


def _check_rows(name: str, one: Origin, other: str, two: Origin) -> None:
    """Raise DataError if two origins are the same rows of the same data, or the same records of a prepared one."""
    if _is_same(one[0], two[0]):
        shared = np.intersect1d(_rows(one), _rows(two))
        if len(shared):
            first = ", ".join(map(str, shared[:5]))
            raise DataError(f"the splits {name!r} and {other!r} share {len(shared)} rows: {first} of the whole data")
        return
    count = _shared_records(one, two)
    if count:
        slices = [f"{split!r} ({source.spec.meta['split']})" for split, (source, _) in ((name, one), (other, two))]
        raise DataError(f"the splits {slices[0]} and {slices[1]} share {count} rows")


def _check_keys(name: str, source: Source, one: Origin, other: str, later: Source, two: Origin) -> None:
    """Raise DataError if two splits of the same data share a group, or if the later one by time begins too early."""
    ours, theirs = _split_fields(source), _split_fields(later)
    for field in sorted(ours["grouped"] | theirs["grouped"]):
        values = read(one[0], (field,))[field]
        both = np.intersect1d(values[_rows(one)], values[_rows(two)])
        if len(both):
            first = ", ".join(map(repr, both[:5].tolist()))
            raise DataError(f"the splits {name!r} and {other!r} share {len(both)} groups of {field!r}: {first}")
    for field in sorted(ours["time"] & theirs["time"]):
        values = read(one[0], (field,))[field]
        last, first = max(values[_rows(one)]), min(values[_rows(two)])
        if last >= first:
            raise DataError(
                f"the split {name!r} goes on until {field}={last}; {other!r}, which should be later, begins at {first}"
            )


def _split_fields(source: Source) -> dict[str, set[str]]:
    """Return the fields by which a source, or what it is a part of, was split by group and by time."""
    fields: dict[str, set[str]] = {"grouped": set(), "time": set()}
    split = source.spec.meta.get("split")
    while isinstance(split, Mapping):
        if split.get("by") in fields:
            fields[split["by"]].add(split.get("field") or {"grouped": "group", "time": "time"}[split["by"]])
        split = split.get("within")
    return fields


def _is_same(one: Source, other: Source) -> bool:
    """Return whether two sources hold the same data, as far as that is quick to say."""
    if one is other:
        return True
    quick = all(source.spec.meta.get("fingerprint") or in_memory(source) for source in (one, other))
    return quick and len(one) == len(other) and fingerprint(one) == fingerprint(other)


def _rows(origin: Origin) -> np.ndarray:
    source, rows = origin
    return np.arange(len(source)) if rows is None else rows


def _shared_records(one: Origin, two: Origin) -> int:
    """Return how many records of a file are in two slices of one prepared data set."""
    facts, others = one[0].spec.meta, two[0].spec.meta
    if (facts.get("name"), facts.get("version")) != (others.get("name"), others.get("version")):
        return 0
    count = 0
    for file, first, last, ours in _records(one):
        for twin, begin, end, theirs in _records(two):
            low, high = max(first, begin), min(last, end)
            if file != twin or low >= high:
                continue
            count += high - low if ours is None and theirs is None else _shared(ours, theirs, low, high)
    return count


def _records(origin: Origin) -> Iterator[tuple[str, int, int, np.ndarray | None]]:
    """Yield each file of a prepared data set, the records of it that are served, and which of them these rows are."""
    source, rows = origin
    start = 0
    for file, first, last in source.spec.meta.get("records", ()):
        end = start + last - first
        yield file, first, last, None if rows is None else rows[(rows >= start) & (rows < end)] - start + first
        start = end


def _shared(one: np.ndarray | None, other: np.ndarray | None, low: int, high: int) -> int:
    between = np.arange(low, high)
    for numbers in (one, other):
        between = between if numbers is None else np.intersect1d(between, numbers)
    return len(between)
