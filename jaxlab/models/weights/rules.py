"""One rule says what a foreign tensor is called here and how its axes lie: the same table reads and writes.

Names are templates in which ``{i}`` stands for a layer's number. Knows no family and no file.
Usage: ``Rule("h.{i}.ln_1.weight", ("params/stack/layers_{i}/attention_norm/scale",))``.
Shape letters: O outputs, I inputs, H height, W width, N positions, D features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.models.weights.resizing import Resize

Arrays = Sequence[np.ndarray]


class Form(NamedTuple):
    """How a foreign tensor becomes ours, one or several, and back; `read` raises ValueError where its axes are not."""

    read: Callable[[np.ndarray], Arrays]
    write: Callable[[Arrays], np.ndarray]


SAME = Form(lambda x: [x], lambda xs: xs[0])
TRANSPOSED = Form(lambda x_OI: [x_OI.T], lambda xs: xs[0].T)
CONVOLUTION = Form(lambda x_OIHW: [x_OIHW.transpose(2, 3, 1, 0)], lambda xs: xs[0].transpose(3, 2, 0, 1))
UNBATCHED = Form(lambda x_1ND: [x_1ND.squeeze(0)], lambda xs: xs[0][None])
CLASS_TOKEN = Form(lambda x_11D: [x_11D.squeeze((0, 1))], lambda xs: xs[0][None, None])
THIRDS = Form(lambda x: np.split(x, 3, axis=-1), lambda xs: np.concatenate(xs, axis=-1))
THIRDS_TRANSPOSED = Form(
    lambda x_OI: [part.T for part in np.split(x_OI, 3)], lambda xs: np.concatenate([x.T for x in xs])
)


class Rule(NamedTuple):
    """A foreign name, our names for what is in it, and how to change its size, if that makes sense.

    Several rules may lead to one of ours, as tied tensors have several names: they have to agree; the first is written.
    """

    foreign: str
    ours: tuple[str, ...]
    form: Form = SAME
    resize: Resize | None = None


class Family(NamedTuple):
    """A library's naming of a kind of model.

    Attributes:
      name: for messages.
      renames: substitutions that turn its variants into the names of `rules`.
      ignored: expressions over the names of tensors that hold nothing to load, as they are known beforehand.
      rules: the table, of the model whose names it is told.
    """

    name: str
    renames: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    rules: Callable[[Collection[str]], Sequence[Rule]]

    def renamed(self, name: str) -> str:
        """Return a foreign name as the rules have it."""
        for pattern, substitute in self.renames:
            name = re.sub(pattern, substitute, name)
        return name


def pattern_of(template: str) -> re.Pattern[str]:
    """Return the expression that a template stands for; its numbers are groups."""
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(template)))


def matches(name: str, patterns: Collection[str]) -> bool:
    """Return whether one of the expressions matches the whole name."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)
