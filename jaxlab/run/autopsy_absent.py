"""Stands in for a run's training data where they are not there: the batch is kept, and only facts are needed besides.

The facts are those that the run's receipt holds; the rows are zeros, so nothing can be trained from them.
Usage: ``experiment = without_data(config, folder, learnt)``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.errors import DataError
from jaxlab.core.types import DataSpec, Source
from jaxlab.data.fitting import Learnt
from jaxlab.run.assemble import Experiment, assemble

_FIELD = re.compile(r"(\w+)\[([\d, ]*)\]")  # float32[28, 28, 1]


class Absent:
    """A source of which only the facts are left."""

    in_memory = True

    def __init__(self, spec: DataSpec) -> None:
        """Know `spec`, and give rows of zeros."""
        self._spec = spec

    @property
    def spec(self) -> DataSpec:
        """The facts."""
        return self._spec

    def __len__(self) -> int:
        """Return the number of rows that there were."""
        return self._spec.size

    def __getitems__(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return zeros, one a row of `indices`, of each field."""
        return {name: np.zeros((len(indices), *x.shape), x.dtype) for name, x in self._spec.example.items()}


def absent(fields: Mapping[str, str], size: int, meta: Mapping[str, Any]) -> Source:
    """Return a stand-in for a source with such fields (``uint8[28, 28]``), so many rows and such facts."""
    example = {}
    for name, text in fields.items():
        found = _FIELD.fullmatch(text)
        if found is None:
            raise DataError(f"the field {name!r} is a {text}, for which nothing can stand in")
        shape = tuple(int(length) for length in found[2].split(",") if length.strip())
        example[name] = jax.ShapeDtypeStruct(shape, np.dtype(found[1]))
    return Absent(DataSpec(example, size, meta))


def without_data(config: ConfigDict, folder: Path, learnt: Sequence[Learnt | None] | None) -> Experiment:
    """Return the experiment of the run at `folder`, whose training data are zeros.

    Raises:
      DataError: the receipt does not say what the data were.
    """
    try:
        found = record.read_json(folder / record.ENVIRONMENT)["data"]["train"]
        facts = {"fields": found["fields"], "size": found["size"], "meta": found["meta"]}
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / record.ENVIRONMENT} does not say what the training data were") from error
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.train = ConfigDict({"factory": f"{__name__}:{absent.__name__}", **facts})
        config.data.sampling, config.data.precomputed, config.data.buckets.lengths = ConfigDict(), 0, ()
    return assemble(config, ("train",), learnt)
