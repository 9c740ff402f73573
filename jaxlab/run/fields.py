"""Whether a config has the fields that every config has, each of its kind: the base says which. Builds nothing.

A config file starts from the base, so it has them; a run's ``config.json`` may come from anywhere.
Usage: ``check_fields(config)``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference

from jaxlab.core.errors import ConfigError, JaxlabError, did_you_mean
from jaxlab.run.base import base_config

_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "true or false", tuple: "a tuple"}
_FREE = ("hooks", "sinks")  # by name, of which a config may leave out the base's


def check_fields(config: ConfigDict) -> None:
    """Raise ConfigError for a field of the base that `config` lacks, or that holds another kind of value."""
    _check(config, base_config(), "config")
    for split in ("train", "valid", "test"):
        if split in config.data and not isinstance(config.data[split], ConfigDict):
            raise ConfigError(f"config.data.{split}={config.data[split]!r}: expected a node with a factory")
    for place in ("transforms", "augment", "device_augment"):
        for i, node in enumerate(config.data[place]):
            if not isinstance(node, ConfigDict):
                raise ConfigError(f"config.data.{place}[{i}]={node!r}: expected a node with a factory")
    for place in ("model", "objective", "optimizer"):
        if "factory" not in config[place]:
            raise ConfigError(f"config.{place}.factory is missing{did_you_mean('factory', config[place])}")
    for place in ("metrics", "hooks", "sinks"):
        for name, node in config[place].items():
            if not isinstance(node, ConfigDict) or "factory" not in node:
                raise ConfigError(f"config.{place}.{name}={node!r}: expected a node with a factory")
    _check_parallel(config.parallel)


def _check_parallel(parallel: ConfigDict) -> None:
    for axis, size in parallel.mesh.items():
        if type(size) is not int:
            raise ConfigError(f"config.parallel.mesh.{axis}={size!r}: expected an integer")
    for place, rule in enumerate(parallel.rules):
        if not _is_rule(rule):
            raise ConfigError(
                f"config.parallel.rules[{place}]={rule!r}: "
                "expected an expression and axes, such as ('.*/kernel', ('fsdp', ''))"
            )


def _is_rule(rule: Any) -> bool:
    """Say whether a rule is an expression with a tuple of axes."""
    if not isinstance(rule, tuple) or len(rule) != 2 or not isinstance(rule[1], tuple):
        return False
    try:
        re.compile(rule[0])
    except (re.error, TypeError):
        return False
    return all(isinstance(axis, str) for axis in rule[1])


@contextlib.contextmanager
def explained(fields: str) -> Iterator[None]:
    """Let what goes wrong with parts that the config names be a ConfigError that begins with their `fields`."""
    try:
        yield
    except (JaxlabError, MemoryError):
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ConfigError(f"{fields}: {type(error).__name__}: {first}") from error


def _check(config: ConfigDict, base: ConfigDict, path: str) -> None:
    expected = dict(base.items(preserve_field_references=True))
    for name, value in expected.items():
        if name not in config:
            raise ConfigError(f"{path}.{name} is missing{did_you_mean(name, set(config) - set(base))}")
        found, where = config[name], f"{path}.{name}"
        if isinstance(value, ConfigDict):
            if not isinstance(found, ConfigDict):
                raise ConfigError(f"{where}={found!r}: expected a group of fields")
            if name not in _FREE:
                _check(found, value, where)
            continue
        optional = isinstance(value, FieldReference)
        kind: Any = value.get_type() if optional else type(value)
        if not (optional and found is None) and not _is(found, kind):
            raise ConfigError(f"{where}={str(found)[:200]!r}: expected {_NAMES[kind]}")


def _is(found: Any, kind: type) -> bool:
    if kind in (int, float):
        return type(found) is int or (kind is float and type(found) is float)
    return isinstance(found, list | tuple) if kind is tuple else isinstance(found, kind)
