"""A checkpoint is the state bit by bit; what a killed or failing writer leaves is never taken for one."""

from __future__ import annotations

import contextlib
import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlab.core.errors import DataError, UsageError
from jaxlab.core.types import TrainState
from jaxlab.train.checkpoint import Checkpoints


def make_state(seed=0, averaged=False):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {"a": {"kernel": jax.random.normal(keys[0], (3, 5))}, "scalar": jnp.float32(1 / 3)}
    optimizer = optax.adamw(optax.cosine_decay_schedule(0.1, 10))
    opt_state = optimizer.init(params)
    gradient = jax.tree.map(lambda x: x * 0.1, params)
    _, opt_state = optimizer.update(gradient, opt_state, params)
    ema = jax.tree.map(lambda x: x * 0.9, params) if averaged else None
    return TrainState(jnp.int32(7), params, {"stats": {"n": jnp.arange(4)}}, opt_state, ema)


def opened(folder, keep=2, best="valid/loss", mode="min", writable=True):
    return Checkpoints(folder, keep=keep, best=best, mode=mode, writable=writable)


def shapes(tree):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def same_bits(one, other):
    same = jax.tree.map(
        lambda a, b: a.dtype == b.dtype and a.tobytes() == b.tobytes(), *map(jax.device_get, (one, other))
    )
    return jax.tree.all(same)


@pytest.mark.parametrize("averaged", [False, True])
def test_a_state_comes_back_bit_by_bit_and_in_its_own_structure(tmp_path, averaged):
    state = make_state(averaged=averaged)
    with opened(tmp_path / "c") as checkpoints:
        checkpoints.save(7, {"state": state}, {})
    with opened(tmp_path / "c", writable=False) as checkpoints:
        found = checkpoints.restore(7, {"state": shapes(state)})["state"]
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert same_bits(found, state)


def test_what_is_saved_is_the_state_of_that_moment_though_its_memory_is_reused(tmp_path):
    advance = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros((256, 256))
    with opened(tmp_path / "c", keep=9) as checkpoints:
        for step in range(3):
            checkpoints.save(step, {"x": x}, {})
            for _ in range(5):
                x = advance(x)
    with opened(tmp_path / "c", writable=False) as checkpoints:
        found = [checkpoints.restore(step, shapes({"x": x}))["x"] for step in range(3)]
    assert [set(np.unique(values)) for values in found] == [{0.0}, {5.0}, {10.0}]


def test_leaving_the_block_by_an_error_keeps_the_save_that_was_under_way(tmp_path):
    state = make_state()
    with contextlib.suppress(ZeroDivisionError), opened(tmp_path / "c") as checkpoints:
        checkpoints.save(3, state, {})
        _ = 1 / 0
    with opened(tmp_path / "c", writable=False) as checkpoints:
        assert same_bits(checkpoints.restore(3, shapes(state)), state)


def test_what_a_killed_writer_left_is_not_seen_and_a_writer_sweeps_it(tmp_path):
    folder, x = tmp_path / "c", {"x": jnp.ones(3)}
    with opened(folder) as checkpoints:
        checkpoints.save(4, x, {})
    temporary = folder / "9.orbax-checkpoint-tmp"
    shutil.copytree(folder / "4", temporary)
    (folder / "12").mkdir()
    with opened(folder, writable=False) as checkpoints:
        assert checkpoints.steps() == [4]
        assert checkpoints.resolve("latest") == 4
    assert temporary.exists()
    with opened(folder) as checkpoints:
        assert checkpoints.steps() == [4]
        assert not temporary.exists()
        assert not (folder / "12").exists()
        for step in (9, 12):
            checkpoints.save(step, x, {})
    with opened(folder, writable=False) as checkpoints:
        assert checkpoints.steps() == [9, 12]


@pytest.mark.parametrize(("mode", "best"), [("min", 3), ("max", 2)])
def test_the_last_few_and_the_best_stay(tmp_path, mode, best):
    values = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.4, 5: 0.6, 6: 0.5}
    with opened(tmp_path / "c", keep=2, best="valid/score", mode=mode) as checkpoints:
        for step, value in values.items():
            checkpoints.save(step, {"x": jnp.float32(step)}, {"valid/score": value, "valid/other": -value})
        checkpoints.save(7, {"x": jnp.float32(7)}, {})  # not measured: does not compete
    with opened(tmp_path / "c", best="valid/score", mode=mode, writable=False) as checkpoints:
        assert checkpoints.steps() == [best, 6, 7]
        assert checkpoints.resolve("best") == best
        assert checkpoints.resolve("latest") == 7
        assert checkpoints.resolve("6") == 6


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_measurement_that_is_not_a_number_is_never_the_best(tmp_path, mode):
    values = {1: 0.5, 2: float("nan"), 3: 0.4 if mode == "min" else 0.6, 4: float("nan"), 5: 0.5, 6: float("nan")}
    with opened(tmp_path / "c", keep=1, mode=mode) as checkpoints:
        for step, value in values.items():
            checkpoints.save(step, {"x": jnp.float32(step)}, {"valid/loss": value})
    with opened(tmp_path / "c", keep=1, mode=mode, writable=False) as checkpoints:
        assert checkpoints.resolve("best") == 3
        assert checkpoints.steps() == [3, 6]


def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with opened(tmp_path / "c") as checkpoints:
        with pytest.raises(DataError, match="holds no checkpoint"):
            checkpoints.resolve("latest")
        checkpoints.save(3, {"x": jnp.ones(2)}, {})
    with opened(tmp_path / "c", writable=False) as checkpoints:
        with pytest.raises(DataError, match=r"--step=5: no such checkpoint; saved: \[3\]"):
            checkpoints.resolve("5")
        with pytest.raises(UsageError, match=r"--step=first: expected best, latest or a number"):
            checkpoints.resolve("first")
        with pytest.raises(DataError, match=r"no checkpoint was measured by 'valid/loss'; steps: \[3\]"):
            checkpoints.resolve("best")


@contextlib.contextmanager
def full_disk(bytes_a_file=100_000):
    """Let every longer write to a file fail, as on a full disk; Python ignores the signal that comes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("noticed", ["check", "next save", "exit"])
def test_a_save_that_fails_in_the_background_is_raised_and_the_one_before_is_intact(tmp_path, noticed):
    first, second = ({"x": jax.random.normal(jax.random.key(seed), (500, 500))} for seed in (1, 2))
    with opened(tmp_path / "c") as checkpoints:
        checkpoints.save(1, first, {})

    def fail():
        with full_disk(), opened(tmp_path / "c") as checkpoints:
            checkpoints.save(2, second, {})
            if noticed == "next save":
                checkpoints.save(3, second, {})
            while noticed == "check":  # pytest's own timeout ends what never raises
                checkpoints.check()
                time.sleep(0.01)

    with pytest.raises((OSError, ValueError), match="File too large"):
        fail()
    with opened(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [1]
        assert same_bits(checkpoints.restore(1, shapes(first)), first)
