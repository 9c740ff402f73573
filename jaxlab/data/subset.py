"""Some rows of a source, as a source. Knows no rule by which rows are chosen, and no other split.

Usage: ``Subset(source, np.arange(10), {"part": "few"})``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlab.core.errors import DataError
from jaxlab.core.types import DataSpec, Source
from jaxlab.data.arrays import in_memory
from jaxlab.data.table_columns import chunks

Origin = tuple[Source, np.ndarray | None]
"""A source and which of its rows [n], or all of them: what other rows are, or are made of."""


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

    def origins(self, rows: np.ndarray | None = None) -> list[Origin]:
        """Return the base and which of its rows these `rows` [n] are; None is all."""
        return [(self.base, self.indices if rows is None else self.indices[rows])]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.indices)

    def __getitems__(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the rows at `indices` [n] of this subset, one array [n, ...] a field."""
        return self.base.__getitems__(self.indices[indices])


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
