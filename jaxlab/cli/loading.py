"""The config that a command's flags describe. Usage: ``config = load(parsed, overrides)``. Imports no JAX."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlab.core.errors import UsageError


def load(parsed: argparse.Namespace, overrides: Mapping[str, str]) -> Any:
    """Return the config with the overrides of a file and of flags, the latter last."""
    from jaxlab.core import config as configs
    from jaxlab.core.override import override
    from jaxlab.core.override_file import read

    config = configs.load(parsed.config)
    try:
        given = read(Path(parsed.overrides)) if parsed.overrides else {}
        return override(override(config, given), overrides)
    except UsageError as error:
        raise type(error)(f"--{error} (in {parsed.config})") from error
