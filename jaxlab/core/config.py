"""Configs: trees of plain values whose nodes may name a factory by its import path.

A node is a `ConfigDict` with the reserved key ``factory``; `spec` writes it, complete with the factory's
defaults, and `build` calls it. Sequences are tuples. Knows no factory, no field and no run.
Usage: ``config.optimizer = spec("optax:adamw", learning_rate=1e-3)``, later ``build(config.optimizer)``.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from jaxlab.core import limits, trust
from jaxlab.core.config_file import functions_of
from jaxlab.core.errors import ConfigError, DataError, JaxlabError, did_you_mean
from jaxlab.core.factory import import_factory, import_own, parameters_of

FACTORY = "factory"
SCALARS = (bool, int, float, str)


def spec(factory: str | Callable[..., Any], /, **keywords: Any) -> ConfigDict:
    """Return the node that calls `factory` with `keywords` and, for all others, its signature's defaults.

    Parameters without a default that are not given are left to the context of `build`.

    Args:
      factory: ``"module:attribute"``, or the callable itself.
      **keywords: plain values, tuples of them, or further nodes.

    Raises:
      ConfigError: the factory cannot be imported, takes no such keyword, or a value is not plain.
    """
    names = (getattr(factory, name, "") for name in ("__module__", "__qualname__"))
    path = factory if isinstance(factory, str) else ":".join(names)
    function = import_own(path)  # a lambda or an inner function has no path: better now than in `build`
    parameters = parameters_of(function)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    node = ConfigDict({FACTORY: path})
    for name, value in keywords.items():
        if name not in named and not open_ended:
            raise ConfigError(f"{path} takes no keyword {name!r}{did_you_mean(name, named)}")
        if name in named and value is None:
            node[name] = _unset(named[name])
        elif name in named and type(value) is int and _is_float(named[name]):
            node[name] = float(value)
        elif name in named and isinstance(value, str) and typing.get_origin(named[name].annotation) is tuple:
            raise ConfigError(f"{path}: {name}={value!r}: expected a tuple, such as ({value!r},)")
        else:
            node[name] = plain(value, f"{path}: {name}")
    for name, parameter in named.items():
        if name in keywords or parameter.default is parameter.empty:
            continue
        if parameter.default is None:
            node[name] = _unset(parameter)
        elif _is_plain(parameter.default):
            node[name] = plain(parameter.default, f"{path}: {name}")
    return node


def build(node: Any, /, *, path: str = "config", **context: Any) -> Any:
    """Return what the node's factory makes, its children built first; plain values return as they are.

    A parameter that has no default and is not in the node is taken from `context`; if it is not there, or the factory
    lacks a keyword, that is a ConfigError.
    """
    if isinstance(node, tuple | list):
        return tuple(build(child, path=f"{path}[{i}]", **context) for i, child in enumerate(node))
    if not isinstance(node, ConfigDict):
        return node
    values = {name: build(node[name], path=f"{path}.{name}", **context) for name in node if name != FACTORY}
    if FACTORY not in node:
        return values
    function = import_factory(node[FACTORY], path)
    parameters = parameters_of(function)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in values:
        if name not in parameters and not open_ended:
            raise ConfigError(f"{path}.{name}: {node[FACTORY]} takes no such keyword{did_you_mean(name, parameters)}")
    for name, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if name in values or variadic or parameter.default is not parameter.empty:
            continue
        if name not in context:
            raise ConfigError(
                f"{path}.{name}: {node[FACTORY]} needs it, and neither the config nor the context "
                f"({', '.join(sorted(context)) or 'empty'}) gives it"
            )
        values[name] = context[name]
    try:
        return function(**values)
    except (ConfigError, DataError) as error:
        message = str(error)
        raise type(error)(message if message.startswith("config.") else f"{path}: {message}") from error
    except (JaxlabError, OSError, MemoryError):
        raise
    except Exception as error:  # a value that the factory did not expect, or a fault of its own
        raise ConfigError(f"{path}: {node[FACTORY]} fails with {type(error).__name__}: {error}") from error


def load(source: str | Path) -> ConfigDict:
    """Return the locked config that a file describes.

    Args:
      source: ``file.py`` (its ``get_config()``), ``file.py:preset`` (its public function of that name, without
        parameters), or the ``config.json`` of a run. The file's folder becomes importable, so that a config may
        name a factory in a file beside it, or in itself. A run's config is data that anyone may have written: it may
        name only factories that `jaxlab.core.trust` trusts, or that `jaxlab.allow` has allowed.

    Raises:
      ConfigError: no such file or preset, or the file fails.
      UsageError: a run's config names a package that is not allowed.
    """
    text = str(source)
    named = re.fullmatch(r"(.+\.py):([^/]*)", text)
    file, preset = named.groups() if named else (text, "get_config")
    path = Path(file)
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ConfigError(f"config file {file!r} does not exist{did_you_mean(file, siblings)}")
    if path.suffix == ".json":
        config = read(path)
        trust.check_imports(config, file)
        return config
    functions = functions_of(path)
    if preset not in functions:
        raise ConfigError(f"{file}: no preset {preset!r}{did_you_mean(preset, functions)}")
    try:
        config = functions[preset]()
    except JaxlabError as error:
        raise type(error)(f"{text}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{text}: {preset}() fails with {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{text}: {preset}() returned {type(config).__name__}, expected a ConfigDict")
    return plain(config, "config").lock()


def presets(file: str | Path) -> list[str]:
    """Return the names that ``file.py:NAME`` accepts; ``get_config`` is the default."""
    return sorted(functions_of(Path(file)))


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return every plain value by its path: ``optimizer.b1``, ``data.transforms[0].scale``."""
    if isinstance(node, ConfigDict):
        children = {f"{prefix}.{name}" if prefix else name: node[name] for name in node}
    elif isinstance(node, tuple | list) and _holds_a_node(node):
        children = {f"{prefix}[{i}]": child for i, child in enumerate(node)}
    else:
        return {prefix: tuple(node) if isinstance(node, list) else node}
    return {path: value for name, child in children.items() for path, value in flatten(child, name).items()}


def _holds_a_node(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_holds_a_node, value))
    return isinstance(value, ConfigDict)


def diff(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return ``path: (old, new)`` for each value that differs; a value that one lacks is None there."""
    before, after = flatten(old), flatten(new)
    paths = [*before, *(path for path in after if path not in before)]
    pairs = {path: (before.get(path), after.get(path)) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def to_json(config: ConfigDict) -> str:
    """Return the config as JSON text."""
    return json.dumps(_to_plain(config), indent=2) + "\n"


def from_json(text: bytes | str) -> ConfigDict:
    """Return the locked config that `to_json` wrote: sequences are tuples, unset optionals of any type.

    Raises:
      ConfigError, DataError: it is no such text.
    """
    config = plain(limits.parse_json(text, "config"), "config")
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"expected a JSON object, not {text[:40]!r}")
    trust.distrust(config)
    return config.lock()


def read(path: Path) -> ConfigDict:
    """Return the config in a file that `to_json` wrote, or a ConfigError; nothing that it names is imported."""
    try:
        return from_json(limits.read_bytes(path, limits.JSON_BYTES))
    except (ConfigError, DataError) as error:
        raise ConfigError(f"{path}: not the config.json of a run: {error}") from error


def _is_plain(value: Any) -> bool:
    return isinstance(value, (*SCALARS, ConfigDict)) or (isinstance(value, tuple | list) and all(map(_is_plain, value)))


def _is_float(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is float or isinstance(parameter.default, float)


def plain(value: Any, where: str) -> Any:
    """Return a copy that shares nothing: sequences are tuples, mappings nodes, None in a node a placeholder."""
    if isinstance(value, tuple | list):
        return tuple(plain(child, f"{where}[{i}]") for i, child in enumerate(value))
    if isinstance(value, ConfigDict | Mapping):
        items = value.items(preserve_field_references=True) if isinstance(value, ConfigDict) else value.items()
        for name in value:
            if not isinstance(name, str):
                raise ConfigError(f"{where}: the key {name!r} is a {type(name).__name__}; a config's keys are strings")
            if "." in name:
                raise ConfigError(f"{where}: the key {name!r} has a dot in it, which separates the names of a path")
        return ConfigDict({n: placeholder(object) if v is None else plain(v, f"{where}.{n}") for n, v in items})
    if isinstance(value, FieldReference):  # an optional keeps its type, set or not
        reference = placeholder(value.get_type())
        reference.set(plain(value.get(), where), type_safe=False)
        return reference
    if value is None or isinstance(value, (*SCALARS, ConfigDict)):
        return value
    raise ConfigError(f"{where}={value!r} is a {type(value).__name__}; expected a plain value, a tuple or a spec")


def _unset(parameter: inspect.Parameter) -> Any:
    """Return a typed placeholder for an optional parameter, so that a flag can set it."""
    annotation: Any = parameter.annotation
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    declared = [typing.get_origin(m) or m for m in (typing.get_args(annotation) if union else (annotation,))]
    members = [member for member in declared if member is not type(None)]
    known = len(members) == 1 and members[0] in (*SCALARS, tuple)
    return placeholder(members[0] if known else object)


def _to_plain(value: Any) -> Any:
    if isinstance(value, ConfigDict):
        names = sorted(value, key=lambda name: (name != FACTORY, name))
        return {name: _to_plain(value[name]) for name in names}
    return [_to_plain(child) for child in value] if isinstance(value, tuple | list) else value
