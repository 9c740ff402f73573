"""A checkpoint is the state bit by bit; what a killed or failing writer leaves is never taken for one."""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train_helpers import kill, start

from jaxlab.core.errors import ConfigError, CorruptError, DataError, JaxlabError, UsageError
from jaxlab.core.types import TrainState
from jaxlab.train import disk
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

    with pytest.raises(JaxlabError, match=r"step 2 was not saved: .*File too large; what was saved before is whole"):
        fail()
    with opened(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [1]
        assert same_bits(checkpoints.restore(1, shapes(first)), first)


def make_saved(folder, steps=(1, 2, 3), **options):
    trees = {step: {"state": {"params": {"kernel": jnp.full((4, 3), step, jnp.float32)}}} for step in steps}
    with opened(folder, keep=9, **options) as checkpoints:
        for step, tree in trees.items():
            checkpoints.save(step, tree, {"valid/loss": 1 / step})
    return trees


DAMAGES = {
    "flipped bit": lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 4]) + file.read_bytes()[1:]),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "deleted": lambda file: file.unlink(),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_an_error_that_names_it_and_the_leaf_and_the_way_on(tmp_path, damage):
    trees = make_saved(tmp_path / "c")
    file = next((tmp_path / "c" / "3").rglob("state.params.kernel/0.0"))
    DAMAGES[damage](file)
    with opened(tmp_path / "c", writable=False) as checkpoints:
        with pytest.raises(CorruptError) as caught:
            checkpoints.restore(3, shapes(trees[3]))
        for part in (str(file), "(it holds state/params/kernel)", "other checkpoints: [1, 2]", "--fallback"):
            assert part in str(caught.value)
        assert same_bits(checkpoints.restore(2, shapes(trees[2])), trees[2])


def test_with_fallback_the_newest_intact_one_is_used_loudly(tmp_path, caplog):
    trees = make_saved(tmp_path / "c")
    for step in (2, 3):
        next((tmp_path / "c" / str(step)).rglob("state.params.kernel/0.0")).write_bytes(b"")
    with opened(tmp_path / "c") as checkpoints:
        with pytest.raises(CorruptError, match="step 3 is damaged"):
            checkpoints.restore_newest(shapes(trees[1]), fallback=False)
        step, tree = checkpoints.restore_newest(shapes(trees[1]), fallback=True)
        assert (step, same_bits(tree, trees[1])) == (1, True)
        assert [record.message.split(" is ")[0] for record in caplog.records] == [
            f"the checkpoint of step {n}" for n in (3, 2)
        ]
        checkpoints.save(3, trees[2], {})  # the training comes by the damaged step again
        checkpoints.wait()
        assert same_bits(checkpoints.restore(3, shapes(trees[2])), trees[2])


def test_a_step_without_a_manifest_is_none_and_one_with_a_broken_manifest_is_damaged(tmp_path):
    trees = make_saved(tmp_path / "c")
    (tmp_path / "c" / "3" / "manifest.json").unlink()
    (tmp_path / "c" / "2" / "manifest.json").write_text("{")
    with opened(tmp_path / "c", writable=False) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        with pytest.raises(CorruptError, match=r"manifest\.json is not what was written"):
            checkpoints.restore(2, shapes(trees[2]))
        assert checkpoints.resolve("best") == 1


def test_orbax_alone_reads_what_was_saved(tmp_path):
    import orbax.checkpoint as ocp

    trees = make_saved(tmp_path / "c")
    with ocp.CheckpointManager(tmp_path / "c") as manager:
        assert manager.latest_step() == 3
        found = manager.restore(3, args=ocp.args.PyTreeRestore())
    np.testing.assert_array_equal(found["state"]["params"]["kernel"], trees[3]["state"]["params"]["kernel"])


@pytest.mark.parametrize(
    ("like", "problem"),
    [
        (jnp.zeros((4, 3), jnp.bfloat16), r"state/params/kernel is float32\[4, 3\]; expected bfloat16\[4, 3\]"),
        (jnp.zeros((4, 4)), r"state/params/kernel is float32\[4, 3\]; expected float32\[4, 4\]"),
    ],
)
def test_another_dtype_or_shape_is_refused_where_orbax_would_cast(tmp_path, like, problem):
    make_saved(tmp_path / "c")
    with opened(tmp_path / "c", writable=False) as checkpoints:
        with pytest.raises(DataError, match=problem):
            checkpoints.restore(3, {"state": {"params": {"kernel": like}}})
        with pytest.raises(DataError, match="holds no 'state/params/kernels'; did you mean 'state/params/kernel'"):
            checkpoints.restore(3, {"state": {"params": {"kernels": like}}})


def test_every_dtype_comes_back_bit_by_bit(tmp_path):
    words = np.random.default_rng(0).integers(0, 2**32, (8, 8), dtype=np.uint32)
    tree = {
        "float": jnp.asarray(words.view(np.float32)), "half": jnp.asarray(words.view(np.uint16)).view(jnp.bfloat16),
        "int": jnp.asarray(words.view(np.int32)), "word": jnp.asarray(words), "flag": jnp.asarray(words % 2 == 0),
        "scalar": jnp.uint32(7),
    }  # fmt: skip
    with opened(tmp_path / "c") as checkpoints:
        checkpoints.save(1, tree, {})
    with opened(tmp_path / "c", writable=False) as checkpoints:
        assert same_bits(checkpoints.restore(1, shapes(tree)), tree)


@hypothesis.given(
    st.lists(st.one_of(st.none(), st.just(float("nan")), st.sampled_from([0.1, 0.2, 0.3])), min_size=1, max_size=6),
    st.integers(1, 3),
    st.sampled_from(["min", "max"]),
)
@hypothesis.settings(max_examples=15, deadline=None)
def test_retention_keeps_the_latest_few_and_the_best_of_those_measured(values, keep, mode):
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), keep=keep, mode=mode) as checkpoints:
        for step, value in enumerate(values):
            checkpoints.save(step, {"x": jnp.float32(step)}, {} if value is None else {"valid/loss": value})
        checkpoints.wait()
        assert set(checkpoints.steps()) == expected_steps(values, keep, mode)


def expected_steps(values, keep, mode):
    """Go through the saves one by one: what has been removed cannot be the best later."""
    there = []
    for step in range(len(values)):
        there.append(step)
        measured = [s for s in there if values[s] is not None and values[s] == values[s]]
        choose = max if mode == "max" else min
        best = {choose(reversed(measured), key=lambda s: values[s])} if measured else set()
        there = [s for s in there if s in {*there[-keep:], *best}]
    return set(there)


def test_a_save_that_has_no_room_is_refused_before_it_begins(tmp_path, monkeypatch):
    trees = make_saved(tmp_path / "c", steps=(1,))
    with opened(tmp_path / "c") as checkpoints:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**6))
        with pytest.raises(JaxlabError, match=r"no room to save step 2: it takes 16\.8 MB"):
            checkpoints.save(2, trees[1], {})
        assert same_bits(checkpoints.restore(1, shapes(trees[1])), trees[1])
    with pytest.raises(ConfigError, match=r"config\.train\.keep=2: that many .* has 1\.0 MB free"):
        disk.check_run(tmp_path / "none" / "c", 2, 10**6)


SAVER = """
import sys
from pathlib import Path
import jax.numpy as jnp
from jaxlab.train.checkpoint import Checkpoints
with Checkpoints(Path(sys.argv[1]), keep=2, best=None, mode="min") as checkpoints:
    step = max(checkpoints.steps(), default=0)
    print("ready", flush=True)
    while True:
        step += 1
        checkpoints.save(step, {f"x{i}": jnp.full((200, 200), step, jnp.float32) for i in range(5)}, {})
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_only_whole_checkpoints(tmp_path):
    chance, like, last = random.Random(0), {f"x{i}": jnp.zeros((200, 200)) for i in range(5)}, 0
    for _ in range(3):
        process = start("-c", SAVER, str(tmp_path / "c"))
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.3, 1.0))
        kill(process)
        with opened(tmp_path / "c", best=None, writable=False) as checkpoints:
            steps = checkpoints.steps()
            assert steps
            assert steps[-1] >= last
            last = steps[-1]
            for step in steps:
                tree = checkpoints.restore(step, shapes(like))
                assert all(np.unique(x).tolist() == [step] for x in tree.values())
