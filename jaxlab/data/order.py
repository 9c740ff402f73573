"""Which examples stand in the batch of a step: arithmetic on (seed, step), the same for any number of hosts.

Training walks through one permutation an epoch, end to end, so that batches may cross epochs and every example is
seen once an epoch. With row weights an epoch has as many draws as rows, each row drawn in proportion to its weight.
Evaluation walks through the source in its own order and pads the last batch.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from jaxlab.core import rng
from jaxlab.data.sampling import weighted_order


@functools.lru_cache(maxsize=4)
def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order [size] of one epoch; the last few are kept, since consecutive batches share them."""
    order = rng.host(seed, "order", epoch).permutation(size).astype(np.int32)
    order.setflags(write=False)
    return order


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """How often rows are drawn: a weight [N] a row, at least 0, relative to their mean."""

    rows: np.ndarray


@functools.lru_cache(maxsize=4)
def weighted_draws(weights: Weights, seed: int, epoch: int) -> np.ndarray:
    """Return the draws [N] of one epoch; the last few are kept."""
    return weighted_order(weights.rows, seed, epoch)


def train_indices(
    size: int, batch_size: int, seed: int, step: int, steps: int = 1, weights: Weights | None = None
) -> np.ndarray:
    """Return the global example indices [steps * batch_size] of `steps` consecutive batches from `step` on."""
    first, last = step * batch_size, (step + steps) * batch_size
    pieces = []
    while first < last:
        epoch, start = divmod(first, size)
        stop = min(size, start + last - first)
        whole = permutation(size, seed, epoch) if weights is None else weighted_draws(weights, seed, epoch)
        pieces.append(whole[start:stop])
        first += stop - start
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def eval_indices(size: int, batch_size: int, batch: int, batches: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices [batches * batch_size] of the evaluation batches from `batch` on, and the mask (0: padded)."""
    positions = np.arange(batch * batch_size, (batch + batches) * batch_size)
    mask = (positions < size).astype(np.float32)
    return np.where(positions < size, positions, 0).astype(np.int32), mask


def eval_batch_count(size: int, batch_size: int) -> int:
    """Return how many batches cover `size` examples."""
    return -(-size // batch_size)
