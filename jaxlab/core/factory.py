"""Factories: callables that a config names by their import path, and what their signatures say.

Usage: ``import_factory("optax:adamw")``. Knows no config.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxlab.core.errors import ConfigError, UsageError, did_you_mean

IMPORTED: set[str] = set()
"""The import paths of all factories that this process has imported."""

REFUSED: dict[str, str] = {}
"""Import paths that a config from elsewhere names and that may not be imported, with the reason."""


def import_factory(path: str, where: str = "factory") -> Callable[..., Any]:
    """Return the callable at ``"module:attribute"``.

    Raises:
      ConfigError: names the part that could not be found and the nearest attribute.
      UsageError: it was read from a run's config and is not to be trusted; see `jaxlab.core.trust`.
    """
    if path in REFUSED and path not in IMPORTED:
        raise UsageError(f"{where}: {REFUSED[path]}")
    return import_own(path, where)


def import_own(path: str, where: str = "factory") -> Callable[..., Any]:
    """Return what `import_factory` does, for a path that the user's own code or command names: it is never refused."""
    found = resolve(path, where)
    IMPORTED.add(path)
    return found


def is_import_path(text: str) -> bool:
    """Say whether a text has the form ``module:attribute``; each is of names with dots between."""
    module, _, attribute = text.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))


def resolve(path: str, where: str = "factory") -> Callable[..., Any]:
    """Return what `import_factory` does, without a note in `IMPORTED`: who asks may still refuse it."""
    if not isinstance(path, str) or not is_import_path(path):
        raise ConfigError(f"{where}: {path!r} is not of the form 'module:attribute'")
    module_name, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the module may be the user's own, and fail in any way
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
    for evaluated in (True, False):  # an annotation may name what is imported for type checking only
        try:
            return inspect.signature(function, eval_str=evaluated).parameters
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue
        except ValueError:
            break
    # some builtins have no signature: nothing to check or to write down
    return {"keywords": inspect.Parameter("keywords", inspect.Parameter.VAR_KEYWORD)}
