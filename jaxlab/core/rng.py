"""Randomness as a pure function of (seed, stream, counters): no key is stored, so resuming needs none.

Usage: ``rng.key(seed, "dropout", step)`` on devices, ``rng.host(seed, "order", epoch)`` on the host.
"""

from __future__ import annotations

import zlib

import jax
import numpy as np


def stream_id(stream: str) -> int:
    """Return a number for a stream's name that is the same in every process (``hash`` is not)."""
    return zlib.crc32(stream.encode())


def key(seed: int | jax.Array, stream: str, step: int | jax.Array) -> jax.Array:
    """Return the JAX key of `stream` at `step`; both may be traced."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream_id(stream)), step)


def host(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """Return a NumPy generator for `stream` at `counters` (an epoch, or a step and a transform's place)."""
    entropy = (seed, stream_id(stream), len(counters), *counters)  # the length, as trailing zeros count for nothing
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
