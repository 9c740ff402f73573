"""Conditions and orders over named facts: ``valid/accuracy >= 0.9 and config.seed in (1, 2)``.

A condition is read by Python's own grammar and never executed. What a row lacks makes a comparison false.
Usage: ``condition("status == 'finished'", names)(facts)``.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jaxlab.core.errors import UsageError, did_you_mean

Facts = Mapping[str, Any]
_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_ABSENT = object()


def condition(text: str, names: Collection[str]) -> Callable[[Facts], bool]:
    """Return whether facts fulfil a condition; an empty one is always fulfilled.

    Args:
      text: comparisons of names, numbers, texts and tuples of them, with and, or, not and brackets.
      names: that any row has.

    Raises:
      UsageError: it cannot be read, or has a name that no row has.
    """
    if not text.strip():
        return lambda facts: True
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise UsageError(f"--where={text!r}: cannot be read at character {error.offset}: {error.msg}") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise UsageError(f"--where: cannot be read: {error}") from error
    test = _test(tree, text, names)
    return lambda facts: bool(test(facts))


def order(text: str, names: Collection[str]) -> Callable[[Sequence[Facts]], list[Facts]]:
    """Return what sorts rows by names with commas between, a dash before one for descending; absent values come last.

    Raises:
      UsageError: a name that no row has.
    """
    keys = [
        (part.strip().removeprefix("-").removeprefix("config."), part.strip().startswith("-"))
        for part in text.split(",")
        if part.strip()
    ]
    for name, _ in keys:
        if name not in names:
            raise UsageError(f"--sort={text}: no run has {name!r}{did_you_mean(name, names)}")

    def ordered(rows: Sequence[Facts]) -> list[Facts]:
        found = list(rows)
        for name, down in reversed(keys):  # each sort keeps the order of the one before among equals
            there = [row for row in found if _value(row, name) is not _ABSENT]
            there.sort(key=lambda row, name=name: _sortable(row[name]), reverse=down)
            found = there + [row for row in found if _value(row, name) is _ABSENT]
        return found

    return ordered


def _test(node: ast.expr, text: str, names: Collection[str]) -> Callable[[Facts], Any]:
    match node:
        case ast.BoolOp(op, values):
            tests = [_test(value, text, names) for value in values]
            every = isinstance(op, ast.And)
            return lambda facts: all(t(facts) for t in tests) if every else any(t(facts) for t in tests)
        case ast.UnaryOp(ast.Not(), inner):
            test = _test(inner, text, names)
            return lambda facts: not test(facts)
        case ast.Compare(left, operators, rights):
            sides = [_side(side, text, names) for side in (left, *rights)]
            compare = [_COMPARE[type(each)] for each in operators if type(each) in _COMPARE]
            if len(compare) == len(operators):
                return lambda facts: _compared(sides, compare, facts, text)
    raise UsageError(
        f"--where={text!r}: {ast.unparse(node)!r} is no comparison; expected such as valid/accuracy > 0.9, "
        "combined by and, or, not"
    )


def _side(node: ast.expr, text: str, names: Collection[str]) -> Callable[[Facts], Any]:
    try:
        constant = ast.literal_eval(node)
        return lambda facts: constant
    except (ValueError, TypeError, SyntaxError):
        name = _name(node).removeprefix("config.")
    if name not in names:
        raise UsageError(f"--where={text!r}: no run has {name!r}{did_you_mean(name, names)}")
    return lambda facts: _value(facts, name)


def _name(node: ast.expr) -> str:
    """Return a name whose dots, slashes and places Python would take for operators."""
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(inner, name):
            return f"{_name(inner)}.{name}"
        case ast.BinOp(left, ast.Div(), right):
            return f"{_name(left)}/{_name(right)}"
        case ast.Subscript(inner, ast.Constant(int(place))):
            return f"{_name(inner)}[{place}]"
    return ast.unparse(node)


def _compared(
    sides: Sequence[Callable[[Facts], Any]], compare: Sequence[Callable[[Any, Any], bool]], facts: Facts, text: str
) -> bool:
    values = [side(facts) for side in sides]
    if any(value is _ABSENT for value in values):
        return False
    try:
        return all(each(a, b) for each, a, b in zip(compare, values, values[1:], strict=False))
    except TypeError as error:
        raise UsageError(f"--where={text!r}: {values[0]!r} and {values[1]!r} cannot be compared: {error}") from error


def _value(facts: Facts, name: str) -> Any:
    value = facts.get(name, _ABSENT)
    return _ABSENT if value is None else tuple(value) if isinstance(value, list) else value


def _sortable(value: Any) -> tuple[bool, Any]:
    """Return what orders numbers by size, and all else after them by how it is written."""
    number = isinstance(value, int | float) and not math.isnan(value)
    return (False, value) if number else (True, str(value))
