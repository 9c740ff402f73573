"""A run that was killed or stopped, and run again, is bit by bit the run that was left alone."""

from __future__ import annotations

import random
import shutil
import signal
import time

import pytest
from train_helpers import ROOT, command, finish, kill, rows, same_bits, saved, saved_steps

from jaxlab.core import record

TINY = str(ROOT / "tests/train/tiny.py")
PATIENCE = 90  # seconds to wait for a process to come so far

pytestmark = pytest.mark.slow


def train(preset, workdir, *more):
    return command("train", f"--config={TINY}:{preset}", f"--workdir={workdir}", *more)


def wait_until(condition, process):
    """Wait for `condition`; say whether it came true while the process ran."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        if condition():
            return True
        time.sleep(0.01)
    kill(process)
    raise TimeoutError("the process came to nothing")


def last_step(workdir):
    return max(saved_steps(workdir), default=0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    processes = {preset: train(preset, folder / preset) for preset in ("mlp", "cnn")}
    for process in processes.values():
        code, _, errors = finish(process)
        assert code == 0, errors
    return {preset: folder / preset for preset in processes}


def same_run(workdir, expected):
    return rows(workdir) == rows(expected) and same_bits(saved(workdir), saved(expected))


@pytest.mark.parametrize("preset", [pytest.param("mlp", marks=pytest.mark.exhaustive), "cnn"])
def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path, undisturbed, preset):
    workdir, chance, kills = tmp_path / "run", random.Random(preset), 0
    for _ in range(2):
        process, before = train(preset, workdir), last_step(workdir)
        came_on = wait_until(lambda before=before: last_step(workdir) > before, process)
        if came_on:
            time.sleep(chance.uniform(0.0, 0.5))
            kills += process.poll() is None
            kill(process)
    assert kills, "no kill came in time"
    code, _, errors = finish(train(preset, workdir))
    assert code == 0, errors
    assert same_run(workdir, undisturbed[preset])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Return the directory and the results of a run stopped by SIGTERM, then by SIGINT, then left to finish."""
    workdir, results = tmp_path_factory.mktemp("stopped") / "run", []
    for number in (signal.SIGTERM, signal.SIGINT):
        process, before = train("mlp", workdir), len(rows(workdir))
        assert wait_until(lambda before=before: len(rows(workdir)) > before, process)
        process.send_signal(number)
        results.append((*finish(process), saved_steps(workdir)))
    results.append((*finish(train("mlp", workdir)), saved_steps(workdir)))
    return workdir, results


def test_a_run_that_is_asked_to_stop_saves_that_very_step_and_ends_with_code_75(stopped):
    _, results = stopped
    for code, output, errors, steps in results[:2]:
        assert code == 75, errors
        assert output == ""
        assert f"stopped at step {steps[-1]} of 120" in errors


def test_a_run_that_was_stopped_twice_ends_as_if_it_had_not_been(stopped, undisturbed):
    workdir, results = stopped
    assert results[2][0] == 0, results[2][2]
    assert same_run(workdir, undisturbed["mlp"])


def contents(workdir):
    return {str(p.relative_to(workdir)): p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()}


def test_a_finished_run_is_said_to_be_finished_and_left_as_it_is(undisturbed):
    before = contents(undisturbed["mlp"])
    code, output, errors = finish(train("mlp", undisturbed["mlp"]))
    assert code == 0, errors
    assert "finished" in errors
    assert output.count("\n") == 1
    assert contents(undisturbed["mlp"]) == before


@pytest.mark.parametrize("finished", [True, False])
def test_another_config_in_the_same_directory_is_refused_and_the_run_left_as_it_is(tmp_path, undisturbed, finished):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed["mlp"], workdir)
    if not finished:
        (workdir / record.SUMMARY).unlink()
    before = contents(workdir)
    code, output, errors = finish(train("mlp", workdir, "--config.optimizer.learning_rate=0.5"))
    assert code == 2, errors
    assert "config.optimizer.learning_rate: 0.003 there, 0.5 now" in errors
    assert output == ""
    assert contents(workdir) == before


def test_a_run_killed_between_its_last_checkpoint_and_its_summary_is_finished_without_a_step(tmp_path, undisturbed):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed["mlp"], workdir)
    summary = record.read_json(workdir / record.SUMMARY)
    (workdir / record.SUMMARY).unlink()
    code, _, errors = finish(train("mlp", workdir))
    assert code == 0, errors
    assert record.read_json(workdir / record.SUMMARY) == summary
    assert same_run(workdir, undisturbed["mlp"])
