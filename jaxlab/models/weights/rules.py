"""One rule says what a foreign tensor is called here and how its axes lie: the same table reads and writes.

Names are templates in which ``{i}`` stands for a layer's number. Knows no family and no file.
Usage: ``Rule("h.{i}.ln_1.weight", ("params/stack/layers_{i}/attention_norm/scale",))``.
Shape letters: O outputs, I inputs, H height, W width, N positions, D features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Arrays = Sequence[np.ndarray]


class Form(NamedTuple):
    """How a foreign tensor becomes ours, one or several, and back."""

    read: Callable[[np.ndarray], Arrays]
    write: Callable[[Arrays], np.ndarray]


SAME = Form(lambda x: [x], lambda xs: xs[0])
TRANSPOSED = Form(lambda x_OI: [x_OI.T], lambda xs: xs[0].T)
CONVOLUTION = Form(lambda x_OIHW: [x_OIHW.transpose(2, 3, 1, 0)], lambda xs: xs[0].transpose(3, 2, 0, 1))
UNBATCHED = Form(lambda x_1: [x_1[0]], lambda xs: xs[0][None])
CLASS_TOKEN = Form(lambda x_11D: [x_11D[0, 0]], lambda xs: xs[0][None, None])
THIRDS = Form(lambda x: np.split(x, 3, axis=-1), lambda xs: np.concatenate(xs, axis=-1))
THIRDS_TRANSPOSED = Form(
    lambda x_OI: [part.T for part in np.split(x_OI, 3)], lambda xs: np.concatenate([x.T for x in xs])
)

Resize = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


class Rule(NamedTuple):
    """A foreign name, our names for what is in it (none: it is known, and not wanted), and how to change its size."""

    foreign: str
    ours: tuple[str, ...]
    form: Form = SAME
    resize: Resize | None = None


def extended(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return `value` cut to `shape`, or with entries added that are the mean of those there are.

    The mean of all tokens' vectors keeps the softmax as it was (Hewitt 2021, "Initializing new word embeddings").
    """
    for axis, size in enumerate(shape):
        value = np.take(value, range(min(size, value.shape[axis])), axis)
        missing = size - value.shape[axis]
        if missing > 0:
            mean = value.mean(axis, keepdims=True, dtype=np.float64).astype(value.dtype)
            value = np.concatenate([value, np.repeat(mean, missing, axis)], axis)
    return value


def interpolated(value_ND: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return embeddings of positions on a line at another number of points, its ends kept."""
    old, new = np.linspace(0, 1, len(value_ND)), np.linspace(0, 1, shape[0])
    return np.stack([np.interp(new, old, column) for column in value_ND.T], axis=1).astype(value_ND.dtype)


def interpolated_grid(value_ND: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return embeddings of a square of patches for a square of another size, bilinearly; a class token's is kept."""
    first = int(round(len(value_ND) ** 0.5) ** 2 != len(value_ND))
    old, new = (round((count - first) ** 0.5) for count in (len(value_ND), shape[0]))
    if old**2 + first != len(value_ND) or new**2 + first != shape[0]:
        return value_ND  # no square: the caller reports the shapes
    grid_HWD = value_ND[first:].reshape(old, old, -1)
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.minimum(place.astype(int), max(old - 2, 0))
    share_H = (place - low)[:, None, None]
    high = np.minimum(low + 1, old - 1)
    rows_HWD = grid_HWD[low] * (1 - share_H) + grid_HWD[high] * share_H
    share_W = (place - low)[None, :, None]
    both_HWD = rows_HWD[:, low] * (1 - share_W) + rows_HWD[:, high] * share_W
    return np.concatenate([value_ND[:first], both_HWD.reshape(new * new, -1)]).astype(value_ND.dtype)


def pattern_of(template: str) -> re.Pattern[str]:
    """Return the expression that a template stands for; its numbers are groups."""
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(template)))


class Found(NamedTuple):
    """A foreign name's rule, and the numbers in it."""

    rule: Rule
    numbers: Mapping[str, str]


def find(rules: Sequence[Rule], name: str) -> Found | None:
    """Return the first rule whose foreign name matches."""
    for rule in rules:
        match = pattern_of(rule.foreign).fullmatch(name)
        if match:
            return Found(rule, match.groupdict())
    return None
