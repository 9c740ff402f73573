"""Overrides: from a path and a text, as a flag has it, or a value, to a typed value in a locked config.

The type of the value that stands in the config decides how a text is read, and which values may follow it. Knows no
command line.
Usage: ``override(config, {"train.steps": "2**12", "data.transforms[0].scale": 0.5, "data.augment": ()})``.
"""

from __future__ import annotations

import ast
import copy
import operator
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from jaxlab.core import config as configs
from jaxlab.core.config import FACTORY
from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.factory import import_factory, import_own, parameters_of

_OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def override(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Return a locked copy of `config` with the values at the given paths replaced; a spec replaces a whole group.

    A new ``factory`` is applied before all else: its node is written anew, keeping the values that had been
    changed from the old factory's defaults and that the new one takes as well.

    Raises:
      ConfigError: a name that is not there (naming the nearest), or a text or value that is not of the field's type.
    """
    changed = copy.deepcopy(config).unlock()
    factories = [path for path in values if path.split(".")[-1] == FACTORY]
    factories.sort(key=lambda path: path.count("."))  # an outer one first
    for path in [*factories, *(path for path in values if path not in factories)]:
        _set(changed, _parse_path(path), "none" if values[path] is None else values[path], path)
    return changed.lock()


def parse(text: str, current: Any, kind: type, path: str) -> Any:
    """Return `text` as a value of the type of `current` (or of `kind` where it is unset)."""
    if text.strip().lower() == "none" and current is None:
        return None
    try:
        if kind is bool:
            return _BOOLEANS[text.strip().lower()]
        if kind is str:
            return text
        if kind is tuple:
            return _parse_tuple(text, current if isinstance(current, tuple) else ())
        if kind is object:
            return _parse_any(text)
        return _as_number(_evaluate(text), kind)
    except (ValueError, KeyError, SyntaxError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise ConfigError(f"config.{path}={text[:200]!r}: expected {_describe(kind, current)}") from error


def _set(node: Any, keys: list[str | int], text: Any, path: str) -> None:
    """Walk to the holder of the last key and put the value there; tuples are rebuilt on the way back."""
    key, rest = keys[0], keys[1:]
    current = _child(node, key, path)
    if rest and isinstance(current, tuple):
        items = list(current)
        index = rest[0]
        _child(current, index, path)
        holder = ConfigDict({"item": items[int(index)]}, convert_dict=False)
        _set(holder, ["item", *rest[1:]], text, path)
        items[int(index)] = holder.item
        with node.ignore_type():
            node[key] = tuple(items)
    elif rest:
        _set(current, rest, text, path)
    elif not isinstance(text, str):
        kind = tuple if isinstance(current, tuple) else node.get_type(key)
        value = _typed(text, current, kind, path)
        with node.ignore_type():
            node[key] = value
    elif key == FACTORY:
        _swap_factory(node, text, path)
    elif text.strip().lower() == "none" and _is_optional(node, str(key)):
        kind = node.get_type(key)
        del node[key]
        node[key] = placeholder(kind)
    elif isinstance(current, ConfigDict):
        raise ConfigError(f"config.{path}={text!r}: it is a group; set one of its fields: {', '.join(current)}")
    else:
        kind = tuple if isinstance(current, tuple) else node.get_type(key)
        value = parse(text, current, kind, path)
        with node.ignore_type():
            node[key] = value


def _typed(value: Any, current: Any, kind: type, path: str) -> Any:
    """Return a value that is no text, where it may follow the `current` one."""
    found = configs.plain(value, f"config.{path}")
    if kind is float and type(found) is int:
        return float(found)
    if isinstance(current, ConfigDict) != isinstance(found, ConfigDict) or not isinstance(found, kind):
        expected = "a spec" if isinstance(current, ConfigDict) else _describe(kind, current)
        raise ConfigError(f"config.{path}={value!r}: expected {expected}")
    if isinstance(found, bool) and kind is int:
        raise ConfigError(f"config.{path}={value!r}: expected {_describe(kind, current)}")
    return found


def _is_optional(node: ConfigDict, key: str) -> bool:
    if isinstance(dict(node.items(preserve_field_references=True))[key], FieldReference):
        return True
    parameters = parameters_of(import_factory(node[FACTORY])) if FACTORY in node else {}
    return key in parameters and parameters[key].default is None


def _child(node: Any, key: str | int, path: str) -> Any:
    if isinstance(node, tuple):
        if not isinstance(key, int) or not -len(node) <= key < len(node):
            raise ConfigError(f"config.{path}: no element [{key}]; there are {len(node)}, indexed from 0")
        return node[key]
    if not isinstance(node, ConfigDict) or key not in node:
        names = list(node) if isinstance(node, ConfigDict) else []
        raise ConfigError(f"config.{path}: no field {key!r} there{did_you_mean(str(key), names)}")
    return tuple(node[key]) if isinstance(node[key], list) else node[key]


def _swap_factory(node: ConfigDict, new: str, path: str) -> None:
    where = f"config.{path}"
    accepted = set(parameters_of(import_own(new, where)))  # the user's own flag names it
    import_factory(node[FACTORY], where)
    default_old, default_new = configs.spec(node[FACTORY]), configs.spec(new)
    shared = [name for name in node if name != FACTORY and name in accepted]
    kept = {n: node[n] for n in shared if n not in default_old or node[n] != default_old[n]}
    replacement = configs.spec(new, **{**{n: default_new[n] for n in default_new if n != FACTORY}, **kept})
    for name in list(node):
        del node[name]
    node.update(replacement)


def _parse_path(path: str) -> list[str | int]:
    if not re.fullmatch(r"\w+(\[-?\d{1,9}\])*(\.\w+(\[-?\d{1,9}\])*)*", path):
        raise ConfigError(f"config.{path}: not a path such as 'train.steps' or 'data.transforms[0].scale'")
    return [int(index) if index else name for name, index in re.findall(r"(\w+)|\[(-?\d+)\]", path)]


def _parse_tuple(text: str, current: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        value = _evaluate(text) if text.strip() else ()
    except (ValueError, SyntaxError):
        if not all(isinstance(item, str) for item in current):
            raise
        return _split(text)
    items = value if isinstance(value, tuple) else (value,)
    if current and all(isinstance(item, str) for item in current) and not all(isinstance(item, str) for item in items):
        return _split(text)
    kinds = {type(item) for item in current}
    if len(kinds) == 1:
        kind = kinds.pop()
        return tuple(_as_number(item, kind) if kind in (int, float) else _checked(item, kind) for item in items)
    return items


def _split(text: str) -> tuple[str, ...]:
    """Return the words between commas; brackets around all of them go, those of a regular expression stay."""
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("()", "[]") and not set(inner[1:-1]) & set("()[]"):
        inner = inner[1:-1]
    return tuple(word.strip().strip("'\"") for word in inner.split(",") if word.strip())


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(value)
    return value


def _parse_any(text: str) -> Any:
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    try:
        return _evaluate(text)
    except (ValueError, SyntaxError, TypeError, ZeroDivisionError, OverflowError):
        return text


def _as_number(value: Any, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(value)
    if kind is int and value != int(value):
        raise ValueError(value)
    return kind(value)


def _evaluate(text: str) -> Any:
    """Return the value of a literal or of an arithmetic expression of literals, calling nothing."""
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (MemoryError, RecursionError) as error:
        raise ValueError("nested too deeply") from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, configs.SCALARS)):
        return node.value
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left), _value(node.right)
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise ValueError("arithmetic is of numbers")
        unreal = left < 0 and right != int(right)
        if isinstance(node.op, ast.Pow) and (abs(right) > 64 or abs(left) > 2**64 or unreal):
            raise ValueError("power too large, or not real")
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    raise ValueError(ast.dump(node))


def _describe(kind: type, current: Any) -> str:
    names = {bool: "true or false", int: "an integer", float: "a number", tuple: "a tuple such as 1,2", str: "a string"}
    shown = "unset" if current is None else repr(current)
    if isinstance(current, tuple) and current:
        return f"a tuple of {type(current[0]).__name__} (now {shown})"
    return f"{names.get(kind, kind.__name__)} (now {shown})"
