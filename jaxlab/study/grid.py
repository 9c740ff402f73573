"""The algebra of arms: an arm is a flat dict of config paths and values, a sweep a list of them, and sweeps compose.

Knows no config and no run.
Usage: ``product(sweep("optimizer.learning_rate", 1e-3, 1e-2), [{}, {"data.augment": ()}])``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxlab.core.errors import UsageError

Arm = Mapping[str, Any]
"""What an arm changes in the base config: values, texts as on the command line, or specs, by config path."""

Sweep = list[dict[str, Any]]


def sweep(path: str, *values: Any) -> Sweep:
    """Return one arm for each value of a path."""
    return [{path: value} for value in values]


def chain(*sweeps: Sequence[Arm]) -> Sweep:
    """Return the arms of all sweeps one after another; one that is there already is left out."""
    arms: Sweep = []
    for arm in itertools.chain(*sweeps):
        if arm not in arms:
            arms.append(dict(arm))
    return arms


def product(*sweeps: Sequence[Arm]) -> Sweep:
    """Return every combination of one arm from each sweep; UsageError where two of them set the same path."""
    return [_together(arms) for arms in itertools.product(*sweeps)]


def zipped(*sweeps: Sequence[Arm]) -> Sweep:
    """Return the first arms together, the second ones together, and so on; UsageError for unequal lengths."""
    lengths = [len(each) for each in sweeps]
    if len(set(lengths)) > 1:
        raise UsageError(f"zipped: sweeps of {', '.join(map(str, lengths))} arms; expected equal lengths")
    return [_together(arms) for arms in zip(*sweeps, strict=True)]


def leave_one_out(*without: Arm) -> Sweep:
    """Return the base, which has every component, and it without each; `without` says how one is left out."""
    return chain([{}], without)


def add_one_in(*without: Arm) -> Sweep:
    """Return the base without any of its components, and with one of them alone each time."""
    others = [without[:i] + without[i + 1 :] for i in range(len(without))]
    return [_together(without), *map(_together, others)]


def two_way(first: Arm, second: Arm) -> Sweep:
    """Return the base, each change alone, and both: the four arms that show whether they interact."""
    return product([{}, first], [{}, second])


class Distribution(Protocol):
    """From where a hyperparameter is drawn: `at` gives the value that a share in [0, 1) of the others lie below."""

    def at(self, share: float) -> Any: ...


class Uniform(NamedTuple):
    """Numbers between two bounds."""

    low: float
    high: float

    def at(self, share: float) -> float:
        """Return the quantile."""
        return self.low + share * (self.high - self.low)


class LogUniform(NamedTuple):
    """Positive numbers whose logarithms are uniform."""

    low: float
    high: float

    def at(self, share: float) -> float:
        """Return the quantile."""
        if not 0 < self.low < self.high:
            raise UsageError(f"LogUniform({self.low:g}, {self.high:g}): expected 0 < low < high")
        return math.exp(Uniform(math.log(self.low), math.log(self.high)).at(share))


class Integers(NamedTuple):
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    def at(self, share: float) -> int:
        """Return the quantile."""
        return self.low + int(share * (self.high - self.low + 1))


class Choice(NamedTuple):
    """One of some values, each as likely."""

    values: Sequence[Any]

    def at(self, share: float) -> Any:
        """Return the quantile, in the order given."""
        return self.values[int(share * len(self.values))]


def draw(count: int, space: Mapping[str, Distribution], seed: int = 0) -> Sweep:
    """Return `count` arms drawn at random, each path from its own distribution.

    More of them leave the first ones as they are, so that a search can go on.
    """
    shares = np.random.Generator(np.random.Philox(seed)).random((count, len(space)))
    return [{path: where.at(float(u)) for (path, where), u in zip(space.items(), row, strict=True)} for row in shares]


def _together(arms: Sequence[Arm]) -> dict[str, Any]:
    together: dict[str, Any] = {}
    for arm in arms:
        for path, value in arm.items():
            if path in together and together[path] != value:
                raise UsageError(f"two arms to combine set {path}, to {together[path]!r} and {value!r}; expected one")
            together[path] = value
    return together
