"""Batches whose rows are of similar lengths, cut to a few lengths: less padding, and one compilation a bucket.

A bucket is the rows of at most its boundary's length and more than the boundary before. Which rows stand in which
batch is arithmetic on (seed, epoch), the same for any number of hosts. Knows no source and no device.
Shape letters: N examples, K batches of an epoch, B examples of a batch, T tokens of a row.
Usage: ``rows_B, length = Buckets(lengths, (32, 64, 128), batch_size=256, seed=0).batch(step)``.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from jaxlab.core import rng
from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Source

_READ_ROWS = 1024


def bucket_order(
    lengths: np.ndarray, boundaries: Sequence[int], batch_size: int, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices [K, B] of one epoch's batches, and the bucket [K] of each: that of its longest row.

    Every example appears once an epoch, but for N mod B of them, drawn anew each epoch, so that all batches are full.
    Rows left over in a bucket go into a batch with the shortest of the next.

    Args:
      lengths: tokens of each example, [N].
      boundaries: rising lengths, of which the last is at least the longest example's.
      batch_size: B, of all hosts together.
      seed: the run's seed.
      epoch: number of the pass over the data.

    Raises:
      ConfigError: boundaries that do not rise or are too short, or a batch larger than the data.
    """
    _check(lengths, boundaries, batch_size)
    generator = rng.host(seed, "buckets", epoch)
    drawn = generator.permutation(len(lengths))[: len(lengths) // batch_size * batch_size]
    bucket = bucket_of(lengths, boundaries)[drawn]
    by_bucket = np.argsort(bucket, kind="stable").reshape(-1, batch_size)  # within a bucket as drawn
    batches = generator.permutation(len(by_bucket))
    return drawn[by_bucket][batches].astype(np.int32), bucket[by_bucket].max(1)[batches]


def bucket_of(lengths: np.ndarray, boundaries: Sequence[int]) -> np.ndarray:
    """Return the number of the bucket of each length."""
    return np.searchsorted(np.asarray(boundaries), lengths, side="left")


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
    """The training batches by step: epoch after epoch of `bucket_order`, of which the last few are kept."""

    lengths: np.ndarray
    boundaries: tuple[int, ...]
    batch_size: int
    seed: int
    names: tuple[str, ...] = ("tokens", "token_mask")
    mask: str = "token_mask"

    def __post_init__(self) -> None:
        """Raise ConfigError where `bucket_order` would."""
        _check(self.lengths, self.boundaries, self.batch_size)

    def batch(self, step: int) -> tuple[np.ndarray, int]:
        """Return the global example indices [B] of a step's batch and the length to cut its rows to."""
        epoch, number = divmod(step, len(self.lengths) // self.batch_size)
        indices_KB, bucket_K = _epoch(self, epoch)
        return indices_KB[number], int(self.boundaries[bucket_K[number]])

    def trim(self, fields: Mapping[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
        """Return a step's rows with the fields of `names` cut to its length."""
        return trim(fields, self.batch(step)[1], self.names, self.mask)

    def cut(self, indices: np.ndarray) -> int:
        """Return the length to cut the examples at `indices` to: for evaluation, which keeps the source's order."""
        return int(self.boundaries[bucket_of(self.lengths[indices].max(), self.boundaries)])


@functools.lru_cache(maxsize=4)
def _epoch(buckets: Buckets, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    return bucket_order(buckets.lengths, buckets.boundaries, buckets.batch_size, buckets.seed, epoch)


def trim(
    fields: Mapping[str, np.ndarray],
    length: int,
    names: Sequence[str] = ("tokens", "token_mask"),
    mask: str = "token_mask",
) -> dict[str, np.ndarray]:
    """Return `fields` with those of `names`, [B, T, ...], cut to `length` tokens; the others as they are.

    Raises:
      ConfigError: no such field.
      DataError: the field `mask` says that what is cut off is not padding.
    """
    missing = next((name for name in (*names, mask) if name not in fields), None)
    if missing is not None:
        raise ConfigError(f"bucketing: the data has no field {missing!r}{did_you_mean(missing, fields)}")
    lost = int(np.count_nonzero(fields[mask][:, length:]))
    if lost:
        raise DataError(f"bucketing: cutting to {length} would lose {lost} tokens; are the lengths of other data?")
    return {name: value[:, :length] if name in names else value for name, value in fields.items()}


def token_lengths(source: Source, mask: str = "token_mask") -> np.ndarray:
    """Return the number of tokens [N] of each example of a tokenised source: up to its last one by `mask`."""
    lengths = []
    for start in range(0, len(source), _READ_ROWS):
        rows = source.__getitems__(np.arange(start, min(start + _READ_ROWS, len(source))))
        if mask not in rows:
            raise ConfigError(f"bucketing: the data has no field {mask!r}{did_you_mean(mask, rows)}")
        real_BT = rows[mask] > 0
        last_B = real_BT.shape[1] - np.argmax(real_BT[:, ::-1], axis=1)
        lengths.append(np.where(real_BT.any(1), last_B, 0))
    return np.concatenate(lengths).astype(np.int32)


def _check(lengths: np.ndarray, boundaries: Sequence[int], batch_size: int) -> None:
    edges = list(boundaries)
    if not edges or edges[0] < 1 or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ConfigError(f"bucketing: boundaries={tuple(edges)}; expected rising lengths from 1 on")
    if not 1 <= batch_size <= len(lengths):
        raise ConfigError(f"bucketing: batch_size={batch_size} for {len(lengths)} examples; expected 1 to that many")
    longest = int(np.argmax(lengths))
    if lengths[longest] > edges[-1]:
        raise ConfigError(
            f"bucketing: example {longest} has {lengths[longest]} tokens, over the last of boundaries={tuple(edges)}"
        )
