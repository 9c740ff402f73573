"""Several seeds of one config, trained in this process by one compilation: all at once, two at a time, or in turn.

Each seed is an ordinary run: `jaxlab train` goes on with it, with other rounding. Initial states are those of a run
alone bit by bit, and so are the data; the steps differ by rounding. A CPU convolves S stacked models slower than one
after another: a short trial of the forms decides. Usage: ``train_seeds(config, {0: "runs/0", 1: "runs/1"})``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.errors import ConfigError, DivergedError
from jaxlab.core.override import override
from jaxlab.core.paths import folder_of
from jaxlab.data.feeding import feed
from jaxlab.run import environment
from jaxlab.run.assemble import Experiment, assemble
from jaxlab.run.host_memory import keep_freed_memory
from jaxlab.run.lanes import Lane, common_step, opened, written
from jaxlab.run.overheard import overheard, say
from jaxlab.run.program import note
from jaxlab.run.seed_programs import (
    Programs,
    chunk_length,
    in_pairs,
    loop_plan,
    one_by_one,
    seeds_of,
    starting,
    together,
    train_batches,
)
from jaxlab.run.seed_trial import fastest, is_tiny
from jaxlab.run.stopping import Stop, stop_requests
from jaxlab.run.train import summary_of
from jaxlab.run.watchdog import watchdog
from jaxlab.train import loop

WORDS = {"together": "as one program", "in_pairs": "two at a time", "in_turn": "in turn"}
FORMS = ("auto", *WORDS)
_log = logging.getLogger("jaxlab")


def train_seeds(
    config: ConfigDict, folders: Mapping[int, str | os.PathLike[str]], form: str = "auto"
) -> dict[int, str]:
    """Train one run a seed, or go on with them; return by seed why it was given up, "" for one that is finished.

    Args:
      config: of all, but for the seed.
      folders: the runs' directories by seed.
      form: together, in_pairs, in_turn, or auto: whichever a short trial finds to be fastest.

    Raises:
      ConfigError: the config cannot be trained so; see `hindrance`.
      UsageError: a directory holds another run.
      PreemptedError: asked to stop; all states are saved.
    """
    problem = hindrance(config, folders)
    if problem:
        raise ConfigError(problem)
    keep_freed_memory()
    with stop_requests() as stop:
        places = {seed: folder_of(folder) for seed, folder in folders.items()}
        missing = {seed: folder for seed, folder in places.items() if not _is_finished(folder, config.train.steps)}
        if not missing:
            return dict.fromkeys(folders, "")
        experiment = assemble(override(config, {"seed": next(iter(missing))}))
        configs = [override(config, {"seed": seed}) for seed in missing]
        with opened(experiment, configs, list(missing.values())) as lanes:
            _train(experiment, lanes, form, stop)
            return dict.fromkeys(folders, "") | {lane.seed: lane.problem for lane in lanes}


def hindrance(config: ConfigDict, seeds: Mapping[int, Any]) -> str:
    """Return why seeds of this config cannot share a program, or "" where they can."""
    outside = [seed for seed in seeds if not 0 <= seed < 2**32]
    sizes = {axis: size for axis, size in config.parallel.mesh.items() if axis != "data" and size != 1}
    for path, hinders, expected in (
        ("seed", bool(outside), "0 to 2**32 - 1"),
        ("parallel.strategy", config.parallel.strategy != "jit", "jit"),
        (f"parallel.mesh.{next(iter(sizes), '')}", bool(sizes), "1, devices along data alone"),
        ("parallel.offload", bool(config.parallel.offload), "''"),
        ("data.buckets.lengths", bool(config.data.buckets.lengths), "(), batches of one length"),
        ("train.non_finite", config.train.non_finite == "rollback", "abort or skip"),
        ("deterministic", config.deterministic, "false"),
    ):
        if hinders:
            return f"config.{path}: seeds that share a program need {expected}"
    return "" if jax.process_count() == 1 else "seeds share a program in one process alone"


def _is_finished(folder: Path, steps: int) -> bool:
    done = record.read_json(folder / record.SUMMARY)
    return bool(done) and done["step"] >= steps


def _train(experiment: Experiment, lanes: Sequence[Lane], form: str, stop: Stop) -> None:
    """Choose the form, and train all lanes or one after another."""
    said: list[logging.LogRecord] = []
    with overheard(said):
        chosen = _chosen(experiment, lanes, form)
    receipt = environment.describe(experiment.sources)
    receipt |= {"seeds": [lane.seed for lane in lanes], "form": chosen.form}
    stop.wait_for_step()
    trained: list[Lane] = []
    for group in _groups(lanes, chosen):
        try:
            with contextlib.suppress(DivergedError):  # each lane says so itself
                _train_group(experiment, chosen, group, receipt, said, stop)
        finally:  # the last checkpoints of those before have come to the disk meanwhile
            _finish(trained)
        trained = group
    _finish(trained)


def _finish(lanes: Sequence[Lane]) -> None:
    """Write down that lanes are done, once all that they saved is there."""
    for lane in lanes:
        if not lane.problem:
            lane.checkpoints.wait()
            record.finish(lane.folder, summary_of(lane.config, lane.folder))


def _groups(lanes: Sequence[Lane], programs: Programs) -> Iterator[list[Lane]]:
    """Yield the lanes that train at once: all, or as many as there may be of those that go on from the same step."""
    if programs.form == "together":
        yield list(lanes)
        return
    for _, same in itertools.groupby(sorted(lanes, key=_latest), _latest):
        group = list(same)
        yield from (group[first : first + programs.count] for first in range(0, len(group), programs.count))


def _latest(lane: Lane) -> int:
    return common_step([lane])


def _chosen(experiment: Experiment, lanes: Sequence[Lane], form: str) -> Programs:
    """Return the programs of the form that is asked for, or found to be the fastest."""
    if form == "together" or (form == "auto" and len(lanes) > 1 and is_tiny(experiment)):
        return together(experiment, len(lanes))
    alone = one_by_one(experiment)
    if form == "in_turn" or len(lanes) == 1:
        return alone
    if form == "in_pairs":
        return in_pairs(alone)
    found = fastest(experiment, alone, lanes)
    _log.info("%d seeds train %s, which is fastest here", len(lanes), WORDS[found.form])
    return found


def _train_group(
    experiment: Experiment,
    programs: Programs,
    lanes: list[Lane],
    receipt: Mapping[str, Any],
    said: list[logging.LogRecord],
    stop: Stop,
) -> None:
    """Train the lanes of one program to their end."""
    train = experiment.config.train
    step = common_step(lanes)
    values = {} if step else experiment.initial_values()
    state, window = starting(programs, lanes, values, step)
    log = lanes[0].folder / record.LOG
    with written(lanes, step, receipt), watchdog(train.watchdog, step, log, lambda problem: None) as progress:
        say(said)
        _log.info("%s at step %d of %d", "resuming" if step else "starting", step, train.steps)
        batches = train_batches(experiment, programs, lanes)
        plan = loop_plan(experiment, programs, lanes, progress, stop)
        plan = dataclasses.replace(plan, length=chunk_length(plan, batches))
        feeding = {"first": step, "last": train.steps, "chunk": plan.length, "workers": experiment.config.data.workers}
        with contextlib.closing(feed(batches, put=programs.put, **feeding)) as chunks:
            loop.run(plan, state, window, step, _noted(programs, lanes, plan, (state, window, step), chunks))


def _noted(
    programs: Programs, lanes: Sequence[Lane], plan: loop.Plan, begin: tuple[Any, Any, int], chunks: loop.Chunks
) -> loop.Chunks:
    """Yield the chunks, and write down the fingerprint of the program before the first."""
    state, window, step = begin
    first = list(itertools.islice(chunks, 1))
    for _, chunk in first:
        last = () if plan.several is None else (programs.put_shared(np.int32(step)),)
        text = programs.step.lower(state, window, seeds_of(programs, lanes), chunk, *last).as_text()
        for lane in lanes:
            note(lane.folder, step, text)
    yield from itertools.chain(first, chunks)
