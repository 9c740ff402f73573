"""The prediction store: each example's results of an evaluation, as one Parquet file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jaxlab.core import limits, record
from jaxlab.core.errors import DataError
from jaxlab.core.paths import inside
from jaxlab.core.types import Table

_SHAPES = b"jaxlab.shapes"  # of the arrays that a row holds as lists


def write_store(folder: Path, split: str, step: int | str, table: Table) -> Path:
    """Write the per-example results as Parquet, one row an example in the split's order; arrays become lists.

    `step` may have the kind of parameters behind it, ``400-raw``.
    """
    columns = {name: value if value.ndim == 1 else list(value.reshape(len(value), -1)) for name, value in table.items()}
    shapes = {name: value.shape[1:] for name, value in table.items()}
    path = _path(folder, split, step)
    path.parent.mkdir(exist_ok=True)
    inside(folder, str(path.relative_to(folder)))
    temporary = path.with_suffix(".tmp")
    stored = pa.Table.from_pandas(pd.DataFrame(columns))
    pq.write_table(stored.replace_schema_metadata({**stored.schema.metadata, _SHAPES: json.dumps(shapes)}), temporary)
    temporary.replace(path)
    return path


def read_arrays(folder: Path, split: str, step: int | str) -> dict[str, np.ndarray]:
    """Return the arrays [N, ...] that `write_store` was given.

    Raises:
      DataError: there is no such file, it is none that was written so, or it declares more than fits into memory.
    """
    path = _path(folder, split, step)
    if not path.exists():
        raise DataError(f"{path} is not there; expected what jaxlab evaluate --workdir={folder} --split={split} writes")
    inside(folder, str(path.relative_to(folder)))
    try:
        with pq.ParquetFile(path) as file:
            limits.check_parquet(file, path)
            stored = file.read()
        stored.validate(full=True)
        shapes = limits.parse_json(stored.schema.metadata[_SHAPES], path)
        return {name: _array(stored[name].combine_chunks(), shape) for name, shape in shapes.items()}
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: no predictions that jaxlab has stored: {' '.join(str(error).split())}") from error


def _path(folder: Path, split: str, step: int | str) -> Path:
    return folder / record.PREDICTIONS / f"{split}-{step}.parquet"


def _array(column: pa.Array, shape: list[int]) -> np.ndarray:
    values = column.flatten() if shape else column
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), *shape)
