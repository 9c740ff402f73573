"""A run directory has one writer, a run goes on under its own config, and a fork begins from another's state."""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest
import tiny
from train_helpers import ROOT, command, finish, kill, rows, same_bits, saved

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import ConfigError, DataError, UsageError
from jaxlab.run.lock import one_writer

TINY = str(ROOT / "tests/train/tiny.py")


def make_config(**settings):
    config = tiny.mlp()
    config.train.update({"steps": 30, **settings})
    return config


def test_a_second_process_is_refused_by_the_name_of_the_first(tmp_path):
    with one_writer(tmp_path), pytest.raises(UsageError, match=r"is being written by process \d+ on .*since"):
        one_writer(tmp_path).__enter__()
    assert not (tmp_path / record.LOCK).exists()


def test_a_lock_whose_holder_is_gone_is_taken_over(tmp_path, caplog):
    (tmp_path / record.LOCK).write_text(json.dumps({"host": "far", "pid": 1, "since": "then"}))
    with one_writer(tmp_path):
        assert "process 1 on far (since then), which is gone" in caplog.text
        assert json.loads((tmp_path / record.LOCK).read_text())["host"] != "far"


def wait_for_writer(workdir, process):
    """Wait until the process holds the lock and has written rows."""
    deadline = time.monotonic() + 90
    before = len(rows(workdir))
    while record.read_json(workdir / record.LOCK).get("pid") != process.pid or len(rows(workdir)) <= before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_two_trainings_of_one_directory_are_one_and_a_killed_one_leaves_no_lock(tmp_path):
    arguments = ("train", f"--config={TINY}", f"--workdir={tmp_path / 'run'}", "--config.train.steps=1000000")
    first = command(*arguments)
    wait_for_writer(tmp_path / "run", first)
    code, output, errors = finish(command(*arguments))
    assert code == 2, errors
    assert output == ""
    assert f"is being written by process {first.pid} on" in errors
    kill(first)
    assert (tmp_path / "run" / record.LOCK).exists()
    third = command(*arguments)
    wait_for_writer(tmp_path / "run", third)
    third.send_signal(signal.SIGTERM)
    code, _, errors = finish(third)
    assert code == 75, errors
    assert not (tmp_path / "run" / record.LOCK).exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    jaxlab.train(make_config(), workdir)
    return workdir


@pytest.fixture
def run(finished, tmp_path):
    import shutil

    return shutil.copytree(finished, tmp_path / "run")


def test_a_finished_run_goes_on_to_more_steps_as_if_it_had_had_them_from_the_start(run, tmp_path):
    jaxlab.train(make_config(steps=50), run)
    jaxlab.train(make_config(steps=50), tmp_path / "at once")
    assert same_bits(saved(run), saved(tmp_path / "at once"))
    assert record.read_config(run).train.steps == 50
    assert record.read_json(run / record.SUMMARY)["step"] == 50
    changes = record.read_json(run / record.OVERRIDES)["changes"]
    assert changes == [{"from_step": 30, "config": {"train.steps": [30, 50]}}]


def test_logging_and_keeping_may_change(run):
    jaxlab.train(make_config(steps=40, log_every=2, keep=5), run)
    assert [row["step"] for row in rows(run) if row["step"] > 30] == [32, 33, 34, 36, 38, 40, 40]
    assert record.read_config(run).train.keep == 5


def test_fewer_steps_than_were_taken_are_refused(run):
    with pytest.raises(UsageError, match=r"config\.train\.steps=20: the run has taken 30 already"):
        jaxlab.train(make_config(steps=20), run)


def test_more_steps_are_refused_where_a_schedule_takes_their_number(tmp_path):
    def cosine(steps):
        config = make_config(steps=steps)
        rate = jaxlab.spec("jaxlab.optim.schedules:warmup_cosine", peak=1e-3)
        config.optimizer = jaxlab.spec("optax:adam", learning_rate=rate)
        return config

    jaxlab.train(cosine(10), tmp_path / "run")
    with pytest.raises(UsageError, match=r"other steps change config\.optimizer\.learning_rate"):
        jaxlab.train(cosine(20), tmp_path / "run")


def test_a_change_of_the_experiment_is_refused_and_the_way_to_fork_is_shown(run):
    config = make_config()
    config.optimizer.learning_rate = 0.5
    with pytest.raises(UsageError, match=r"optimizer\.learning_rate: 0\.003 there, 0.5 now") as caught:
        jaxlab.train(config, run)
    assert f"--fork-from={run}@STEP" in str(caught.value)


def test_a_fork_goes_on_from_the_other_runs_state_and_leaves_that_as_it_is(run, tmp_path):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    jaxlab.train(make_config(steps=50), tmp_path / "fork", fork_from=f"{run}@latest")
    jaxlab.train(make_config(steps=50), tmp_path / "at once")
    assert same_bits(saved(tmp_path / "fork"), saved(tmp_path / "at once"))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert record.read_json(tmp_path / "fork" / record.OVERRIDES)["fork"] == {"run": str(run), "step": "latest"}


def test_a_fork_may_change_what_a_resumed_run_may_not(run, tmp_path):
    config = make_config(steps=40)
    config.optimizer.learning_rate = 0.0
    config.optimizer.weight_decay = 0.0
    jaxlab.train(config, tmp_path / "fork", fork_from=f"{run}@latest")
    there, here = saved(run), saved(tmp_path / "fork")
    np.testing.assert_array_equal(here["state/params/Dense_0/kernel"], there["state/params/Dense_0/kernel"])


def test_a_fork_of_another_shape_is_refused_by_the_name_of_the_leaf(run, tmp_path):
    config = make_config(steps=40)
    config.model.hidden = (17,)
    with pytest.raises(ConfigError, match=r"(?s)--fork-from=.*Dense_0"):
        jaxlab.train(config, tmp_path / "fork", fork_from=f"{run}@latest")


@pytest.mark.parametrize(("name", "problem"), [("nowhere@3", "holds no run"), ("run@999", "no such checkpoint")])
def test_a_fork_of_nothing_is_refused(run, tmp_path, name, problem):
    with pytest.raises((DataError, UsageError), match=problem):
        jaxlab.train(make_config(steps=40), tmp_path / "fork", fork_from=str(tmp_path / name))
