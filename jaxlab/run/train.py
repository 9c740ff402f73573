"""The ``train`` command: from a config and a directory to a finished run, or on from where it was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.tree import packed_shape, unpack
from jaxlab.core.types import Periodic, Statistics, TrainState
from jaxlab.data.feeding import chunk_steps, feed, prefetch
from jaxlab.run import environment
from jaxlab.run.assemble import Experiment, assemble, make_hooks, make_sinks, strategy_of
from jaxlab.run.host_memory import keep_freed_memory
from jaxlab.run.journal import Journal
from jaxlab.run.optimizer import log_rules, rule_matches
from jaxlab.run.overheard import overheard, say
from jaxlab.run.restore import restore_or_init
from jaxlab.run.result import Run
from jaxlab.run.sources import keep_tokenizers, log_sampling, write_splits
from jaxlab.train import loop
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.evaluate import evaluate, summarise
from jaxlab.train.parallel import Strategy, Window, measure, several, single

_log = logging.getLogger("jaxlab")


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
    keep_freed_memory()
    folder = Path(workdir).expanduser().resolve()
    if (folder / record.CONFIG).exists():  # a run of another config is refused before its data are opened
        record.open_run(folder, config, origin or {})
    if (folder / record.SUMMARY).exists():
        _log.info("%s is finished", folder)
        return Run(folder)
    experiment = assemble(config, learnt=record.read_learnt(folder))
    shapes = experiment.abstract_step()
    strategy = strategy_of(config)
    said: list[logging.LogRecord] = []
    with overheard(said):  # before there is a directory: wrong values leave none
        values = None if (folder / record.CONFIG).exists() else experiment.initial_values()
    record.open_run(folder, config, origin or {})
    record.write_learnt(folder, experiment.learnt)
    write_splits(folder, experiment.sources)
    keep_tokenizers(folder, experiment.sources)
    train = config.train
    with Checkpoints(
        folder / record.CHECKPOINTS, keep=train.keep, best=train.best, mode=train.best_mode
    ) as checkpoints:
        with overheard(said):
            state, window, step = restore_or_init(experiment, shapes, strategy, checkpoints, values)
        del values  # as large as the model
        record.write_json(folder / record.ENVIRONMENT, environment.describe(experiment.sources))
        journal = Journal(folder, step, make_sinks(config, folder, step))
        with contextlib.closing(journal), _stop_requests() as stopping:
            say(said)
            log_sampling(experiment.sources, experiment.weights and experiment.weights.rows)
            log_rules(rule_matches(config.optimizer, shapes[0].params))
            _log.info("%s at step %d of %d", "resuming" if step else "starting", step, train.steps)
            plan = make_plan(experiment, shapes[1], strategy, journal, checkpoints, stopping)
            hooks = [*_evaluation(experiment, strategy), *make_hooks(config, data=experiment.data, workdir=folder)]
            run_loop(experiment, strategy, dataclasses.replace(plan, hooks=hooks), state, window, step)
            _log.info("finished at step %d", train.steps)
    record.finish(folder, _summary(config, folder))
    return Run(folder)


def make_plan(
    experiment: Experiment,
    statistics: Statistics,
    strategy: Strategy,
    journal: Journal,
    checkpoints: Checkpoints,
    stopping: Callable[[], bool],
) -> loop.Plan:
    """Return what the loop needs, hooks left out; `statistics` are the shapes of a step's."""
    train = experiment.config.train
    step = experiment.train_step(strategy.batch_axis)

    def summarise_window(window: Window) -> loop.Row:
        return summarise(unpack(strategy.fetch(window), statistics), experiment.metrics, "train")

    def write(at: int, row: loop.Row) -> None:
        journal.write(at, row)
        checkpoints.check()

    def save(at: int, state: TrainState, window: Window, measured: loop.Row) -> None:
        journal.sync()
        checkpoints.save(at, strategy.save_form({"state": state, "window": window}), measured)
        _log.info("saving step %d", at)

    return loop.Plan(
        single=strategy.compile(single(step), donate=True, shapes=len(experiment.config.data.buckets.lengths) or 1),
        several=strategy.compile(several(step), donate=True) if train.steps_per_call > 1 else None,
        length=train.steps_per_call,
        last=train.steps,
        batch_size=train.batch_size,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        best=train.best,
        hooks=(),
        zeros=strategy.init(lambda: jnp.zeros(packed_shape(statistics).shape)),
        replicate=strategy.replicate,
        summarise=summarise_window,
        write=write,
        save=save,
        stopping=stopping,
    )


def run_loop(
    experiment: Experiment, strategy: Strategy, plan: loop.Plan, state: TrainState, window: Window | None, step: int
) -> None:
    """Feed the loop: small batches travel several at a time, and with steps_per_call as many as a call takes."""
    batches = experiment.batches("train", training=True)
    length = plan.length if plan.several is not None else chunk_steps(batches)
    workers = experiment.config.data.workers
    chunks = feed(batches, first=step, last=plan.last, chunk=length, put=strategy.put_chunk, workers=workers)
    with contextlib.closing(chunks):
        first_window = plan.zeros if window is None else window
        loop.run(dataclasses.replace(plan, length=length), state, first_window, step, chunks)


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


def _summary(config: ConfigDict, folder: Path) -> dict[str, Any]:
    """Return the last value of every metric, and the best of the one that chooses the model."""
    rows = record.read_metrics(folder)
    final: dict[str, Any] = {}
    for row in rows:
        final |= row
    measured = [row for row in rows if math.isfinite(row.get(config.train.best, math.nan))]
    choose = max if config.train.best_mode == "max" else min
    best = choose(reversed(measured), key=lambda row: row[config.train.best]) if measured else None  # as checkpoints do
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
        _log.warning("stopping after this step; once more to leave at once")

    try:
        previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread, as in a notebook's worker: its owner handles signals
        previous = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
