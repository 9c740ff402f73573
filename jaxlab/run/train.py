"""The ``train`` command: from a config and a directory to a finished run, or on from where it was stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.types import Periodic, PyTree, Statistics, TrainState
from jaxlab.data.pipeline import batch_bytes, chunk_steps, feed, prefetch
from jaxlab.run import environment
from jaxlab.run.assemble import Experiment, assemble, check_devices, make_hooks, make_sinks
from jaxlab.run.restore import restore_or_init
from jaxlab.run.result import Run
from jaxlab.train import loop
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.evaluate import evaluate
from jaxlab.train.parallel import Strategy, make_strategy, measure, scanned, single
from jaxlab.train.step import summarise


def train(config: ConfigDict, workdir: str | os.PathLike[str], origin: Mapping[str, Any] | None = None) -> Run:
    """Train, resume, or say that the run is finished; return the run.

    Args:
      config: complete, as `jaxlab.load_config` returns it.
      workdir: the run's directory; made if need be.
      origin: the config file and overrides, kept in ``overrides.json``.

    Raises:
      UsageError: the directory holds another run.
      ConfigError, DataError: before any device work.
      DivergedError: the loss is no longer finite.
      PreemptedError: asked to stop by SIGTERM or SIGINT; the state is saved.
    """
    folder = Path(workdir).expanduser().resolve()
    if (folder / record.SUMMARY).exists():
        record.open_run(folder, config, origin or {})
        logging.info("%s is finished", folder)
        return Run(folder)
    experiment = assemble(config, ("train", "valid"))
    shapes = experiment.abstract_step()
    parallel = config.parallel
    devices = jax.devices()
    strategy = make_strategy(parallel.strategy, parallel.mesh.to_dict(), devices)
    check_devices(config, len(devices) if parallel.mesh.data == -1 else parallel.mesh.data)
    record.open_run(folder, config, origin or {})
    with Checkpoints(
        folder / record.CHECKPOINTS, keep=config.train.keep, best=config.train.best, mode=config.train.best_mode
    ) as checkpoints:
        _train(experiment, shapes, strategy, checkpoints, folder)
    record.finish(folder, _summary(config, folder))
    return Run(folder)


def _train(
    experiment: Experiment,
    shapes: tuple[TrainState, Statistics],
    strategy: Strategy,
    checkpoints: Checkpoints,
    folder: Path,
) -> None:
    config = experiment.config
    state, window, step = restore_or_init(experiment, shapes, strategy, checkpoints)
    zeros = strategy.init(lambda: _zeros(shapes[1]))
    record.write_json(folder / record.ENVIRONMENT, environment.describe(experiment.sources))
    sinks = make_sinks(config, folder, step)
    log = record.MetricsLog(folder, step)
    began = time.monotonic()
    earlier = max((row["wall"] for row in record.read_metrics(folder)), default=0.0)

    def write(at: int, row: Mapping[str, float]) -> None:
        row = {**{name: float(value) for name, value in row.items()}, "wall": earlier + time.monotonic() - began}
        log.write(at, row)
        for sink in sinks:
            sink.write(at, row)
        checkpoints.check()

    def save(at: int, state: TrainState, window: Statistics, measured: Mapping[str, float]) -> None:
        log.sync()
        checkpoints.save(at, strategy.save_form({"state": state, "window": window}), measured)

    batches = experiment.batches("train", training=True)
    per_call = config.train.steps_per_call
    length = per_call if per_call > 1 else chunk_steps(batch_bytes(batches))
    step_function = experiment.train_step(strategy.batch_axis)
    with _stop_requests() as stopping, contextlib.ExitStack() as closing:
        for sink in sinks:
            closing.callback(sink.close)
        closing.callback(log.close)
        plan = loop.Plan(
            single=strategy.compile(single(step_function), donate=True),
            scanned=strategy.compile(scanned(step_function), donate=True) if per_call > 1 else None,
            length=length,
            last=config.train.steps,
            batch_size=config.train.batch_size,
            log_every=config.train.log_every,
            checkpoint_every=config.train.checkpoint_every,
            hooks=[*_evaluation(experiment, strategy), *make_hooks(config, data=experiment.data, workdir=folder)],
            zeros=zeros,
            summarise=lambda window: summarise(strategy.fetch(window), experiment.metrics, "train"),
            write=write,
            save=save,
            stopping=stopping,
        )
        chunks = feed(
            batches,
            first=step,
            last=config.train.steps,
            chunk=length,
            put=strategy.put_chunk,
            workers=config.data.workers,
        )
        with contextlib.closing(chunks):
            loop.run(plan, state, zeros if window is None else window, step, chunks)


def _evaluation(experiment: Experiment, strategy: Strategy) -> list[Periodic]:
    """Return the hook that measures the validation split, where there is one."""
    if "valid" not in experiment.sources:
        return []
    batches = experiment.batches("valid")
    compiled = strategy.compile(_statistics_only(measure(experiment.eval_step(strategy.batch_axis))), donate=False)

    def hook(step: int, state: TrainState) -> dict[str, float]:
        chunks = prefetch(strategy.put_chunk(batches.chunk(i, 1)) for i in range(len(batches)))
        return summarise(evaluate(state, chunks, compiled, strategy), experiment.metrics, "valid")

    return [Periodic(experiment.config.train.eval_every, hook)]


def _statistics_only(
    function: Callable[..., tuple[Statistics, Any]],
) -> Callable[..., tuple[Statistics, dict[str, Any]]]:
    """Return the function without its outputs, so that XLA computes none that nobody reads."""
    return lambda state, chunk: (function(state, chunk)[0], {})


def _zeros(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes)


def _summary(config: ConfigDict, folder: Path) -> dict[str, Any]:
    """Return the last value of every metric, and the best of the one that chooses the model."""
    rows = record.read_metrics(folder)
    final: dict[str, Any] = {}
    for row in rows:
        final |= row
    measured = [row for row in rows if config.train.best in row]
    choose = max if config.train.best_mode == "max" else min
    best = choose(measured, key=lambda row: row[config.train.best]) if measured else None
    return {
        "status": "finished",
        "step": config.train.steps,
        "wall": final["wall"],
        "metrics": {name: value for name, value in final.items() if "/" in name},
        "best": best and {"metric": config.train.best, "value": best[config.train.best], "step": best["step"]},
    }


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Give the function that says whether SIGTERM or SIGINT came; a second one ends the process at once."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            os._exit(128 + number)
        asked.append(number)
        logging.warning("stopping after this step; once more to leave at once")

    try:
        previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread, as in a notebook's worker: its owner handles signals
        previous = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
