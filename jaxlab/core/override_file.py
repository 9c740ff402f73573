"""A file of overrides: JSON values by config path, such as the best arm of a search.

Usage: ``override(config, read(Path("best.json")))``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxlab.core import config as configs
from jaxlab.core import limits, trust
from jaxlab.core.errors import ConfigError


def read(path: Path) -> dict[str, Any]:
    """Return the values by path in a JSON file, such as the best arm of a search.

    Raises:
      ConfigError: it is no object of such values, or names a factory that is not to be trusted.
    """
    values = limits.read_json(path, limits.JSON_BYTES)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}; expected an object of values by config path")
    nodes = {name: configs.from_json(json.dumps({"value": value})) for name, value in values.items()}
    for node in nodes.values():
        trust.check_imports(node, str(path))
    return {name: node.value for name, node in nodes.items()}
