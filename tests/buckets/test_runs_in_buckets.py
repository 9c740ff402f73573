"""Runs in a bucket, by the command line: lost machines, two processes without a common folder, a network that ends."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from process_helpers import finish, kill, run, start
from train_helpers import rows, same_bits, saved

import jaxlab
from jaxlab.cli import main
from jaxlab.core import record
from jaxlab.core.errors import UsageError
from jaxlab.run import mirrored
from jaxlab.run.bucket import Bucket

pytestmark = pytest.mark.slow
QUICK = str(Path(__file__).with_name("quick.py"))
IDS = "data/ids"


def train(preset: str, workdir: object) -> list[str]:
    return ["train", f"--config={QUICK}:{preset}", f"--workdir={workdir}"]


def on(machine: Path) -> dict[str, str]:
    """Return the surroundings of a process on a machine, which has a disk of its own."""
    return {mirrored.SCRATCH: str(machine)}


def read(url: str, place: Path) -> Path:
    """Return the run as a machine that begins with nothing reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(mirrored.SCRATCH, str(place))
        with mirrored.mirrored(url, writes=False) as folder:
            return folder


def wait_for(bucket: Bucket, name: str, processes, limit: float = 120.0) -> None:
    until = time.monotonic() + limit
    while bucket.read(name) is None:
        if time.monotonic() > until or any(process.poll() is not None for process in processes):
            finish(processes, 30.0)
            raise AssertionError(f"{name} has not come to {bucket.url}")
        time.sleep(0.1)


def assert_same_run(first: Path, second: Path) -> None:
    assert same_bits(saved(first), saved(second))
    pairs = [
        [{k: v for k, v in row.items() if k.startswith(("train/", "valid/", "step", IDS))} for row in rows(run)]
        for run in (first, second)
    ]
    assert pairs[0] == pairs[1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert [end.code for end in run(1, *train("get_config", workdir))] == [0]
    return workdir


@pytest.mark.parametrize("kind", ["s3", pytest.param("gs", marks=pytest.mark.exhaustive)])
def test_a_machine_that_is_lost_is_followed_by_another_with_the_same_bits(undisturbed, tmp_path, request, kind):
    request.getfixturevalue(f"{kind}_server")
    url = f"{kind}://runs/{tmp_path.name}"
    slow = train("slow", url)
    started = start(1, *slow, **on(tmp_path / "a"))
    wait_for(Bucket(url), "checkpoints/20/manifest.json", started)
    refused = run(1, *slow, **on(tmp_path / "b"))
    assert refused[0].code == 2
    assert "is being written by process" in refused[0].sentence
    kill(started[0])
    finish(started)
    shutil.rmtree(tmp_path / "a")
    ended = run(1, *train("get_config", url), **on(tmp_path / "b"))  # after the lease has given no sign of life
    assert ended[0].code == 0
    assert ended[0].result["workdir"] == url
    assert f"finished: {url}" in ended[0].errors
    assert "resuming at step" in (read(url, tmp_path / "c") / record.LOG).read_text()
    assert_same_run(read(url, tmp_path / "c"), undisturbed)


@pytest.mark.exhaustive
def test_what_the_bucket_lacks_is_brought_by_the_machine_that_has_it(undisturbed, s3_url, tmp_path):
    """Killed with a checkpoint that is not in the bucket, the same machine goes on from that."""
    slow = train("slow", s3_url)
    started = start(1, *slow, **on(tmp_path / "a"))
    wait_for(Bucket(s3_url), "checkpoints/20/manifest.json", started)
    kill(started[0])
    finish(started)
    bucket = Bucket(s3_url)
    for name in bucket.list("checkpoints"):
        bucket.remove(name)
    (notes,) = (tmp_path / "a").glob("*/notes.json")
    known = json.loads(notes.read_text())
    notes.write_text(json.dumps({name: facts for name, facts in known.items() if "checkpoints" not in name}))
    ended = run(1, *train("get_config", s3_url), **on(tmp_path / "a"))
    assert ended[0].code == 0
    said = (read(s3_url, tmp_path / "b") / record.LOG).read_text()
    assert said.count("starting at step 0") == 1
    assert "resuming at step 2" in said
    assert_same_run(read(s3_url, tmp_path / "b"), undisturbed)


@pytest.mark.exhaustive
def test_a_signal_brings_what_was_saved_before_the_process_ends(s3_url, tmp_path):
    started = start(1, *train("slow", s3_url), **on(tmp_path / "a"))
    wait_for(Bucket(s3_url), "checkpoints/20/manifest.json", started)
    started[0].terminate()
    (ended,) = finish(started, 60.0)
    assert ended.code == 75
    folder = read(s3_url, tmp_path / "b")
    step = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert step > 20
    assert f"stopped at step {step} of 60 and saved" in ended.sentence
    assert [row["step"] for row in rows(folder) if IDS in row][-1] == step - step % 5
    assert Bucket(s3_url).read(".jaxlab-lease.json") is None


@pytest.mark.parametrize(
    "preset", ["fsdp", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("get_config", "swapped"))]
)
def test_two_processes_without_a_common_folder_train_as_one(s3_url, tmp_path, preset, undisturbed):
    """Others are refused meanwhile; stopped by a signal to one of them; two machines that are both new go on."""
    slow = {"fsdp": "slow_fsdp", "get_config": "slow", "swapped": "slow_swapped"}[preset]
    started = start(2, *train(slow, s3_url), **on(tmp_path / "a"))
    wait_for(Bucket(s3_url), "checkpoints/20/manifest.json", started)
    if preset == "get_config":
        refused = run(2, *train(preset, s3_url), **on(tmp_path / "b"))
        assert [end.code for end in refused] == [2, 2]
    started[1].terminate()
    assert [end.code for end in finish(started)] == [75, 75]
    assert len(list((tmp_path / "a").iterdir())) == 2
    shutil.rmtree(tmp_path / "a")
    assert [end.code for end in run(2, *train(preset, s3_url), **on(tmp_path / "c"))] == [0, 0]
    found = read(s3_url, tmp_path / "d")
    assert [row.get(IDS) for row in rows(found)] == [row.get(IDS) for row in rows(undisturbed)]
    ours, expected = saved(found), saved(undisturbed)
    for name, values in expected.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


def test_an_evaluation_elsewhere_is_added_to_the_run(s3_url, tmp_path, monkeypatch, capsys):
    arguments = train("get_config", s3_url)
    monkeypatch.setenv(mirrored.SCRATCH, str(tmp_path / "a"))
    assert main(arguments) == 0
    capsys.readouterr()
    monkeypatch.setenv(mirrored.SCRATCH, str(tmp_path / "b"))
    assert main(["evaluate", f"--workdir={s3_url}", "--split=test", "--no_plots"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["workdir"] == s3_url
    assert any(name.startswith("predictions/test-") for name in Bucket(s3_url).list())
    assert main(["report", f"--workdir={s3_url}", f"--output={s3_url}-report"]) == 0
    assert "REPORT.md" in Bucket(f"{s3_url}-report").list()
    assert main(["compare", s3_url, s3_url]) == 0
    assert main(["train", *arguments[1:2], f"--workdir={s3_url}-fork", f"--fork-from={s3_url}@40",
                 "--config.train.steps=50"]) == 0  # fmt: skip
    assert [row["step"] for row in rows(read(f"{s3_url}-fork", tmp_path / "c"))][-1] == 50


def test_a_network_that_ends_lets_the_training_finish_and_the_same_command_brings_it(
    s3_server, s3_url, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(mirrored, "_FAILING", 2.0)
    arguments = train("get_config", s3_url)
    first_push = mirrored.Mirror.push

    def broken(self, *, removing):
        if "broken" in state:
            raise ConnectionError("no network")
        return first_push(self, removing=removing)

    state = {"broken"}
    monkeypatch.setattr(mirrored.Mirror, "push", broken)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "could not be written: ConnectionError: no network; all is whole in" in said
    assert "Traceback" not in said
    state.clear()
    assert main(arguments) == 0
    assert record.SUMMARY in Bucket(s3_url).list()
    assert rows(read(s3_url, tmp_path / "b"))[-1]["step"] == 60


def test_functions_take_folders_and_say_how_a_bucket_becomes_one(s3_url, tmp_path):
    config = jaxlab.load_config("configs/digits_cnn.py")
    with pytest.raises(UsageError, match=r"expected a folder; with jaxlab\.mirrored\('s3://"):
        jaxlab.train(config, s3_url)
    with jaxlab.mirrored(s3_url) as folder:
        (folder / "x").write_text("y")
    assert Bucket(s3_url).read("x") == b"y"


def test_a_bucket_that_was_emptied_does_not_take_the_machines_copy_with_it(s3_url, scratch):
    with jaxlab.mirrored(s3_url) as folder:
        (folder / "x").write_text("y")
    for name in Bucket(s3_url).list():
        Bucket(s3_url).remove(name)
    with (
        pytest.raises(
            UsageError, match=r"is empty, and .* has files that were there; to begin anew, remove that folder"
        ),
        jaxlab.mirrored(s3_url),
    ):
        pass
    assert (folder / "x").read_text() == "y"
    shutil.rmtree(folder)
    with jaxlab.mirrored(s3_url):
        pass


def test_a_study_on_machines_that_do_not_see_the_folder_is_refused(s3_url, capsys):
    study = "experiments/digits_ablation/study.py"
    assert main(["study", f"--study={study}", f"--workdir={s3_url}", "--executor=slurm"]) == 2
    assert "its machines do not see the folder that stands for s3://" in capsys.readouterr().err


def test_a_watch_of_a_bucket_is_refused(s3_url, capsys):
    assert main(["evaluate", f"--workdir={s3_url}", "--watch"]) == 2
    assert "--watch expects the folder that a training writes" in capsys.readouterr().err
