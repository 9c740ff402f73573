"""The ``evaluate`` command: a checkpoint on a whole split, with the prediction store, metrics and pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jaxlab.core import record
from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import HostBatch, PyTree
from jaxlab.data.feeding import prefetch
from jaxlab.optim import evaluation
from jaxlab.run.assemble import SPLITS, Experiment, assemble, strategy_of
from jaxlab.run.host_memory import keep_freed_memory
from jaxlab.run.restore import restore
from jaxlab.run.uncertainty import as_json, intervals
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.evaluate import predict, summarise
from jaxlab.train.parallel import Strategy, measure

EVALUATION = "evaluation.json"
_SHAPES = b"jaxlab.shapes"  # of the arrays that a row holds as lists


def evaluate(
    workdir: str | os.PathLike[str], split: str = "test", step: str = "best", batch_size: int | None = None
) -> dict[str, Any]:
    """Measure a checkpoint of a run on a split; write the prediction store, ``evaluation.json`` and plots.

    ``reads`` in the result: how often evaluations of this run have read the split's labels. Of ``test``, once is best.

    Args:
      workdir: the run's directory.
      split: train, valid or test; train is measured unshuffled and not augmented.
      step: best, latest or a number; best is chosen on the validation split.
      batch_size: examples a batch, the run's own if None; it does not change the result.

    Raises:
      DataError: no run, no such checkpoint or no data.
      ConfigError: the config has no such split.
    """
    keep_freed_memory()
    folder = Path(workdir).expanduser().resolve()
    config = record.read_config(folder)
    record.restore_imports(folder)
    available = [name for name in SPLITS if name in config.data]
    if split not in available:
        raise ConfigError(f"--split={split}: config.data has no such split{did_you_mean(split, available)}")
    experiment = assemble(config, (split,), record.read_learnt(folder))
    best, mode = config.train.best, config.train.best_mode
    with Checkpoints(
        folder / record.CHECKPOINTS, keep=config.train.keep, best=best, mode=mode, writable=False
    ) as checkpoints:
        at = checkpoints.resolve(step)
        strategy = strategy_of(config, config.train.batch_size if batch_size is None else batch_size)
        state = restore(checkpoints, at, experiment.abstract_step(), strategy)["state"]
    compiled = strategy.compile(measure(experiment.eval_step(strategy.batch_axis)), donate=False)
    statistics, table = predict(state, _pairs(experiment, split, batch_size, strategy), compiled, strategy)
    metrics = summarise(statistics, experiment.metrics, split)
    found = intervals(experiment.metrics, table, split, metrics)
    store = write_store(folder, split, at, table)
    evaluations = record.read_json(folder / EVALUATION)
    reads = 1 + max((found["reads"] for found in evaluations.values() if found["split"] == split), default=0)
    result = {
        "split": split, "step": at, "n": len(table["id"]), "reads": reads, "metrics": metrics,
        "intervals": as_json(found),
        "parameters": evaluation.kind_of(state), "predictions": str(store.relative_to(folder)),
    }  # fmt: skip
    record.write_json(folder / EVALUATION, {**evaluations, f"{split}-{at}": result})
    plots = _draw(folder, split, at, experiment)
    return {"workdir": str(folder), **result, "plots": [str(path.relative_to(folder)) for path in plots]}


def write_store(folder: Path, split: str, step: int, table: dict[str, np.ndarray]) -> Path:
    """Write the per-example results as Parquet, one row an example in the split's order; arrays become lists."""
    columns = {name: value if value.ndim == 1 else list(value.reshape(len(value), -1)) for name, value in table.items()}
    shapes = {name: value.shape[1:] for name, value in table.items()}
    path = folder / record.PREDICTIONS / f"{split}-{step}.parquet"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    stored = pa.Table.from_pandas(pd.DataFrame(columns))
    pq.write_table(stored.replace_schema_metadata({**stored.schema.metadata, _SHAPES: json.dumps(shapes)}), temporary)
    temporary.replace(path)
    return path


def read_store(workdir: Path, split: str, step: int) -> pd.DataFrame:
    """Return the table that `write_store` wrote."""
    return pd.read_parquet(workdir / record.PREDICTIONS / f"{split}-{step}.parquet")


def read_arrays(workdir: Path, split: str, step: int) -> dict[str, np.ndarray]:
    """Return the arrays [N, ...] that `write_store` was given."""
    path = workdir / record.PREDICTIONS / f"{split}-{step}.parquet"
    if not path.exists():
        raise DataError(
            f"{path} is not there; expected what jaxlab evaluate --workdir={workdir} --split={split} writes"
        )
    stored = pq.read_table(path)
    shapes = json.loads(stored.schema.metadata[_SHAPES])
    return {name: _array(stored[name].combine_chunks(), shape) for name, shape in shapes.items()}


def _array(column: pa.Array, shape: list[int]) -> np.ndarray:
    values = column.flatten() if shape else column
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), *shape)


def _pairs(
    experiment: Experiment, split: str, batch_size: int | None, strategy: Strategy
) -> Iterator[tuple[HostBatch, PyTree]]:
    batches = experiment.batches(split, batch_size, training=False)

    def pair(number: int) -> tuple[HostBatch, PyTree]:
        host = batches.chunk(number, 1)
        return host, strategy.put_chunk(host)

    return prefetch(pair(number) for number in range(len(batches)))


def _draw(folder: Path, split: str, step: int, experiment: Experiment) -> list[Path]:
    """Draw what the run and its predictions allow: the learning curve, and the confusion matrix of classes."""
    from jaxlab.run import draw

    drawn = [draw.learning_curve(folder)[1]]
    table, meta = read_store(folder, split, step), experiment.data.meta
    if meta.get("classes") and {"target", "prediction"} <= set(table):
        drawn.append(draw.confusion_matrix(folder, split, step, table, meta["classes"]))
    return drawn
