"""Several sources as one, end to end, with a weight for each: how often training should draw from it.

`Mixture` orders nothing: `row_weights` says how often a row should be drawn, and evaluation sees every row once.
Usage: ``spec("jaxlab.data.mixture:make", sources=(spec("a:make"), spec("b:make")), weights=(3.0, 1.0))``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec, Source
from jaxlab.data.arrays import in_memory
from jaxlab.data.subset import Origin


def make(sources: tuple[Source, ...], weights: tuple[float, ...] = ()) -> Mixture:
    """Return the rows of `sources`, one after the other, with a field ``source`` int32: which one a row is from.

    ``meta`` holds the facts on which the sources agree, and ``sources``: each one's name, size and share of the draws.

    Args:
      sources: at least one, of the same fields and classes.
      weights: relative, one a source; empty draws every row equally often. 0 draws none of that source.

    Raises:
      ConfigError: no source, or weights of another number, negative, not finite, or all 0.
      DataError: sources of different fields or classes, or a field named ``source``.
    """
    if not sources:
        raise ConfigError("sources=(): expected at least one source")
    share = np.array(weights or [len(source) for source in sources], np.float64)
    if len(share) != len(sources) or not np.isfinite(share).all() or (share < 0).any() or not share.any():
        expected = f"{len(sources)} numbers, one a source, not negative and not all 0"
        raise ConfigError(f"weights={weights!r}: expected {expected}")
    for place, source in enumerate(sources[1:], 1):
        _check_alike(sources[0].spec, source.spec, place)
    return Mixture(sources, share / share.sum())


class Mixture:
    """Serves the rows of several sources end to end."""

    def __init__(self, sources: Sequence[Source], shares: np.ndarray) -> None:
        """Hold `sources`, which are alike; `shares` [K] is each one's part of the draws and sums to 1."""
        self._sources, self._shares = tuple(sources), shares
        self._starts = np.cumsum([0, *(len(source) for source in sources)])
        first = sources[0].spec
        example = {**first.example, "source": jax.ShapeDtypeStruct((), np.int32)}
        self._spec = DataSpec(example, int(self._starts[-1]), _common_meta(sources, shares))

    @property
    def spec(self) -> DataSpec:
        """The fields' shapes and dtypes, the number of rows, and the facts that hold for all sources."""
        return self._spec

    @property
    def in_memory(self) -> bool:
        """Whether the rows of all sources are."""
        return all(map(in_memory, self._sources))

    @property
    def row_weights(self) -> np.ndarray:
        """The probability [N] float64 of drawing each row: within a source equal, or in the ratio of its own."""
        parts = []
        for source, share in zip(self._sources, self._shares, strict=True):
            own = getattr(source, "row_weights", None)  # also None in a source that wraps one without
            within = np.ones(len(source)) if own is None else np.asarray(own, np.float64)
            parts.append(within * (share / within.sum()))
        return np.concatenate(parts)

    def origins(self, rows: np.ndarray | None = None) -> list[Origin]:
        """Return each source and which of its rows these `rows` [n] are; None is all."""
        if rows is None:
            return [(source, None) for source in self._sources]
        which = self.which(rows)
        return [(source, rows[which == i] - self._starts[i]) for i, source in enumerate(self._sources)]

    def which(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of the source [n] int32 that each of `rows` [n] is from."""
        return (np.searchsorted(self._starts, rows, side="right") - 1).astype(np.int32)

    def __len__(self) -> int:
        """Return the number of rows of all sources together."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows at `indices` [n], one array [n, ...] a field."""
        indices = np.asarray(indices)
        which = self.which(indices)
        rows: dict[str, np.ndarray] = {}
        for place in np.unique(which):
            here = np.flatnonzero(which == place)
            for name, values in self._sources[place].__getitems__(indices[here] - self._starts[place]).items():
                if name not in rows:
                    rows[name] = np.empty((len(indices), *values.shape[1:]), values.dtype)
                rows[name][here] = values
        return {**rows, "source": which}


def _check_alike(first: DataSpec, other: DataSpec, place: int) -> None:
    """Raise a DataError that names the field in which source `place` differs from source 0."""
    for name in (*first.example, *other.example):
        for spec, where, elsewhere in ((first, 0, place), (other, place, 0)):
            if name not in spec.example:
                raise DataError(f"sources: field {name!r} is in source {elsewhere} and not in source {where}")
        one, two = first.example[name], other.example[name]
        if (one.shape, one.dtype) != (two.shape, two.dtype):
            found = f"{one.dtype}{list(one.shape)} in source 0 and {two.dtype}{list(two.shape)} in source {place}"
            raise DataError(f"sources: field {name!r} is {found}")
    one, two = (tuple(spec.meta.get("classes") or ()) for spec in (first, other))
    if one != two:
        raise DataError(
            f"sources: source 0 has the classes {one} and source {place} {two}; give all the same, in one order"
        )


def _common_meta(sources: Sequence[Source], shares: np.ndarray) -> dict[str, Any]:
    """Return the facts on which all sources agree, with a description and fingerprint of the whole."""
    if "source" in sources[0].spec.example:
        raise DataError(
            "sources: they have a field 'source', which is the mixture's own; a mixture cannot hold mixtures"
        )
    metas = [source.spec.meta for source in sources]
    common = {k: v for k, v in metas[0].items() if all(k in meta and meta[k] == v for meta in metas)}
    described = tuple(
        {"name": str(meta.get("name", place)), "size": len(source), "share": float(share)}
        for place, (meta, source, share) in enumerate(zip(metas, sources, shares, strict=True))
    )
    common |= {"name": "+".join(part["name"] for part in described), "sources": described}
    if all("fingerprint" in meta for meta in metas):
        text = " ".join(meta["fingerprint"] for meta in metas)
        common["fingerprint"] = f"mixture:{hashlib.sha256(text.encode()).hexdigest()}"
    return common
