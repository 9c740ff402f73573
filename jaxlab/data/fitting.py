"""Learns what transforms need from the training split, once, and binds it to them for every split.

What was learnt is plain JSON, saved with the run: an evaluation, a resumed run and an exported model read it and never
learn again. Knows no transform. Usage: ``fit_all(parts, source, learnt=None)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec, Fittable, Source, Transform
from jaxlab.data.pipeline import transformed, transformed_spec

Learnt = Mapping[str, Any]


class Fit(NamedTuple):
    """Transforms ready for any split, what they learnt by their place (None: nothing), and facts for the spec."""

    transforms: tuple[Transform, ...]
    learnt: tuple[Learnt | None, ...]
    meta: Mapping[str, Any]


class Transformed:
    """A source as transforms leave it: what a later transform learns from."""

    def __init__(self, source: Source, transforms: Sequence[Transform], meta: Mapping[str, Any]) -> None:
        """Serve the rows of `source` through `transforms`, which add the facts `meta`."""
        self._source, self._transforms = source, tuple(transforms)
        spec = transformed_spec(source, self._transforms)
        self._spec = spec._replace(meta={**spec.meta, **meta})

    @property
    def spec(self) -> DataSpec:
        """The fields as the transforms leave them."""
        return self._spec

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._source)

    def __getitems__(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the transformed rows at `indices`."""
        fields = self._source.__getitems__(indices)
        return transformed(fields, self._transforms, (0, "transform-fit"), len(indices), slice(None))


def fit_all(parts: Sequence[Transform | Fittable], source: Source, learnt: Sequence[Learnt | None] | None) -> Fit:
    """Return the transforms bound to what they learn from `source`, or to what was `learnt` before.

    Args:
      parts: of ``config.data.transforms``, in order; each learns from what those before it leave.
      source: the training split; any split where `learnt` is given.
      learnt: by place, as `Fit.learnt` was.

    Raises:
      ConfigError: `learnt` is of other transforms.
    """
    if learnt is not None and [x is None for x in learnt] != [not isinstance(part, Fittable) for part in parts]:
        raise ConfigError("config.data.transforms are not those that the run was trained with")
    transforms: list[Transform] = []
    found: list[Learnt | None] = []
    meta: dict[str, Any] = {}
    for place, part in enumerate(parts):
        if not isinstance(part, Fittable):
            transforms.append(part)
            found.append(None)
            continue
        knowledge = learnt[place] if learnt is not None else part.fit(Transformed(source, transforms, meta))
        if knowledge is None:
            raise ConfigError(f"config.data.transforms[{place}] has learnt nothing")
        transforms.append(part.bind(knowledge))
        found.append(knowledge)
        meta |= part.meta(knowledge)
    return Fit(tuple(transforms), tuple(found), meta)


def check_numeric(data: DataSpec) -> None:
    """Raise DataError for a field that devices cannot hold, such as a text that no transform has turned to numbers."""
    texts = [name for name, x in data.example.items() if np.dtype(x.dtype).kind not in "biuf"]
    if texts:
        raise DataError(
            f"the field {texts[0]!r} still holds {np.dtype(data.example[texts[0]].dtype).name}s after the transforms; "
            "add one to config.data.transforms that turns it into numbers, or `jaxlab.data.fields:drop`"
        )
