"""From foreign tensors to values of our variables and back, with an account of every leaf on both sides.

Nothing is silent: what is missing, unexpected or of another shape is an error that lists all of it, unless a rule of
the caller names it. Knows no family. Usage: ``load("folder", FAMILY)(variables)``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import Initialiser, PyTree
from jaxlab.models.weights import files
from jaxlab.models.weights.rules import Rule, extended, find, pattern_of

_SHOWN = 12  # names that an error lists of each kind
_LAYER = re.compile(r"(.*/layers)_(\d+)(/.*)")  # one layer of a stack, where a scanned stack has them on its first axis

_log = logging.getLogger("jaxlab")


class Family(NamedTuple):
    """A naming: substitutions that make its variants one, and its rules, which may depend on the names there are."""

    name: str
    renames: tuple[tuple[str, str], ...]
    rules: Callable[[Iterable[str]], Sequence[Rule]]


class Report(NamedTuple):
    """What became of every leaf: ours by name, foreign ones by theirs."""

    matched: dict[str, str]  # our name -> the foreign one
    resized: dict[str, str]  # our name -> from which shape to which
    missing: list[str]  # ours, without a foreign one
    unexpected: list[str]  # foreign, without a place here
    wrong_shape: dict[str, str]  # our name -> both shapes
    not_wanted: list[str]  # foreign, known, and without meaning here


def load(
    path: str, family: Family, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser that reads the weights in `path`.

    Args:
      path: a ``.safetensors`` file, or a folder with one.
      family: its naming.
      keep: expressions over our names (``params/head/.*``): such leaves may be missing or of another shape there, and
        then keep their random beginning.
      drop: expressions over foreign names: such tensors may be without a place here.
      resize: expressions over our names: such leaves are resized where their shape differs; positions are interpolated,
        others cut, or filled with their mean.

    Raises:
      ConfigError: no weights there, an expression that is none, or one that matches no name; as it reads: leaves or
        tensors that no expression excuses.
    """
    for option, patterns in (("keep", keep), ("drop", drop), ("resize", resize)):
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"config.init.{option}: {pattern!r} is no regular expression: {error}") from error
    tensors = files.read(path)

    def initialise(variables: PyTree) -> Mapping[str, np.ndarray]:
        values, report = convert(tensors, variables, family, resize)
        _tell(report, family, path)
        _refuse(report, f"{path} in the naming of {family.name}", keep, drop)
        return {name: value for name, value in values.items() if name in report.matched}

    return initialise


def convert(
    tensors: Mapping[str, np.ndarray], variables: PyTree, family: Family, resize: tuple[str, ...] = ()
) -> tuple[dict[str, np.ndarray], Report]:
    """Return values for `variables`, arrays or their shapes, by name, and what became of every leaf."""
    shapes = {name: tuple(x.shape) for name, x in named_leaves(variables).items()}
    report = Report({}, {}, [], [], {}, [])
    pieces: dict[str, dict[int | None, np.ndarray]] = {}
    originals = {_renamed(name, family): name for name in tensors}
    rules = family.rules(originals)
    for name, original in originals.items():
        found = find(rules, name)
        homes = [_home(ours.format(**found.numbers), shapes) for ours in found.rule.ours] if found else [None]
        if found is None or (homes and not any(homes)):
            report.unexpected.append(original)
            continue
        if not homes:
            report.not_wanted.append(original)
            continue
        for home, value in zip(homes, found.rule.form.read(tensors[original]), strict=True):
            if home is not None:
                shape = shapes[home.name][home.layer is not None :]
                pieces.setdefault(home.name, {})[home.layer] = _fitted(
                    value, home.name, shape, found.rule, resize, report
                )
                report.matched[home.name] = original
    values = {}
    for name, layers in pieces.items():
        whole = None in layers or len(layers) == shapes[name][0]
        if whole and name not in report.wrong_shape:
            values[name] = layers[None] if None in layers else np.stack([layers[i] for i in range(len(layers))])
        else:
            del report.matched[name]
    report.missing.extend(name for name in shapes if name not in values and name not in report.wrong_shape)
    return values, report


class _Home(NamedTuple):
    """One of our leaves, and which layer of it where layers are stacked."""

    name: str
    layer: int | None


def _home(place: str, shapes: Mapping[str, tuple[int, ...]]) -> _Home | None:
    if place in shapes:
        return _Home(place, None)
    match = _LAYER.fullmatch(place)
    if match is None or (stacked := match[1] + match[3]) not in shapes or int(match[2]) >= shapes[stacked][0]:
        return None
    return _Home(stacked, int(match[2]))


def _fitted(
    value: np.ndarray, name: str, shape: tuple[int, ...], rule: Rule, resize: tuple[str, ...], report: Report
) -> np.ndarray:
    """Return the value, resized where that is asked for; note another shape in the report."""
    before = value.shape
    if before != shape and value.ndim == len(shape) and any(re.fullmatch(pattern, name) for pattern in resize):
        value = (rule.resize or extended)(value, shape)
        report.resized[name] = f"{list(before)} to {list(shape)}"
    if value.shape != shape:
        report.wrong_shape[name] = f"{list(before)} there, {list(shape)} here"
    return value


def _renamed(name: str, family: Family) -> str:
    for pattern, substitute in family.renames:
        name = re.sub(pattern, substitute, name)
    return name


def _tell(report: Report, family: Family, path: str) -> None:
    """Log the account: counts, and every leaf that is not simply matched."""
    _log.info("%s: %d leaves from %s", family.name, len(report.matched), path)
    for name, change in report.resized.items():
        _log.info("resized: %s, %s", name, change)
    for kind, names in (
        ("missing there, begins at random", report.missing),
        ("of another shape", [f"{name} ({shapes})" for name, shapes in report.wrong_shape.items()]),
        ("unexpected, left out", report.unexpected),
        ("known and not wanted", report.not_wanted),
    ):
        for name in names:
            _log.info("%s: %s", kind, name)


def _refuse(report: Report, where: str, keep: tuple[str, ...], drop: tuple[str, ...]) -> None:
    """Raise ConfigError for leaves that no expression excuses."""

    def unexcused(names: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
        return [name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns)]

    shapes = report.wrong_shape
    faults = {
        "missing there (keep them at random by config.init.keep)": unexcused(report.missing, keep),
        "of another shape (config.init.resize, or keep)": [
            f"{name} {shapes[name]}" for name in unexcused(shapes, keep)
        ],
        "without a place here (config.init.drop)": unexcused(report.unexpected, drop),
    }
    told = [f"{len(names)} {kind}: {_some(names)}" for kind, names in faults.items() if names]
    if told:
        raise ConfigError(f"{where}: " + "; ".join(told))


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def save(path: str, variables: PyTree, family: Family) -> None:
    """Write `variables` into the folder `path` under the family's names.

    Raises:
      ConfigError: a leaf that no rule of the family writes.
    """
    leaves = {name: np.asarray(x) for name, x in named_leaves(variables).items()}
    unstacked: dict[str, np.ndarray] = {}
    for name, value in leaves.items():
        head, found, tail = name.partition("/layers/")
        layers = {f"{head}/layers_{i}/{tail}": x for i, x in enumerate(value)} if found else {name: value}
        unstacked |= layers
    tensors: dict[str, np.ndarray] = {}
    written: set[str] = set()
    for rule in family.rules(unstacked):
        for numbers in _numbers(rule, unstacked):
            names = [ours.format(**numbers) for ours in rule.ours]
            if all(name in unstacked for name in names) and not written.issuperset(names):
                tensors[rule.foreign.format(**numbers)] = rule.form.write([unstacked[name] for name in names])
                written.update(names)
    lost = sorted(set(unstacked) - written)
    if lost:
        raise ConfigError(f"{family.name} has no name for {', '.join(lost[:_SHOWN])}")
    files.write(path, tensors)


def _numbers(rule: Rule, names: Iterable[str]) -> list[Mapping[str, str]]:
    """Return the numbers for which our leaves of a rule may be there: none at all, or a layer's."""
    if not rule.ours:
        return []
    pattern = pattern_of(rule.ours[0])
    return [match.groupdict() for match in map(pattern.fullmatch, names) if match]
