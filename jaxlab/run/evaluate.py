"""The ``evaluate`` command: a checkpoint on a whole split, with the prediction store, metrics and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import HostBatch, PyTree
from jaxlab.data.feeding import prefetch
from jaxlab.optim import evaluation
from jaxlab.run.assemble import SPLITS, Experiment, assemble, strategy_of
from jaxlab.run.host_memory import keep_freed_memory
from jaxlab.run.restore import restore
from jaxlab.run.store import read_store, write_store
from jaxlab.run.uncertainty import intervals
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.evaluate import predict, summarise
from jaxlab.train.parallel import Strategy, measure

EVALUATION = "evaluation.json"


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
    bounds = intervals(experiment.metrics, table, split, metrics)
    store = write_store(folder, split, at, table)
    evaluations = record.read_json(folder / EVALUATION)
    reads = 1 + max((found["reads"] for found in evaluations.values() if found["split"] == split), default=0)
    result = {
        "split": split, "step": at, "n": len(table["id"]), "reads": reads, "metrics": metrics,
        "intervals": {name: interval._asdict() for name, interval in bounds.items()},
        "parameters": evaluation.kind_of(state), "predictions": str(store.relative_to(folder)),
    }  # fmt: skip
    record.write_json(folder / EVALUATION, {**evaluations, f"{split}-{at}": result})
    plots = _draw(folder, split, at, experiment)
    return {"workdir": str(folder), **result, "plots": [str(path.relative_to(folder)) for path in plots]}


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
