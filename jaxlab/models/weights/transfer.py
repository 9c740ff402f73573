"""Weights from a local folder as an initialiser, and variables into a folder. Nothing is silent.

What is missing, unexpected or of another shape is an error that lists it, unless an expression of the caller names it.
Usage: ``initialiser = Transfer(FAMILY).load("folder")``; ``Transfer(FAMILY).save("folder", variables)``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import Initialiser, PyTree
from jaxlab.models.weights import files
from jaxlab.models.weights.convert import Report, to_ours, to_theirs
from jaxlab.models.weights.rules import Family, matches

_SHOWN = 12  # names that a line lists

_log = logging.getLogger("jaxlab")


class Transfer(NamedTuple):
    """Reads and writes files in a naming."""

    family: Family

    def load(
        self, path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
    ) -> Initialiser:
        """Return the initialiser that gives the weights in `path`, which are read now.

        Args:
          path: a ``.safetensors`` file, or a folder with ``model.safetensors`` or its index.
          keep: expressions over our names, such as ``params/head/.*``: these leaves keep their random beginning,
            whatever is there.
          drop: expressions over the names there: these tensors are left out.
          resize: expressions over our names: these leaves are resized where their shape differs. Positions of a longer
            row or of another grid are interpolated; tokens and classes are cut, or new ones begin as the mean.

        Raises:
          ConfigError: no weights there, an expression that is none or matches nothing; when called: leaves or tensors
            that no expression excuses.
          DataError: a damaged file.
        """
        for option, patterns in (("keep", keep), ("drop", drop), ("resize", resize)):
            _check_expressions(option, patterns)
        tensors = files.read(path)
        _check_used("drop", drop, tensors)

        def initialise(variables: PyTree) -> Mapping[str, np.ndarray]:
            ours = named_leaves(variables)
            _check_used("keep", keep, ours)
            _check_used("resize", resize, ours)
            kept = {name for name in ours if matches(name, keep)}
            dropped = [name for name in tensors if matches(name, drop)]
            wanted = {name: value for name, value in tensors.items() if name not in dropped}
            values, report = to_ours(wanted, variables, self.family, resize)
            _refuse(report, f"path={path!r}, {self.family.name}", kept)
            _tell(report, f"{self.family.name} in {path}", sorted(kept), dropped)
            return {name: value for name, value in values.items() if name not in kept}

        return initialise

    def save(self, path: str, variables: PyTree) -> None:
        """Write `variables`, ``params`` and other collections, into the folder `path` under the family's names.

        Raises:
          ConfigError: a leaf that no rule of the family writes.
        """
        files.write(path, to_theirs(variables, self.family))


def _check_expressions(option: str, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"{option}: {pattern!r} is no regular expression: {error}") from error


def _check_used(option: str, patterns: tuple[str, ...], names: Iterable[str]) -> None:
    known = sorted(names)
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in known):
            raise ConfigError(f"{option}: {pattern!r} matches none of the {len(known)} names: {_some(known)}")


def _tell(report: Report, where: str, kept: Sequence[str], dropped: Sequence[str]) -> None:
    """Log the account: counts, what is not simply matched by name, and at the level of debugging every pair."""
    loaded = {name: foreign for name, foreign in report.matched.items() if name not in kept}
    _log.info("%s: %d leaves are loaded", where, len(loaded))
    for kind, names in (
        ("resized", [f"{name} ({change})" for name, change in report.resized.items() if name not in kept]),
        ("kept at random", kept),
        ("dropped", dropped),
    ):
        if names:
            _log.info("%d %s: %s", len(names), kind, _some(names))
    for pattern, ignored in report.ignored.items():
        _log.info("%d named %s, which hold nothing to load", len(ignored), pattern)
    for name, foreign in loaded.items():
        _log.debug("%s is %s", name, ", ".join(foreign))


def _refuse(report: Report, where: str, kept: set[str]) -> None:
    """Raise ConfigError for leaves and tensors that nothing excuses."""
    shapes = [f"{name} ({what})" for name, what in report.wrong_shape.items() if name not in kept]
    twins = [f"{name} is not {other}" for name, other in report.contradicting.items()]
    faults = {
        "missing there (to keep them at random: keep)": [x for n, x in report.missing.items() if n not in kept],
        "of another shape (resize, or keep)": shapes,
        "unexpected (to leave them out: drop)": report.unexpected,
        "that should be equal (drop one)": twins,
    }
    told = [f"{len(names)} {kind}: {_some(names)}" for kind, names in faults.items() if names]
    if told:
        raise ConfigError(f"{where}: {len(report.matched)} leaves match; {'; '.join(told)}")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
