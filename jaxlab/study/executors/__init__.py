"""Executors: each module's ``make`` returns one that does a study's runs somewhere.

Usage: ``named("local", {"workers": "4"})``, or ``named("my_file:make", {})`` for one of your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlab.core.config import FACTORY, spec
from jaxlab.core.errors import ConfigError, UsageError, did_you_mean
from jaxlab.core.factory import import_own
from jaxlab.core.override import override


def named(name: str, options: Mapping[str, str]) -> Any:
    """Return the executor of a module here, or of the import path of a factory, with options as flags have them.

    Raises:
      UsageError: no such executor, or it cannot be had here.
      ConfigError: it has no such option, or that takes another type.
    """
    ours = [file.stem for file in Path(__file__).parent.glob("*.py") if file.stem != "__init__"]
    if ":" not in name and name not in ours:
        raise UsageError(f"--executor={name}: no such executor{did_you_mean(name, ours)}")
    path = name if ":" in name else f"{__name__}.{name}:make"
    try:
        node = override(spec(path), options)
    except ConfigError as error:
        raise ConfigError(f"--executor={name}: {str(error).replace('config.', '--executor.')}") from error
    return import_own(path)(**{option: node[option] for option in node if option != FACTORY})
