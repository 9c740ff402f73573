"""From foreign tensors to values of our variables and back, with an account of every leaf on both sides.

Knows no file. Usage: ``values, report = to_ours(tensors, variables, FAMILY)``; back by `to_theirs`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import PyTree
from jaxlab.models.weights.rules import Family, Rule, matches, pattern_of


class Report(NamedTuple):
    """What became of every leaf, and of every foreign tensor."""

    matched: dict[str, list[str]]  # our name -> the foreign ones, as many as a scanned stack has layers
    resized: dict[str, str]  # our name -> from which shape to which
    missing: dict[str, str]  # our name -> what is missing
    wrong_shape: dict[str, str]  # our name -> what it is there and here
    contradicting: dict[str, str]  # foreign name -> the other one, that should be equal
    unexpected: list[str]  # foreign, without a place here
    ignored: dict[str, list[str]]  # expression -> foreign ones that are known to hold nothing to load


class _Place(NamedTuple):
    """A leaf, or one layer of a scanned stack's, which has all layers on its first axis."""

    leaf: str
    shape: tuple[int, ...]


def to_ours(
    tensors: Mapping[str, np.ndarray], variables: PyTree, family: Family, resize: tuple[str, ...] = ()
) -> tuple[dict[str, np.ndarray], Report]:
    """Return values for `variables`, arrays or their shapes, by name, and what became of every leaf.

    Args:
      tensors: by foreign name.
      variables: ``params`` and other collections.
      family: the naming.
      resize: expressions over our names: such leaves are resized where their shape differs.
    """
    leaves = {name: tuple(leaf.shape) for name, leaf in named_leaves(variables).items()}
    places = {place: p for name, shape in leaves.items() for place, p in _places(name, shape).items()}
    table = [(pattern_of(rule.foreign), rule) for rule in family.rules(places)]
    report = Report({}, {}, {}, {}, {}, [], {})
    found: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    for original, tensor in tensors.items():
        name = family.renamed(original)
        unwanted = next((pattern for pattern in family.ignored if re.fullmatch(pattern, name)), None)
        if unwanted is not None:
            report.ignored.setdefault(unwanted, []).append(original)
            continue
        rule, homes = _find(table, name)
        if rule is None or not all(home in places for home in homes):
            report.unexpected.append(original)
            continue
        try:
            parts = rule.form.read(tensor)
        except (ValueError, IndexError):
            report.wrong_shape.update((places[home].leaf, f"{list(tensor.shape)} there") for home in homes)
            continue
        for home, part in zip(homes, parts, strict=True):
            value = _fitted(part, places[home], rule, resize, report)
            if home in found and not np.array_equal(found[home], value):
                report.contradicting[original] = origin[home]
            elif home not in found:
                found[home], origin[home] = value, original
    return _gathered(found, origin, leaves, report), report


def _find(table: list[tuple[re.Pattern[str], Rule]], name: str) -> tuple[Rule | None, list[str]]:
    """Return the first rule whose foreign name matches, and our names by it."""
    for pattern, rule in table:
        if match := pattern.fullmatch(name):
            return rule, [ours.format(**match.groupdict()) for ours in rule.ours]
    return None, []


def _fitted(value: np.ndarray, place: _Place, rule: Rule, resize: tuple[str, ...], report: Report) -> np.ndarray:
    """Return the value, resized where that is asked for; note another shape in the report."""
    before, note = value.shape, ""
    if before != place.shape and matches(place.leaf, resize):
        note = "; it cannot be resized so"
        if rule.resize and value.ndim == len(place.shape):
            value = rule.resize(value, place.shape)
    if value.dtype.kind != "f":
        report.wrong_shape[place.leaf] = f"{value.dtype} there, expected numbers with a fraction"
    elif value.shape != place.shape:
        report.wrong_shape[place.leaf] = f"{list(before)} there, {list(place.shape)} here{note}"
    elif value.shape != before:
        report.resized[place.leaf] = f"{list(before)} to {list(place.shape)}"
    return value


def _gathered(
    found: Mapping[str, np.ndarray],
    origin: Mapping[str, str],
    leaves: Mapping[str, tuple[int, ...]],
    report: Report,
) -> dict[str, np.ndarray]:
    """Return the leaves that are complete, layers stacked; report them as matched, and what is missing."""
    values = {}
    for name, shape in leaves.items():
        places = list(_places(name, shape))
        there = [place for place in places if place in found]
        if name in report.wrong_shape:
            continue
        if len(there) < len(places):
            report.missing[name] = f"{name} ({len(there)} of {len(places)} layers are there)" if there else name
            continue
        report.matched[name] = [origin[place] for place in places]
        values[name] = found[name] if name in places else np.stack([found[place] for place in places])
    return values


def _places(name: str, shape: tuple[int, ...]) -> dict[str, _Place]:
    """Return a leaf's place under its own name; its layers' under the names that they have without a scan."""
    head, scanned, tail = name.partition("/layers/")
    if not scanned:
        return {name: _Place(name, shape)}
    return {f"{head}/layers_{i}/{tail}": _Place(name, shape[1:]) for i in range(shape[0])}


def to_theirs(variables: PyTree, family: Family) -> dict[str, np.ndarray]:
    """Return the tensors of `variables` by foreign name.

    Raises:
      ConfigError: a leaf that no rule of the family writes.
    """
    ours: dict[str, np.ndarray] = {}
    for name, leaf in named_leaves(variables).items():
        value, places = np.asarray(leaf), _places(name, leaf.shape)
        ours |= {name: value} if name in places else dict(zip(places, value, strict=True))
    tensors: dict[str, np.ndarray] = {}
    written: set[str] = set()
    for rule in family.rules(ours):
        pattern = pattern_of(rule.ours[0])
        for numbers in [match.groupdict() for match in map(pattern.fullmatch, ours) if match]:
            names = [template.format(**numbers) for template in rule.ours]
            if written.isdisjoint(names) and all(name in ours for name in names):
                tensors[rule.foreign.format(**numbers)] = rule.form.write([ours[name] for name in names])
                written.update(names)
    lost = sorted(set(ours) - written)
    if lost:
        raise ConfigError(f"{family.name} has no name for {', '.join(lost[:12])}")
    return tensors
