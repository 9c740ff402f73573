"""A study does each run once, whatever stops it, and reports what failed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_study

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import ConfigError, UsageError
from jaxlab.study import runner
from jaxlab.study.analysis import analyse
from jaxlab.study.attempts import ATTEMPTS, attempts, write_attempt
from jaxlab.study.description import load, plan
from jaxlab.study.executors import inline, local, slurm, vmap
from jaxlab.study.tasks import FAILED, FINISHED, KILLED, Outcome

FILE = Path(__file__).with_name("small_study.py")
COMMAND = [sys.executable, "-c", "import sys; from jaxlab.cli import main; sys.exit(main())", "study"]


def statuses(folder: Path) -> list[str]:
    return [row["status"] for row in attempts(folder)]


def with_arm(arm: dict, **fields) -> jaxlab.Study:
    study = small_study.get_study()
    return jaxlab.Study(study.base, [{}, arm], study.seeds, study.metric, **fields)


def values(folder: Path) -> dict[str, dict[str, float]]:
    return {arm["label"]: arm["values"] for arm in analyse(folder)["arms"]}


def without_times(folder: Path) -> dict[str, object]:
    """Return what a study amounts to, but for how long it took and where it stands."""
    results = analyse(folder)
    for arm in results["arms"]:
        del arm["cost"]
    return json.loads(json.dumps(record.jsonable({name: results[name] for name in results if name != "file"})))


def test_a_study_that_cannot_be_run_says_why_before_anything_is_made(tmp_path):
    study = small_study.get_study()
    for arms, error, words in (
        ([{"model.hiden": 3}], ConfigError, "did you mean 'hidden'"),
        ([{"train.steps": 1.5}], ConfigError, "an integer"),
        ([{"seed": 3}], UsageError, "sets the seed"),
        ([{}, {"train.steps": 30}], UsageError, "same config as 'base'"),
        ([{"train.grad_accumulation": 5}], ConfigError, r"arm grad_accumulation=5: config\.train"),
    ):
        with pytest.raises(error, match=words):
            jaxlab.run_study(jaxlab.Study(study.base, arms, (0,), study.metric), tmp_path / "study")
    for fields, words in (
        ({"metric": "vald/accuracy"}, "did you mean 'valid'"),
        ({"direction": "up"}, "study.direction"),
        ({"seeds": (1, 1)}, "different whole numbers"),
        ({"arms": []}, "study.arms is empty"),
        ({"baseline": {"x": 1}}, "none of study.arms"),
    ):
        given = {"base": study.base, "arms": study.arms, "seeds": (0,), "metric": study.metric, **fields}
        with pytest.raises(UsageError, match=words):
            jaxlab.Study(**given)
    assert not (tmp_path / "study").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="holds no study"):
        jaxlab.run_study(study, tmp_path)
    with pytest.raises(ConfigError, match=r"did you mean .*small_study\.py|no such file"):
        load(FILE.with_name("smal_study.py"))
    with pytest.raises(ConfigError, match="did you mean 'get_study'"):
        load(f"{FILE}:get_studdy")


def test_arms_are_told_apart_by_what_they_come_to():
    study = small_study.get_study()
    keys = [arm.key for arm in plan(study)]
    again = jaxlab.Study(study.base, [{}, {"optimizer.learning_rate": "0.01"}], (5,), study.metric)
    assert [arm.key for arm in plan(again)] == keys  # as a text, with other seeds
    other = jaxlab.override(study.base, {"train.steps": 31})
    assert not set(keys) & {arm.key for arm in plan(jaxlab.Study(other, study.arms, (0,), study.metric))}


@pytest.mark.slow
def test_finished_runs_are_never_done_again_and_new_arms_only_add(tmp_path):
    study = small_study.get_study()
    first = jaxlab.run_study(study, tmp_path)
    assert (first["runs"], first["finished"], statuses(tmp_path)) == (4, 4, [FINISHED] * 4)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    jaxlab.run_study(study, tmp_path)
    more = jaxlab.Study(study.base, [*study.arms, {"train.batch_size": 16}], study.seeds, study.metric)
    second = jaxlab.run_study(more, tmp_path)
    assert (second["runs"], second["finished"], statuses(tmp_path)) == (6, 6, [FINISHED] * 6)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    found = values(tmp_path)
    for arm in plan(more):
        for seed in study.seeds:
            run = jaxlab.Run(runner.place_of(tmp_path, arm) / f"seed-{seed}")
            assert run.config.seed == seed
            assert found[arm.label][str(seed)] == run.summary["best"]["value"]
    ids = [
        jaxlab.Run(folder).history["data/ids"].dropna().iloc[-1] for folder in sorted(tmp_path.glob("runs/*/seed-0"))
    ]
    assert len(ids) == 3
    assert len(set(ids[:1] + ids[2:])) <= 2  # arms of one batch size see the same data


@pytest.mark.slow
def test_a_run_that_fails_is_tried_again_and_then_reported(tmp_path):
    once = with_arm({"hooks.trap.kind": "raise"}, retries=1)
    assert jaxlab.run_study(once, tmp_path / "once")["not_finished"] == []
    assert statuses(tmp_path / "once") == [FINISHED, FAILED, FINISHED, FAILED, FINISHED, FINISHED]
    always = with_arm({"hooks.trap.kind": "raise", "hooks.trap.times": 9}, retries=1)
    result = jaxlab.run_study(always, tmp_path / "always")
    assert result["finished"] == 2
    assert [(each["status"], each["problem"]) for each in result["not_finished"]] == [
        (FAILED, "RuntimeError: the trap")
    ] * 2
    assert statuses(tmp_path / "always").count(FAILED) == 4
    results = analyse(tmp_path / "always")
    assert [failure["seed"] for failure in results["failures"]] == [0, 1]
    assert "2 runs are missing or failed" in results["sentences"][-1]


@pytest.mark.slow
def test_a_run_that_diverges_is_reported_and_not_tried_again(tmp_path):
    result = jaxlab.run_study(with_arm({"optimizer.learning_rate": 1e30}, retries=3), tmp_path)
    assert [each["status"] for each in result["not_finished"]] == ["diverged", "diverged"]
    assert statuses(tmp_path).count("diverged") == 2


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_run_goes_on(tmp_path):
    study = with_arm({"hooks.trap.kind": "kill"})
    result = jaxlab.run_study(study, tmp_path / "local", local.make(workers=2))
    assert result["finished"] == 4
    found = attempts(tmp_path / "local")
    assert [row["problem"] for row in found if row["status"] == KILLED] == ["its process ended with SIGKILL"] * 2
    unharmed = with_arm({"hooks.trap.kind": "kill", "hooks.trap.times": 0})
    jaxlab.run_study(unharmed, tmp_path / "inline", inline.make())
    assert values(tmp_path / "local")["base"] == values(tmp_path / "inline")["base"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive)])
def test_a_study_that_is_stopped_ends_as_if_it_had_not_been(tmp_path, number):
    jaxlab.run_study(FILE, tmp_path / "whole")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FILE.parent), *sys.path])}
    command = [*COMMAND, f"--study={FILE}", f"--workdir={tmp_path / 'stopped'}", "--no_report"]
    codes = []
    for stop in (1, 3, 5):  # after so many checkpoints
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if len(list((tmp_path / "stopped").glob("runs/*/*/checkpoints/*0"))) >= stop:
                process.send_signal(number)
                break
            time.sleep(0.02)
        codes.append(process.wait(timeout=120))
    assert set(codes) <= {-9, 0} if number == signal.SIGKILL else {75, 0}
    assert codes[0] != 0
    last = subprocess.run(command, env=environment, check=False, capture_output=True, timeout=250)
    assert json.loads(last.stdout.splitlines()[-1])["finished"] == 4
    assert without_times(tmp_path / "stopped") == without_times(tmp_path / "whole")


@pytest.mark.slow
def test_seeds_together_come_to_what_they_come_to_alone(tmp_path):
    study = small_study.get_study()
    for name, executor in (("inline", inline.make()), ("in_turn", vmap.make("in_turn")), ("auto", vmap.make())):
        assert jaxlab.run_study(study, tmp_path / name, executor)["finished"] == 4
    assert values(tmp_path / "inline") == values(tmp_path / "in_turn")
    for arm, found in values(tmp_path / "auto").items():
        assert found == pytest.approx(values(tmp_path / "inline")[arm], abs=0.03)


@pytest.mark.slow
def test_arms_that_cannot_share_a_program_are_done_one_by_one(tmp_path):
    study = with_arm({"train.non_finite": "rollback"})
    assert jaxlab.run_study(study, tmp_path, vmap.make())["finished"] == 4


def test_a_torn_line_of_attempts_is_dropped_and_a_foreign_one_is_an_error(tmp_path):
    good = {"arm": "a", "seed": 0, "status": FINISHED, "seconds": 1.0, "problem": ""}
    (tmp_path / ATTEMPTS).write_text(json.dumps(good) + "\n" + json.dumps(good)[:20])
    assert attempts(tmp_path) == [good]
    write_attempt(tmp_path, Outcome("b", 1, FAILED, 2.0, "why"))
    assert [row["arm"] for row in attempts(tmp_path)] == ["a", "b"]
    (tmp_path / ATTEMPTS).write_text('{"arm": 1}\n')
    with pytest.raises(UsageError, match="line 1"):
        attempts(tmp_path)


@pytest.mark.slow
def test_jobs_of_submitit_do_a_study_and_a_killed_one_is_done_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FILE.parent), *filter(None, sys.path)]))
    study = with_arm({"hooks.trap.kind": "kill"})
    result = jaxlab.run_study(study, tmp_path, slurm.make(cluster="local", poll=0.1))
    assert result["finished"] == 4
    killed = [row for row in attempts(tmp_path) if row["status"] == KILLED]
    assert len(killed) == 2
    assert all(row["problem"].startswith("job ") for row in killed)
    with pytest.raises(UsageError, match=r"executor\.cluster=slrum; did you mean 'slurm'"):
        slurm.make(cluster="slrum")
