"""Leaves out fields of an example that no model needs, such as a text that has become tokens or a file's name.

Usage: ``data.transforms = (spec("jaxlab.data.fields:drop", names=("text",)),)``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Randomness, Transform


def drop(names: tuple[str, ...]) -> Transform:
    """Return the transform that leaves out the fields `names`.

    Raises:
      ConfigError: when applied to data without such a field.
    """

    def without(fields: Mapping[str, np.ndarray], _: Randomness) -> Mapping[str, np.ndarray]:
        for name in names:
            if name not in fields:
                raise ConfigError(f"drop: the data has no field {name!r}{did_you_mean(name, fields)}")
        return {name: value for name, value in fields.items() if name not in names}

    return without
