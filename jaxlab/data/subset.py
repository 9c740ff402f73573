"""Some rows of a source, as a source; and the checks that splits share no row, no group and no unknown class.

Knows no rule by which rows are chosen. Usage: ``Subset(source, np.arange(10), {"part": "few"})``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlab.core.errors import DataError
from jaxlab.core.types import DataSpec, Source
from jaxlab.data.arrays import in_memory
from jaxlab.data.table_columns import chunks, read


class Subset:
    """Some rows of a source, in the order of `indices`; of a subset's subset, the indices are the first source's."""

    def __init__(self, source: Source, indices: np.ndarray, facts: Mapping[str, Any]) -> None:
        """Serve the rows `indices` [n] of `source`; `facts` about the split go into ``meta["split"]``.

        Raises:
          DataError: no rows, or an index out of range.
        """
        indices = np.asarray(indices, np.int64)
        if not len(indices):
            raise DataError(f"the split {facts.get('part', '')!r} holds no rows of {len(source)}")
        wrong = indices[(indices < 0) | (indices >= len(source))]
        if len(wrong):
            raise DataError(f"the split {facts.get('part', '')!r}: index {wrong[0]} is outside {len(source)} rows")
        self.base: Source = source.base if isinstance(source, Subset) else source
        self.base_fingerprint: str = source.base_fingerprint if isinstance(source, Subset) else fingerprint(source)
        self.indices = source.indices[indices] if isinstance(source, Subset) else indices
        digest = hashlib.sha256(self.base_fingerprint.encode() + self.indices.astype("<i8").tobytes()).hexdigest()
        meta = dict(source.spec.meta)
        within = {"within": meta["split"]} if meta.get("split") else {}
        meta |= {"split": {**facts, **within, "fingerprint": f"split:{digest}"}, "fingerprint": f"split:{digest}"}
        self._spec = DataSpec(source.spec.example, len(indices), meta)

    @property
    def spec(self) -> DataSpec:
        """The base's fields and facts, with ``split`` (part, by, seed, fingerprint) and a fingerprint of its own."""
        return self._spec

    @property
    def in_memory(self) -> bool:
        """Whether the base's rows are."""
        return in_memory(self.base)

    @property
    def row_weights(self) -> np.ndarray | None:
        """The weights [n] of these rows where the base has weights, as mixtures do."""
        weights = getattr(self.base, "row_weights", None)
        return None if weights is None else np.asarray(weights)[self.indices]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.indices)

    def __getitems__(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the rows at `indices` [n] of this subset, one array [n, ...] a field."""
        return self.base.__getitems__(self.indices[indices])


def check_disjoint(sources: Mapping[str, Source]) -> None:
    """Raise DataError if two splits of the same data share a row, or, where one is grouped, a group."""
    names = list(sources)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            _check_pair(name, sources[name], other, sources[other])


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


def fingerprint(source: Source) -> str:
    """Return the fingerprint in a source's meta, or else a hash of all its rows."""
    known = source.spec.meta.get("fingerprint")
    if known:
        return str(known)
    names = sorted(source.spec.example)
    digests = {name: hashlib.sha256() for name in names}
    for piece in chunks(source, names):
        for name, column in piece.items():
            digests[name].update(_bytes(column))
    shapes = [f"{name} {source.spec.example[name].dtype} {source.spec.example[name].shape}" for name in names]
    whole = [f"{len(source)}", *shapes, *(digests[name].hexdigest() for name in names)]
    return f"rows:{hashlib.sha256(chr(10).join(whole).encode()).hexdigest()}"


def _bytes(column: np.ndarray) -> bytes:
    if column.dtype.kind != "O":
        return np.ascontiguousarray(column).tobytes()
    parts = [value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode() for value in column.ravel()]
    return b"".join(len(encoded).to_bytes(8, "little") + encoded for encoded in parts)


def _check_pair(name: str, one: Source, other_name: str, other: Source) -> None:
    if not isinstance(one, Subset) and not isinstance(other, Subset):
        _check_records(name, one.spec.meta, other_name, other.spec.meta)
        return  # equal rows of different data are the audit's business
    (base, rows), (_, other_rows) = _rows(one), _rows(other)
    if _base_fingerprint(one) != _base_fingerprint(other):
        return
    shared = np.intersect1d(rows, other_rows)
    if len(shared):
        first = ", ".join(map(str, shared[:5]))
        raise DataError(f"the splits {name!r} and {other_name!r} share {len(shared)} rows: {first} of the whole data")
    for field in sorted(_group_fields(one) | _group_fields(other)):
        groups = read(base, (field,))[field]
        both = np.intersect1d(groups[rows], groups[other_rows])
        if len(both):
            first = ", ".join(map(repr, both[:5].tolist()))
            raise DataError(f"the splits {name!r} and {other_name!r} share {len(both)} groups of {field!r}: {first}")


def _check_records(name: str, one: Mapping[str, Any], other_name: str, other: Mapping[str, Any]) -> None:
    """Raise DataError if two slices of one prepared data set hold the same records of a file."""
    if (one.get("name"), one.get("version")) != (other.get("name"), other.get("version")):
        return
    shared = sum(
        max(0, min(last, other_last) - max(first, other_first))
        for file, first, last in one.get("records", ())
        for other_file, other_first, other_last in other.get("records", ())
        if file == other_file
    )
    if shared:
        raise DataError(
            f"the splits {name!r} ({one['split']}) and {other_name!r} ({other['split']}) share {shared} rows"
        )


def _group_fields(source: Source) -> set[str]:
    """Return the fields by which a source, or what it is a part of, was split into groups."""
    fields, split = set(), source.spec.meta.get("split")
    while isinstance(split, Mapping):
        if split.get("by") == "grouped":
            fields.add(split.get("field") or "group")
        split = split.get("within")
    return fields


def _rows(source: Source) -> tuple[Source, np.ndarray]:
    return (source.base, source.indices) if isinstance(source, Subset) else (source, np.arange(len(source)))


def _base_fingerprint(source: Source) -> str:
    return source.base_fingerprint if isinstance(source, Subset) else fingerprint(source)
