"""The ``train`` command: from a config and a directory to a finished run, or on from where it was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.errors import PreemptedError, UsageError
from jaxlab.core.paths import folder_of
from jaxlab.run import environment
from jaxlab.run.assemble import Experiment, assemble, make_hooks, make_sinks, strategy_of
from jaxlab.run.continuing import Fork, allowed_changes, check_fork, read_fork, write_changes
from jaxlab.run.deterministic import make_deterministic, say_cost
from jaxlab.run.host_memory import keep_freed_memory
from jaxlab.run.incident import Position
from jaxlab.run.journal import IDS, Journal, Unwritten
from jaxlab.run.lock import one_writer
from jaxlab.run.optimizer import log_rules, rule_matches
from jaxlab.run.overheard import overheard, say
from jaxlab.run.peers import Alone, together
from jaxlab.run.placing import log_placement
from jaxlab.run.plan import make_plan, validation
from jaxlab.run.restore import restore_or_init
from jaxlab.run.result import Run
from jaxlab.run.rollback import train_through
from jaxlab.run.sources import keep_tokenizers, log_sampling, write_splits
from jaxlab.run.spikes import SpikeAlarm
from jaxlab.run.stopping import Judge, Stop, stop_requests
from jaxlab.run.watchdog import watchdog
from jaxlab.train import across, disk, loop
from jaxlab.train.board import number
from jaxlab.train.checkpoint import Checkpoints

_log = logging.getLogger("jaxlab")


def train(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    origin: Mapping[str, Any] | None = None,
    *,
    fork_from: str | None = None,
    fallback: bool = False,
    judge: Judge | None = None,
) -> Run:
    """Train, resume, or say that the run is finished; return the run.

    Args:
      config: complete, as `jaxlab.load_config` returns it. Of a run that was begun, only what says how long, how often
        and where to may differ.
      workdir: the run's directory; made if need be.
      origin: the config file and overrides, kept in ``overrides.json``.
      fork_from: ``RUN@STEP`` (or best, latest): a new run begins from that state instead of a random one.
      fallback: whether to go on from the newest intact checkpoint where the latest is damaged.
      judge: is shown each row with its step, and says whether the run is to save and stop, as a signal does.

    Raises:
      UsageError: the directory holds another run, or another process writes it.
      ConfigError, DataError: before any device work.
      CorruptError: the latest checkpoint is damaged.
      DivergedError: the loss is no longer finite.
      PreemptedError: asked to stop by SIGTERM, SIGINT or the judge; the state is saved.
    """
    keep_freed_memory()
    if config.deterministic:
        make_deterministic()
    folder = folder_of(workdir)
    fork = read_fork(fork_from, folder) if fork_from else None
    with contextlib.ExitStack() as stack, stop_requests(judge) as stop, together(stop) as peers:
        try:
            if peers.told((folder / record.CONFIG).exists):
                _go_on(folder, config, fork, fallback, stop, peers, stack)
            else:
                _begin(folder, config, {**(origin or {}), **_origin_of(fork)}, stop, peers, stack)
            across.share()  # the summary
        except Exception as error:
            if stop.asked() and not stop.stepping and not isinstance(error, PreemptedError):
                raise PreemptedError("stopped before the first step; run the same command to go on") from error
            raise
    return Run(folder)


def _origin_of(fork: Fork | None) -> dict[str, Any]:
    return {} if fork is None else {"fork": {"run": str(fork.run), "step": fork.step}}


def _go_on(
    folder: Path,
    config: ConfigDict,
    fork: Fork | None,
    fallback: bool,
    stop: Stop,
    peers: Alone,
    stack: contextlib.ExitStack,
) -> None:
    """Resume the run at `folder`; a run of another config is refused before its data are opened."""
    changes = allowed_changes(folder, config)
    check_fork(folder, fork)
    done = record.read_json(folder / record.SUMMARY)
    if done and config.train.steps <= done["step"]:
        if config.train.steps < done["step"]:
            raise UsageError(f"config.train.steps={config.train.steps}: the run has taken {done['step']} already")
        _log.info("%s is finished", folder)
        return
    if across.writes():
        stack.enter_context(one_writer(folder))
    experiment = assemble(config, learnt=record.read_learnt(folder))
    _train(folder, experiment, [], stop, peers, values=None, changes=changes, fallback=fallback)


def _begin(
    folder: Path, config: ConfigDict, origin: Mapping[str, Any], stop: Stop, peers: Alone, stack: contextlib.ExitStack
) -> None:
    """Make the run at `folder`; what cannot be trained leaves no directory."""
    if across.writes():
        record.check_free(folder)
    experiment = assemble(config)
    state, _ = experiment.abstract_step()
    strategy_of(config).placed(state)  # a rule that does not fit is told now
    disk.check_run(folder / record.CHECKPOINTS, config.train.keep, disk.bytes_of(jax.tree.leaves(state)))
    said: list[logging.LogRecord] = []
    with overheard(said):
        values = experiment.initial_values()
    if across.writes():
        open_folder(folder, experiment, origin, stack)
    across.share()
    if not (folder / record.CONFIG).exists():
        raise UsageError(f"{folder} is another directory here than for process 0; expected one that all processes see")
    _train(folder, experiment, said, stop, peers, values=values, changes={}, fallback=False)


def open_folder(folder: Path, experiment: Experiment, origin: Mapping[str, Any], stack: contextlib.ExitStack) -> None:
    """Write what stands in a run's directory from the beginning."""
    record.claim(folder)
    stack.enter_context(one_writer(folder))
    if (folder / record.CONFIG).exists():
        raise UsageError(f"{folder} was begun by another process meanwhile; run the same command again")
    record.open_run(folder, experiment.config, origin)
    record.write_learnt(folder, experiment.learnt)
    write_splits(folder, experiment.sources)
    keep_tokenizers(folder, experiment.sources)


def _shown(write: Callable[[int, loop.Row], None], stop: Stop) -> Callable[[int, loop.Row], None]:
    """Return `write`, showing each row to the run's judge."""

    def written(step: int, row: loop.Row) -> None:
        write(step, row)
        stop.look(step, row)

    return written


def _train(
    folder: Path,
    experiment: Experiment,
    said: list[logging.LogRecord],
    stop: Stop,
    peers: Alone,
    *,
    values: Mapping[str, Any] | None,
    changes: Mapping[str, tuple[Any, Any]],
    fallback: bool,
) -> None:
    config, train = experiment.config, experiment.config.train
    shapes, strategy = experiment.abstract_step(), strategy_of(config)
    kept = Checkpoints(folder / record.CHECKPOINTS, keep=train.keep, best=train.best, mode=train.best_mode)
    with kept as checkpoints, peers.guarded():
        with overheard(said):
            state, window, step = restore_or_init(folder, experiment, shapes, strategy, checkpoints, values, fallback)
        del values  # as large as the model
        if step > train.steps:
            raise UsageError(f"config.train.steps={train.steps}: the run has taken {step} already")
        earlier = [row["train/loss"] for row in record.read_metrics(folder) if "train/loss" in row]
        peers.barrier()  # all have read what process 0 may change now
        if across.writes():
            write_changes(folder, config, changes, step)
            (folder / record.SUMMARY).unlink(missing_ok=True)  # of a run that gets more steps
        journal = Journal(folder, step, make_sinks(config, folder, step)) if across.writes() else Unwritten(number())
        log = folder / record.LOG if across.writes() else None
        with contextlib.closing(journal), watchdog(train.watchdog, step, log, peers.last_words) as progress:
            say(said)
            log_placement(strategy.placed(shapes[0]))
            _say_start(experiment, shapes[0].params, step, changes, peers.table)
            alarm = SpikeAlarm(train.spike, earlier)
            plan = make_plan(experiment, shapes[1], strategy, journal, checkpoints, alarm)
            hooks = [*validation(experiment, strategy), *make_hooks(config, data=experiment.data, workdir=folder)]
            write = _shown(plan.write, stop)
            plan = dataclasses.replace(plan, hooks=hooks, progress=progress, stopping=peers.stopping, write=write)
            if across.writes():  # last, as it names the modules in use, those of sinks and hooks among them
                record.write_json(folder / record.ENVIRONMENT, environment.describe(experiment.sources))

            def begin() -> Position:
                state, window, step = restore_or_init(folder, experiment, shapes, strategy, checkpoints, None, fallback)
                return Position(state, plan.zeros if window is None else window, step)

            first = Position(state, plan.zeros if window is None else window, step)
            del state, window  # the loop reuses their memory
            stop.wait_for_step()
            train_through(folder, experiment, strategy, plan, first, begin, journal)
            _log.info("finished at step %d", train.steps)
    if across.writes():
        record.finish(folder, summary_of(config, folder))


def _say_start(
    experiment: Experiment, params: Any, step: int, changes: Mapping[str, tuple[Any, Any]], table: str
) -> None:
    config = experiment.config
    if table:
        _log.info("%s", table)
    log_sampling(experiment.sources, experiment.weights and experiment.weights.rows)
    log_rules(rule_matches(config.optimizer, params))
    if config.deterministic:
        say_cost()
    for path, (old, new) in changes.items():
        _log.info("config.%s: %r until now, %r from here on", path, old, new)
    _log.info("%s at step %d of %d", "resuming" if step else "starting", step, config.train.steps)


def summary_of(config: ConfigDict, folder: Path) -> dict[str, Any]:
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
        "metrics": {name: value for name, value in final.items() if "/" in name and name != IDS},
        "best": best and {"metric": config.train.best, "value": best[config.train.best], "step": best["step"]},
    }
