"""Windows over a time series: what came before, what is known of what comes, and what to predict.

The series is the source as it stands: take a split by time first and window each part, and no window sees another.
Usage: ``spec("jaxlab.data.windows:make", source=spec("…"), length=168, horizon=24, targets=("demand",))``.
Shape letters: N windows, L rows of past, H rows of horizon, F input, K known and T target columns.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import DataSpec, Source
from jaxlab.data.arrays import in_memory
from jaxlab.data.subset import Origin, Subset, fingerprint

_SCAN_ROWS = 2**14  # rows that are read together to find groups and check times


def make(
    source: Source,
    length: int,
    horizon: int,
    stride: int = 1,
    inputs: tuple[str, ...] = (),
    targets: tuple[str, ...] = ("target",),
    known_future: tuple[str, ...] = (),
    group: str | None = None,
) -> Windows:
    """Return the windows of `source`: ``past`` [L, F], ``future`` [H, K], ``target`` [H, T] float32, ``start`` int32.

    ``past`` are the inputs of L rows, ``target`` the targets of the H rows after them and ``future`` what is known of
    those H beforehand; ``start`` is the first row's number in `source`. A field of shape [a, b] counts as a·b columns.

    Args:
      source: rows in the order of time; with `group`, group after group.
      length: rows of past, L.
      horizon: rows to predict, H.
      stride: rows from one window's start to the next one's.
      inputs: fields of the past; empty is all that are numbers, but ``time``, ``group`` and ``label``.
      targets: fields to predict.
      known_future: fields whose values are known in advance, such as the hour or the day; none leaves ``future`` out.
      group: the field whose rows of one value are a series of their own; no window crosses from one to the next.

    Raises:
      ConfigError: a number below 1, a field that is not there or holds no numbers, or a target as known future.
      DataError: a ``time`` that goes back, a group in several places, or no series with enough rows.
    """
    for name, value in (("length", length), ("horizon", horizon), ("stride", stride)):
        if value < 1:
            raise ConfigError(f"windows: {name}={value!r}: expected a whole number of at least 1")
    example = source.spec.example
    numbers = [name for name, field in example.items() if np.dtype(field.dtype).kind in "biuf"]
    inputs = tuple(inputs) or tuple(name for name in numbers if name not in ("time", "group", "label", group))
    chosen = {"inputs": inputs, "targets": tuple(targets), "known_future": tuple(known_future)}
    for parameter, names in chosen.items():
        for name in names:
            if name not in example:
                raise ConfigError(f"windows: {parameter}: no field {name!r}{did_you_mean(name, example)}")
            if name not in numbers:
                raise ConfigError(f"windows: {parameter}: field {name!r} holds no numbers; encode it or leave it out")
    if not inputs or not targets:
        raise ConfigError(f"windows: inputs={inputs!r}, targets={targets!r}: expected at least one field each")
    leaks = sorted({*targets} & {*known_future})
    if leaks:
        raise ConfigError(f"windows: known_future: {leaks[0]!r} is a target, whose future is what is to be predicted")
    if group is not None and group not in example:
        raise ConfigError(f"windows: group: no field {group!r}{did_you_mean(group, example)}")
    split = source.spec.meta.get("split")
    if isinstance(split, Mapping) and split.get("by") in ("random", "stratified"):
        raise ConfigError(
            f"windows: source is split by={split['by']!r}, which tears series; split by='time' or 'grouped'"
        )
    starts, series, short = _starts(source, length + horizon, stride, group)
    counts = {"length": length, "horizon": horizon, "stride": stride, "series": series, "short_series": short}
    return Windows(source, starts, length, horizon, chosen, counts)


class Windows:
    """Serves windows; row i is the one whose first row in the source is ``starts[i]``."""

    def __init__(
        self,
        source: Source,
        starts: np.ndarray,
        length: int,
        horizon: int,
        fields: dict[str, tuple[str, ...]],
        counts: dict[str, int],
    ) -> None:
        """Serve the windows at `starts` [N] int32 of `source`; `fields` and `counts` go into the facts of the data."""
        self._source, self._starts, self._length = source, starts, length
        self._offsets = np.arange(length + horizon)
        self._fields = fields
        known = {name: source.spec.meta[name] for name in ("name", "split") if name in source.spec.meta}
        facts = {**known, **fields, **counts}
        digest = hashlib.sha256(repr([fingerprint(source), fields, counts]).encode()).hexdigest()
        self._spec = DataSpec({}, len(starts), {**facts, "fingerprint": f"windows:{digest}"})
        row = self.__getitems__(np.zeros(1, np.int64))
        example = {name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in row.items()}
        self._spec = self._spec._replace(example=example)

    @property
    def spec(self) -> DataSpec:
        """The shapes and dtypes of a window, the number of windows, and how they were cut."""
        return self._spec

    @property
    def in_memory(self) -> bool:
        """Whether the rows that windows are cut from are."""
        return in_memory(self._source)

    def origins(self, rows: np.ndarray | None = None) -> list[Origin]:
        """Return the source and which of its rows the windows `rows` [n] (None: all) are made of."""
        starts, size = self._starts if rows is None else self._starts[rows], len(self._source) + 1
        begun = np.bincount(starts, minlength=size) - np.bincount(starts + len(self._offsets), minlength=size)
        return [(self._source, np.flatnonzero(np.cumsum(begun)))]

    def __len__(self) -> int:
        """Return the number of windows."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the windows at `indices` [n], all of whose rows are gathered together."""
        start_N = self._starts[indices]
        row_NS = start_N[:, None].astype(np.int64) + self._offsets
        values = self._source.__getitems__(row_NS.reshape(-1))
        windows = {"past": _joined(values, self._fields["inputs"], row_NS.shape)[:, : self._length]}
        if self._fields["known_future"]:
            windows["future"] = _joined(values, self._fields["known_future"], row_NS.shape)[:, self._length :]
        windows["target"] = _joined(values, self._fields["targets"], row_NS.shape)[:, self._length :]
        return {**windows, "start": start_N}


def _joined(values: Any, names: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Return the fields side by side, [N, S, columns] float32."""
    wide = [values[name].reshape(*shape, math.prod(values[name].shape[1:])).astype(np.float32) for name in names]
    return wide[0] if len(wide) == 1 else np.concatenate(wide, axis=-1)


def _starts(source: Source, needed: int, stride: int, group: str | None) -> tuple[np.ndarray, int, int]:
    """Return each window's first row [N] int32, the number of series, and of those that are too short."""
    wanted = tuple(name for name in ("time", group) if name in source.spec.example)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    for first in range(0, len(source) if wanted else 0, _SCAN_ROWS):
        rows = source.__getitems__(np.arange(first, min(first + _SCAN_ROWS, len(source))))
        for name, parts in columns.items():
            parts.append(rows[name])
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    edges = _edges(whole[group], len(source), str(group)) if group is not None else np.array([0, len(source)])
    if isinstance(source, Subset):  # no window goes over rows that were left out
        edges = np.union1d(edges, np.flatnonzero(np.diff(source.indices) != 1) + 1)
    if "time" in whole:
        back = np.diff(whole["time"]) < 0
        back[edges[1:-1] - 1] = False  # a new series begins
        if back.any():
            row = int(np.argmax(back)) + 1
            now, before = whole["time"][row], whole["time"][row - 1]
            raise DataError(f"windows: time goes back in row {row}, from {before} to {now}; sort the rows by time")
    sizes = np.diff(edges)
    if sizes.max() < needed:
        series = f"the longest of {len(sizes)} series has" if len(sizes) > 1 else "the source has"
        raise DataError(f"windows: length + horizon needs at least {needed} rows, and {series} {sizes.max()}")
    pieces = [np.arange(a, b - needed + 1, stride) for a, b in itertools.pairwise(edges)]
    return np.concatenate(pieces).astype(np.int32), len(sizes), int((sizes < needed).sum())


def _edges(values: np.ndarray, size: int, group: str) -> np.ndarray:
    """Return where each series begins, and the end; a DataError if a value comes back after another."""
    begins = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    seen = set()
    for row in begins:
        if values[row] in seen:
            raise DataError(
                f"windows: {group} {values[row]} begins again in row {row}; sort the rows by {group}, then time"
            )
        seen.add(values[row])
    return np.append(begins, size)
