"""The loop guards a run: against compiling twice, silent transfers, errors elsewhere, and a loss that is no number."""

from __future__ import annotations

import dataclasses
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from train_helpers import ROOT, command, finish, rows, saved, saved_steps

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import DivergedError
from jaxlab.core.types import Periodic, TrainState
from jaxlab.data.feeding import prefetch
from jaxlab.train import loop
from jaxlab.train.compilation import RecompilationWarning, watch_compilations
from jaxlab.train.parallel import make_strategy
from jaxlab.train.window import open_window, single

ENDS = {"steps": 24, "log_every": 5, "eval_every": 11, "checkpoint_every": 13}


def shortened(config, **settings):
    with config.unlocked():
        config.train.update({**ENDS, **settings})
    return config


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name == "jaxlab-prefetch"]


def counting_step(state, batch):
    """A step that adds up a field; it stands for a model's in tests of the loop alone."""
    total = {"loss": {"sum": jnp.sum(batch["x"]), "weight": jnp.sum(batch["mask"])}}
    return state.replace(step=state.step + 1, params=state.params + total["loss"]["sum"]), total


def make_plan(**changes):
    strategy = make_strategy("jit", {"data": 1}, jax.devices())
    written = []
    zeros = strategy.init(lambda: open_window({"loss": dict.fromkeys(("sum", "weight"), jnp.zeros(()))}))

    def summarise(window):
        total, weight = strategy.fetch(window).sums
        return {"train/loss": float(total / weight)}

    plan = loop.Plan(
        single=strategy.compile(single(counting_step, None), donate=True), several=None, length=1, last=6, batch_size=2,
        replicate=strategy.replicate,
        log_every=2, checkpoint_every=100, best="valid/loss", hooks=(), zeros=zeros, summarise=summarise,
        write=lambda step, row: written.append((step, row["train/loss"])),
        save=lambda *_: None, progress=lambda step: None, stopping=lambda step: False,
    )  # fmt: skip
    return dataclasses.replace(plan, **changes), written, strategy


def run_plan(plan, strategy, put, batch=lambda step: np.full(2, step, np.float32)):
    state = strategy.init(lambda: TrainState(jnp.int32(0), jnp.zeros(()), {}, (), None))
    host = (
        {"x": batch(step)[None], "mask": np.ones((1, len(batch(step))), np.float32), "id": np.zeros((1, 2), np.int32)}
        for step in range(plan.last)
    )
    return loop.run(plan, state, plan.zeros, 0, ((step, put(chunk)) for step, chunk in enumerate(host)))


def test_rows_are_means_over_their_windows_and_nothing_of_the_next():
    plan, written, strategy = make_plan(last=5)
    state = run_plan(plan, strategy, strategy.put_chunk)
    assert written == [(2, 0.5), (4, 2.5), (5, 4.0)]
    assert float(state.params) == 2 * sum(range(5))


def test_rows_come_in_order_and_at_most_some_calls_late():
    called, late = [], []
    plan, _, strategy = make_plan(last=30, log_every=3)
    single = plan.single

    def counted(*arguments):
        called.append(None)
        return single(*arguments)

    plan = dataclasses.replace(plan, single=counted, write=lambda step, row: late.append((step, len(called) - step)))
    run_plan(plan, strategy, strategy.put_chunk)
    assert [step for step, _ in late] == list(range(3, 31, 3))
    assert max(behind for _, behind in late) == loop.AHEAD
    assert late[-1] == (30, 0)


def test_a_batch_that_is_still_on_the_host_is_refused_instead_of_moved_in_silence():
    plan, _, strategy = make_plan()
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run_plan(plan, strategy, put=lambda chunk: chunk)


def test_a_hook_may_move_what_it_likes():
    seen = []
    hook = Periodic(2, lambda step, state: seen.append(float(jnp.asarray(np.ones(3)).sum() + state.params)))
    plan, _, strategy = make_plan(hooks=(hook,))
    run_plan(plan, strategy, strategy.put_chunk)
    assert seen == [5.0, 15.0, 33.0]


def test_a_second_compilation_is_an_alarm_that_names_the_shapes():
    plan, _, strategy = make_plan(last=2)
    with pytest.warns(
        RecompilationWarning, match=r"advance is compiled again: .*x: float32\[1, 2\] -> float32\[1, 3\]"
    ):
        run_plan(plan, strategy, strategy.put_chunk, batch=lambda step: np.zeros(2 + step, np.float32))


@pytest.mark.parametrize("per_call", [1, 4])
def test_a_normal_run_traces_each_of_its_programs_once(tmp_path, monkeypatch, per_call):
    traced = []

    def watch(function, expected):
        def noted(*arguments):
            traced.append(function.__qualname__)
            return function(*arguments)

        noted.__qualname__ = function.__qualname__
        return watch_compilations(noted, expected)

    monkeypatch.setattr("jaxlab.train.jit.watch_compilations", watch)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecompilationWarning)
        jaxlab.train(shortened(tiny.mlp(), steps_per_call=per_call), tmp_path / "run")
    advance = "several.<locals>.advance_to" if per_call > 1 else "single.<locals>.advance"
    assert {name: traced.count(name) for name in traced} == {
        advance: 1, "intact": 1, "_statistics_only.<locals>.<lambda>": 1,
    }  # fmt: skip


def test_the_thread_that_fetches_ends_with_the_loop(tmp_path):
    jaxlab.train(shortened(tiny.mlp()), tmp_path / "run")
    assert not prefetching()


def test_the_thread_that_fetches_ends_when_its_reader_leaves_early():
    items = prefetch(iter(range(1000)))
    assert [next(items), next(items)] == [0, 1]
    assert len(prefetching()) == 1
    items.close()
    assert not prefetching()


def test_a_hook_that_raises_ends_the_run_with_its_error_and_the_run_goes_on_from_the_last_checkpoint(tmp_path):
    config = tiny.mlp()
    config.hooks.breaking = jaxlab.spec("tiny:breaking_hook", at=17)
    with pytest.raises(RuntimeError, match="the hook broke at 17"):
        jaxlab.train(shortened(config), tmp_path / "run")
    assert not prefetching()
    assert saved_steps(tmp_path / "run") == [11, 13]
    assert saved(tmp_path / "run")["state/step"] == 13
    assert rows(tmp_path / "run")[-1]["step"] == 15
    assert not (tmp_path / "run" / record.SUMMARY).exists()


def test_a_source_that_raises_while_it_is_read_ahead_ends_the_run_with_its_error(tmp_path):
    config = shortened(tiny.mlp(), steps=1000, checkpoint_every=40)
    with config.unlocked():
        config.data.train = jaxlab.spec("tiny:breaking_source", after=500 * 32)
    with pytest.raises(OSError, match="the disk is gone"):
        jaxlab.train(config, tmp_path / "run")
    assert not prefetching()
    steps = saved_steps(tmp_path / "run")
    assert steps
    assert saved(tmp_path / "run")["state/step"] == steps[-1]


def test_a_loss_that_is_no_number_ends_the_run_and_is_never_saved(tmp_path):
    config = shortened(tiny.mlp(), log_every=20, checkpoint_every=3, eval_every=100)
    config.optimizer = jaxlab.spec("tiny:exploding", at=8)
    with pytest.raises(DivergedError, match="the loss is nan in the steps up to 9"):
        jaxlab.train(config, tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [3, 6]
    assert all(np.isfinite(x).all() for x in saved(tmp_path / "run").values())
    assert not (tmp_path / "run" / record.SUMMARY).exists()


@pytest.mark.slow
def test_a_run_that_diverges_ends_the_command_with_code_3(tmp_path):
    process = command(
        "train", f"--config={ROOT / 'tests/train/tiny.py'}", f"--workdir={tmp_path / 'run'}",
        "--config.optimizer.learning_rate=1e38", "--config.train.steps=20",
    )  # fmt: skip
    code, output, errors = finish(process)
    assert code == 3, errors
    assert "error: the loss is nan" in errors
    assert output == ""
