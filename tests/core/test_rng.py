"""Randomness is a function of (seed, stream, counters), in every process, and of nothing else."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from jaxlab.core import rng

COORDINATES = list(itertools.product((0, 1, 2**31), ("dropout", "order", "a", "b"), (0, 1, 2**31 - 1)))


def key_data(seed: int, stream: str, step: int) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(rng.key(seed, stream, step))).tolist())


def host_draw(seed: int, stream: str, *counters: int) -> float:
    return float(rng.host(seed, stream, *counters).random())


def test_another_process_with_another_hash_seed_gets_the_same_randomness():
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import test_rng as t\n"
        "print(json.dumps([[t.key_data(*c), t.host_draw(*c)] for c in t.COORDINATES]))"
    )
    here = Path(__file__)
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(here.parents[2]), "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code, str(here.parent)], env=environment, capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == [[list(key_data(*c)), host_draw(*c)] for c in COORDINATES]


def test_every_seed_stream_and_step_has_its_own_key():
    assert len({key_data(*coordinates) for coordinates in COORDINATES}) == len(COORDINATES)


def test_every_seed_stream_and_counter_has_its_own_host_generator():
    assert len({host_draw(*coordinates) for coordinates in COORDINATES}) == len(COORDINATES)


def test_a_host_stream_with_more_counters_is_another_stream_even_where_they_are_zero():
    assert len({host_draw(0, "order"), host_draw(0, "order", 0), host_draw(0, "order", 0, 0)}) == 3


def test_the_key_of_a_traced_step_is_the_key_of_the_step():
    traced = jax.jit(lambda step: jax.random.key_data(rng.key(5, "dropout", step)))(7)
    assert tuple(np.asarray(traced).tolist()) == key_data(5, "dropout", 7)


def test_asking_again_gives_the_same_and_does_not_advance_anything():
    first = rng.host(3, "order", 1)
    first.random(100)
    assert host_draw(3, "order", 1) == host_draw(3, "order", 1) != float(first.random())
