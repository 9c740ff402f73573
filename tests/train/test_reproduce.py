"""`jaxlab reproduce` runs again from the receipt alone, with the code of then, and says what has changed."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import DataError, UsageError
from jaxlab.data.arrays import ArraySource
from jaxlab.run.code import Code, code_of, git_state, within
from jaxlab.run.differences import inputs
from jaxlab.run.fingerprints import SAMPLE, data_fingerprint, own_modules
from jaxlab.run.reproduce import _variables, print_reproduction, reproduce
from jaxlab.train import manifest

PLUG = """
from jaxlab.data import digits
import jaxlab
import numpy as np

def make(split="train"):
    inner = digits.make(split)
    rows = dict(inner.__getitems__(np.arange(len(inner))))
    rows["image"] = rows["image"] * {factor}
    return jaxlab.ArraySource(rows, inner.spec.meta)
"""


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def short(config, steps=20):
    config.train.update({"steps": steps, "log_every": 5, "eval_every": 10, "checkpoint_every": 7})
    return config


def git(folder, *arguments):
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Return a repository with one commit, a change and a file that no commit holds; it is the working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "kept.py").write_text("value = 1\n")
    (folder / "bytes.bin").write_bytes(bytes(range(256)))
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    (folder / "kept.py").write_text("value = 2  # café\n", encoding="latin-1")
    (folder / "bytes.bin").write_bytes(bytes(range(255, -1, -1)))
    (folder / "new.py").write_text("value = 3\n")
    monkeypatch.chdir(folder)
    return folder


def later(folder):
    """Commit all that is there, and change it again."""
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "second")
    (folder / "kept.py").write_text("value = 4\n")


def test_the_code_of_then_comes_back_byte_by_byte_and_the_repository_is_left_alone(repository, tmp_path):
    state, run = git_state(), tmp_path / "run"
    before = {name: (repository / name).read_bytes() for name in ("kept.py", "bytes.bin", "new.py")}
    assert (state["dirty"], state["cut"], list(state["untracked"])) == (True, False, ["new.py"])
    with code_of(state, run) as code:
        assert code.tree == repository  # it stands there still
    later(repository)
    now = outside_git(repository)
    with code_of(state, run, apply_diff=True) as code:
        assert code.problem == ""
        assert {name: (code.tree / name).read_bytes() for name in before} == before
        assert within(repository / "kept.py", code) == str(code.tree / "kept.py")
        assert within("/elsewhere/kept.py", code) == "/elsewhere/kept.py"
        tree = code.tree
    assert not tree.exists()
    assert outside_git(repository) == now
    listed = subprocess.run(["git", "worktree", "list"], capture_output=True, text=True, check=True, cwd=repository)
    assert listed.stdout.count("\n") == 1


def outside_git(folder):
    return {name: text for name, text in contents(folder).items() if not name.startswith(".git/")}


def test_code_that_a_run_directory_holds_does_not_run_unless_that_is_allowed(repository, tmp_path):
    state = git_state()
    later(repository)
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="may be anybody's; if you trust it, add --apply_diff"), code_of(state, run):
        pass


def test_no_repository_within_a_run_is_asked_as_its_settings_can_run_programs(repository, tmp_path, monkeypatch):
    state = git_state()
    monkeypatch.chdir(tmp_path)
    with code_of(state, repository) as code:
        assert code.problem.startswith("no repository at hand")


def test_code_that_cannot_be_had_is_said_to_be_gone_and_why(repository, tmp_path):
    state = git_state()
    later(repository)
    (repository / "new.py").write_text("value = 5\n")
    cases = [
        (state, "files that no commit holds are gone or have changed: new.py"),
        ({**state, "cut": True, "diff": ""}, "lacks what differed from the commit"),
        ({**state, "commit": "0" * 40}, "no repository at hand has the commit 000000000000"),
        ({**state, "diff": state["diff"].replace("-value = 1", "-value = 7")}, "diff does not apply"),
        ({**state, "untracked": {"../outside.py": "0"}}, "gone or have changed: ../outside.py"),
        ({**state, "commit": "--upload-pack=x"}, "git.commit is not as it is written"),
        ({"commit": state["commit"]}, "git.diff is not as it is written"),
        ({}, "names no commit"),
    ]
    for receipt, problem in cases:
        with code_of(receipt, tmp_path / "run", apply_diff=True) as code:
            assert code.tree is None
            assert problem in code.problem


def test_a_diff_that_is_too_long_is_left_out_and_said_to_be(repository, monkeypatch):
    monkeypatch.setattr("jaxlab.run.code.LONGEST_DIFF", 10)
    state = git_state()
    assert (state["diff"], state["cut"], state["dirty"]) == ("", True, True)


def rows_of(count, size=2):
    return {"x": np.arange(count * size, dtype=np.float32).reshape(count, size), "label": np.arange(count) % 3}


@pytest.mark.parametrize("field", ["x", "label"])
def test_every_row_of_data_in_memory_counts_in_its_fingerprint(field):
    known = data_fingerprint(ArraySource(rows_of(500)))
    assert known == data_fingerprint(ArraySource(rows_of(500)))
    for row in (0, 137, 499):
        changed = rows_of(500)
        changed[field][row] += 1
        assert data_fingerprint(ArraySource(changed))["fingerprint"] != known["fingerprint"]
    assert data_fingerprint(ArraySource(rows_of(499)))["fingerprint"] != known["fingerprint"]


def test_data_that_state_a_fingerprint_are_sampled_besides():
    known = data_fingerprint(ArraySource(rows_of(500), {"fingerprint": "mine"}))
    assert (known["fingerprint"], known["of"]) == ("mine", f"{SAMPLE} of 500 rows")
    changed = rows_of(500)
    changed["x"][-1] += 1  # the last row is of the sample
    assert data_fingerprint(ArraySource(changed, {"fingerprint": "mine"}))["sample"] != known["sample"]


def test_a_plug_in_is_in_the_receipt_and_what_python_brings_is_not(tmp_path, monkeypatch):
    (tmp_path / "receipt_plug.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("receipt_plug")
    found = own_modules()
    sys.modules.pop("receipt_plug")
    assert found["receipt_plug"]["file"] == str(tmp_path / "receipt_plug.py")
    assert not {"json", "numpy", "jax", "jaxlab.run.code"} & set(found)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return jaxlab.train(short(tiny.cnn()), tmp_path_factory.mktemp("runs") / "run").workdir


@pytest.mark.slow
def test_a_run_comes_out_again_bit_by_bit_and_is_left_as_it_is(run, tmp_path, capsys):
    before = contents(run)
    result = reproduce(run, tmp_path / "again")
    assert (result["verdict"], result["errors"], result["problems"]) == ("equal bits", 0, [])
    assert [each for each in result["inputs"] if each["kind"] != "code"] == []
    assert (result["ids"], result["step"]) == ("equal", 20)
    assert result["leaves"] > 20
    assert contents(run) == before
    print_reproduction(result)
    assert "equal bits: up to step 20 of 20" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_not_finished_is_reproduced_up_to_its_last_checkpoint(run, tmp_path):
    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped)
    (stopped / record.SUMMARY).unlink()
    shutil.rmtree(stopped / record.CHECKPOINTS / "20")
    saved = [int(path.parent.name) for path in stopped.glob(f"{record.CHECKPOINTS}/*/{manifest.NAME}")]
    result = reproduce(stopped, tmp_path / "again")
    assert (result["verdict"], result["step"]) == ("equal bits", max(saved))
    assert result["leaves"] > 20
    assert record.read_json(tmp_path / "again/run" / record.SUMMARY) == {}


@pytest.mark.slow
def test_code_that_has_changed_since_is_fetched_or_makes_the_difference_and_is_named(tmp_path, monkeypatch, capsys):
    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "-q")
    (project / "plug_in_of_then.py").write_text(PLUG.format(factor=1.0))
    git(project, "add", "-A")
    git(project, "commit", "-qm", "first")
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    config = short(tiny.mlp(), steps=10)
    config.data.train = jaxlab.spec("plug_in_of_then:make")
    run = jaxlab.train(config, tmp_path / "run").workdir
    (project / "plug_in_of_then.py").write_text(PLUG.format(factor=0.5))
    then = reproduce(run, tmp_path / "then")
    assert (then["verdict"], then["code"]) == ("equal bits", {"ran": "then", "why": ""})
    now = reproduce(run, tmp_path / "now", code="now")
    assert (now["verdict"], now["errors"]) == ("different", 1)
    assert now["first"]["step"] == 5
    changed = {(each["kind"], each["name"]) for each in now["inputs"]}
    assert {("code", "module plug_in_of_then"), ("data", "train.fingerprint")} <= changed
    print_reproduction(now)
    assert "code: module plug_in_of_then: " in capsys.readouterr().err


def test_what_cannot_be_reproduced_is_refused_with_the_reason(run, tmp_path):
    shutil.copytree(run, tmp_path / "bare")
    (tmp_path / "bare" / record.ENVIRONMENT).unlink()
    shutil.copytree(run, tmp_path / "begun")
    (tmp_path / "begun" / record.SUMMARY).unlink()
    shutil.rmtree(tmp_path / "begun" / record.CHECKPOINTS)
    for folder, message in (
        (tmp_path / "none", "no run"),
        (tmp_path / "bare", "no receipt"),
        (tmp_path / "begun", "no checkpoint"),
    ):
        with pytest.raises(DataError, match=message):
            reproduce(folder, tmp_path / "again")
    for options, message in (({"code": "thn"}, "did you mean 'then'"), ({"workdir": run / "again"}, "within the run")):
        with pytest.raises(UsageError, match=message):
            reproduce(run, **options)


def test_a_receipt_that_is_not_as_it_is_written_is_an_error_that_names_the_part(run, tmp_path):
    shutil.copytree(run, tmp_path / "odd")
    for part, value in (("packages", ["jax"]), ("data", {"train": 3}), ("git", "HEAD")):
        record.write_json(tmp_path / "odd" / record.ENVIRONMENT, {part: value})
        for command in (lambda: reproduce(tmp_path / "odd"), lambda: inputs(run, tmp_path / "odd")):
            with pytest.raises(DataError, match=rf"environment\.json: {part}.* expected an object"):
                command()


def test_of_a_receipt_only_switches_and_numbers_become_variables_of_the_training():
    receipt = {
        "xla_flags": "--xla_force_host_platform_device_count=2 --xla_dump_to=/tmp/x --xla_gpu_cuda_data_dir=/evil",
        "threads": {"cpus": 2, "NPROC": "4"},
        "variables": {"JAX_ENABLE_X64": "1", "LD_PRELOAD": "/evil.so", "JAX_COMPILATION_CACHE_DIR": "/evil"},
    }
    assert _variables(receipt, Code(None, None, "")) == {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "NPROC": "4", "JAX_ENABLE_X64": "1",
    }  # fmt: skip


def test_each_input_that_two_receipts_name_is_compared_and_what_one_does_not_say_is_not(run, tmp_path):
    shutil.copytree(run, tmp_path / "other")
    receipt = record.read_json(run / record.ENVIRONMENT)
    assert inputs(run, tmp_path / "other") == []
    receipt["packages"]["jax"] = "0.0.1"
    receipt["python"] = "2.7"
    receipt["threads"]["pool"] = 64
    receipt["devices"]["count"] = 8
    receipt["variables"]["XLA_FLAGS"] = "--xla_something=1"
    receipt["variables"]["JAX_COMPILATION_CACHE_DIR"] = "/elsewhere"
    receipt["data"]["train"]["rows"]["fingerprint"] = "rows:0"
    receipt["modules"] = {"only_there": {"file": "x", "sha256": "0"}}
    del receipt["cpu"]
    record.write_json(tmp_path / "other" / record.ENVIRONMENT, receipt)
    config = record.read_config(run).unlock()
    config.seed = 5
    (tmp_path / "other" / record.CONFIG).write_text(jaxlab.core.config.to_json(config))
    found = {each["name"]: (each["first"], each["second"]) for each in inputs(run, tmp_path / "other")}
    assert set(found) == {"jax", "python", "threads", "devices.count", "XLA_FLAGS", "train.fingerprint", "config.seed"}
    assert found["config.seed"] == (0, 5)
    assert found["python"][1] == "2.7"
