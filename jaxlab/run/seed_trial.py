"""A short trial of the ways to train several seeds: as one program, or by one for each, two at a time or in turn.

Usage: ``programs = fastest(experiment, one_by_one(experiment), lanes)``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from jaxlab.run.assemble import Experiment
from jaxlab.run.environment import available_cpus
from jaxlab.run.flops import flops_of
from jaxlab.run.lanes import Lane
from jaxlab.run.seed_programs import Programs, in_pairs, seeds_of, starting, steps_of, together, train_batches

_SECONDS, _LEAST, _MOST = 0.2, 3, 50  # of a timing, and calls in it
_ROUNDS = 2  # of which the fastest counts: what else the machine does only slows
_LONG = 5e-3  # seconds of a step on a CPU beside which its dispatch, all that a stack could save there, is nothing
_TINY = 2e6  # operations of a step that takes less than its dispatch, anywhere


def is_tiny(experiment: Experiment) -> bool:
    """Say whether a step is mostly dispatch, so that all seeds at once cannot but win and a trial would only cost."""
    return flops_of(experiment) < _TINY


def fastest(experiment: Experiment, alone: Programs, lanes: Sequence[Lane]) -> Programs:
    """Return `alone`, or the programs of another form by which a seed's step takes less; changes no run."""
    each = _seconds(experiment, alone, lanes[:1])
    found = [(each, alone)]
    on_a_cpu = jax.default_backend() == "cpu"
    if on_a_cpu and available_cpus() > 1 and len(jax.devices()) == 1:
        pairs = in_pairs(alone)
        found.append((_seconds(experiment, pairs, lanes[:2]) / 2, pairs))
    if not on_a_cpu or each < _LONG:
        stacked = together(experiment, len(lanes))
        found.append((_seconds(experiment, stacked, lanes) / len(lanes), stacked))
    return min(found, key=lambda timed: timed[0])[1]


def _seconds(experiment: Experiment, programs: Programs, lanes: Sequence[Lane]) -> float:
    """Return how long a step takes."""
    state, window = starting(programs, lanes, MappingProxyType({}), 0)
    seeds, several = seeds_of(programs, lanes), experiment.config.train.steps_per_call
    batches = train_batches(experiment, programs, lanes)
    chunk = programs.put(batches.chunk(0, several if several > 1 else steps_of(batches)))
    best, taken = float("inf"), 0

    def call(state: Any, window: Any, step: int) -> tuple[Any, Any]:
        last = (programs.put_shared(np.int32(step + several)),) if several > 1 else ()
        return programs.step(state, window, seeds, chunk, *last)

    state, window = jax.block_until_ready(call(state, window, 0))
    for _ in range(_ROUNDS):
        began, calls = time.perf_counter(), 0
        while calls < _LEAST or (time.perf_counter() - began < _SECONDS and calls < _MOST):
            taken, calls = taken + several, calls + 1
            state, window = jax.block_until_ready(call(state, window, taken))
        best = min(best, (time.perf_counter() - began) / (calls * several))
    return best
