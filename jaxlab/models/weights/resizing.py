"""Tensors at another size: more or fewer positions, tokens or classes.

Usage: ``rows(table_VD, (50304, 768))``. Shape letters: V tokens, N positions, M new positions, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Resize = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
"""Returns the array in the shape, or in another one if it cannot be had."""


def rows(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the first entries of the first axis, and where there are too few, their mean for each new one.

    A new token that is the mean of all is about as likely as any, and changes their softmax little (Hewitt 2021,
    "Initializing new word embeddings for pretrained language models").
    """
    missing = shape[0] - len(value)
    if missing <= 0:
        return value[: shape[0]]
    mean = value.mean(axis=0, keepdims=True, dtype=np.float64).astype(value.dtype)
    return np.concatenate([value, np.repeat(mean, missing, axis=0)])


def columns(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return what `rows` does, of the last axis."""
    return np.moveaxis(rows(np.moveaxis(value, -1, 0), (shape[-1],)), 0, -1)


def positions(value_ND: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the first positions of a row of tokens; a longer row is interpolated linearly between the same ends.

    A shorter row's tokens stand where they stood; interpolation (Chen et al. 2023, arXiv 2306.15595) moves them, so
    that there is something to be trained.
    """
    if shape[0] <= len(value_ND):
        return value_ND[: shape[0]]
    return _mix(len(value_ND), np.linspace(0, len(value_ND) - 1, shape[0]), value_ND)


def grid(value_ND: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the positions of a square of patches for a square of another size, bilinearly; a class token's stay."""
    old, new = (int(count**0.5) for count in (len(value_ND), shape[0]))
    first = int(old**2 != len(value_ND))  # one more than a square: the class token's
    if old**2 + first != len(value_ND) or new**2 + first != shape[0]:
        return value_ND
    place_M = (np.arange(new) + 0.5) * old / new - 0.5  # of pixels' centres
    grid_NND = value_ND[first:].reshape(old, old, -1)
    grid_MND = _mix(old, place_M, grid_NND)
    grid_MMD = _mix(old, place_M, grid_MND.swapaxes(0, 1)).swapaxes(0, 1)
    return np.concatenate([value_ND[:first], grid_MMD.reshape(new * new, -1)])


def _mix(count: int, place_M: np.ndarray, value_N: np.ndarray) -> np.ndarray:
    """Return the values between those of the first axis at 0, 1, …, those beyond the ends as the ends'."""
    share_MN = np.stack([np.interp(place_M, np.arange(count), unit_N) for unit_N in np.eye(count)], axis=1)
    return np.tensordot(share_MN, value_N, axes=1).astype(value_N.dtype)
