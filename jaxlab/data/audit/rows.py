"""Hashes of rows, and the pairs of rows whose hashes are equal: what the audits of texts, images and tables share.

Knows no source and no field. Usage: ``repeated(hash_rows(image_BHWC))``.

Shape letters: N rows, M rows of another split, P pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_MISSING = 0x5DEECE66D  # what stands for a missing text or object
_CHUNK = 2**21  # pairs that exist at once

Positions = tuple[np.ndarray, np.ndarray]


def mix(words: np.ndarray) -> np.ndarray:
    """Return 64-bit words of the same shape, each bit of which depends on all bits of its word (SplitMix64)."""
    mixed = words.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hash_rows(values: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash [N] of each row of numbers [N, ...]; all NaNs are equal, and so are 0 and -0."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values) + np.zeros((), values.dtype)
    flat = np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)
    padded = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 8)))
    words = padded.view(np.uint64)
    places = np.arange(words.shape[1], dtype=np.uint64) * np.uint64(_GOLDEN)
    return mix(mix(words + mix(places + np.uint64(1))).sum(axis=1, dtype=np.uint64))


def hash_objects(values: Sequence[Any]) -> np.ndarray:
    """Return a 64-bit hash [N] of each text, array or other object; all missing ones are equal."""
    return np.fromiter((_hash_object(value) for value in values), np.uint64, len(values))


def _hash_object(value: Any) -> int:
    if value is None:
        return _MISSING
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        content = f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    else:
        content = (value if isinstance(value, str) else repr(value)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def combine(hashes: Sequence[np.ndarray]) -> np.ndarray:
    """Return one hash [N] of several [N], in whose order they matter."""
    total = np.zeros(len(hashes[0]), np.uint64)
    for value in hashes:
        total = mix(total * np.uint64(_GOLDEN) + value)
    return total


def repeated(keys: np.ndarray) -> np.ndarray:
    """Return the positions [R] of keys [N] that stand at an earlier position too."""
    _, first = np.unique(keys, return_index=True)
    later = np.ones(len(keys), bool)
    later[first] = False
    return np.flatnonzero(later)


def equal_pairs(left: np.ndarray, right: np.ndarray, most: int | None = None) -> Iterator[Positions]:
    """Yield the positions ``(i, j)``, each [P], of all pairs with ``left[i] == right[j]``, some millions at a time.

    Args:
      left: keys [N].
      right: keys [M].
      most: partners that one left key is paired with at most; None is all of them.
    """
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    start = np.searchsorted(ordered, left, "left")
    count = np.searchsorted(ordered, left, "right") - start
    if most is not None:
        count = np.minimum(count, most)
    at = np.flatnonzero(count)
    while len(at):
        taken = max(1, int(np.searchsorted(np.cumsum(count[at]), _CHUNK)))
        now, at = at[:taken], at[taken:]
        i = np.repeat(now, count[now])
        within = np.arange(len(i)) - np.repeat(np.cumsum(count[now]) - count[now], count[now])
        yield i, order[start[i] + within]


def unique_pairs(pieces: Sequence[Positions]) -> np.ndarray:
    """Return the different pairs [P, 2] of several ``(i, j)``, sorted."""
    if not pieces:
        return np.empty((0, 2), np.int64)
    i, j = (np.concatenate([piece[side] for piece in pieces]).astype(np.int64) for side in (0, 1))
    width = int(j.max(initial=0)) + 1
    return np.stack(np.divmod(np.unique(i * width + j), width), axis=1)
