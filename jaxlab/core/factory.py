"""Factories: callables that a config names by their import path, and what their signatures say.

Usage: ``import_factory("optax:adamw")``. Knows no config.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxlab.core.errors import ConfigError, did_you_mean


def import_factory(path: str, where: str = "factory") -> Callable[..., Any]:
    """Return the callable at ``"module:attribute"``.

    Raises:
      ConfigError: names the part that could not be found and the nearest attribute.
    """
    module_name, separator, attribute = path.partition(":")
    if not separator or not attribute:
        raise ConfigError(f"{where}: {path!r} is not of the form 'module:attribute'")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # the module may be the user's own, and fail in any way
        raise ConfigError(f"{where}: cannot import {module_name!r} of {path!r}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{where}: {path!r}: no {part!r} there{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{where}: {path!r} is a {type(found).__name__}, not a callable")
    return found


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the signature's parameters, annotations resolved where they can be."""
    try:
        return inspect.signature(function, eval_str=True).parameters
    except (NameError, TypeError, AttributeError):  # an annotation that names what is imported for type checking only
        return inspect.signature(function).parameters
    except ValueError:  # some builtins have no signature: nothing to check or to write down
        return {"keywords": inspect.Parameter("keywords", inspect.Parameter.VAR_KEYWORD)}
