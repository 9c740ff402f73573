"""Executes a config file, which is the user's own program, and finds the functions in it that make configs.

Usage: ``functions_of(Path("configs/digits_cnn.py"))["get_config"]()``. Knows nothing of what they return.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlab.core.errors import ConfigError, JaxlabError
from jaxlab.core.factory import parameters_of


def functions_of(path: Path) -> dict[str, Callable[[], Any]]:
    """Execute a config file under its own name and return its public functions that need no argument."""
    name, folder = path.stem, str(path.parent.resolve())
    loaded = sys.modules.get(name)
    taken = loaded is not None and not hasattr(loaded, "__jaxlab_config__")
    if taken and Path(getattr(loaded, "__file__", None) or "").resolve() != path.resolve():
        raise ConfigError(f"{path}: the name {name!r} is taken by an imported module; rename the file")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"config file {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    module.__dict__["__jaxlab_config__"] = True
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except JaxlabError as error:
        raise type(error)(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path}: the file fails with {type(error).__name__}: {error}") from error
    return {
        n: f
        for n, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == name and not n.startswith("_") and not parameters_of(f)
    }
