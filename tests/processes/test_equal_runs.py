"""Several processes train, save and evaluate as one process with the same devices does, and one of them writes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from process_helpers import Ended, run, train
from train_helpers import rows, saved, saved_steps

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.data import order
from jaxlab.run.store import read_arrays

pytestmark = pytest.mark.slow
SETTINGS = {"steps": 45, "eval_every": 22, "checkpoint_every": 20, "keep": 9}
IDS = "data/ids"


def ended_well(ended: list[Ended]) -> None:
    assert [end.code for end in ended] == [0] * len(ended)


def assert_same(first: list[dict], second: list[dict], tolerance: float) -> None:
    assert [row.keys() for row in first] == [row.keys() for row in second]
    for one, other in zip(first, second, strict=True):
        assert one["step"] == other["step"]
        assert one.get(IDS) == other.get(IDS)
        for name in one.keys() - {IDS}:
            assert one[name] == pytest.approx(other[name], rel=tolerance, abs=tolerance), (name, one["step"])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of the network by two processes, which write down what they read and write."""
    folder = tmp_path_factory.mktemp("two")
    workdir, seen = folder / "run", folder / "seen"
    arguments = [*train("watched_cnn", workdir, **SETTINGS), f"--config.hooks.writes.folder={workdir}"]
    ended = run(2, *arguments, f"--config.data.train.seen={seen}")
    ended_well(ended)
    return folder, ended


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same by one process on two devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    ended_well(run(1, *train("cnn", workdir, **SETTINGS), devices=2))
    return workdir


def test_two_processes_lose_as_one_with_two_devices_does(two, one):
    workdir = two[0] / "run"
    assert_same(rows(workdir), rows(one), 1e-6)
    assert saved_steps(workdir) == saved_steps(one)
    mine, other = saved(workdir), saved(one)
    assert max(float(np.abs(mine[name] - other[name]).max()) for name in mine if mine[name].dtype == np.float32) < 1e-6


def test_each_process_reads_its_half_of_every_batch_alone(two):
    folder, _ = two
    halves = []
    for process in range(2):
        lines = (folder / f"seen.{process}").read_text().splitlines()
        halves.append(np.array([int(i) for line in lines for i in line.split()]).reshape(-1, 16))
    config = record.read_config(folder / "run")
    size = json.loads((folder / "run" / record.ENVIRONMENT).read_text())["data"]["train"]["size"]
    count = len(halves[0])
    expected = order.train_indices(size, 32, config.seed, 0, count, None).reshape(count, 32)
    # a batch's length is looked up once more before training
    chunks = [np.array_equal(half[-64:], expected[:64, 16 * i : 16 * i + 16]) for i, half in enumerate(halves)]
    assert chunks == [True, True]


def test_only_the_first_process_writes_the_directory_and_speaks(two):
    folder, ended = two
    assert (folder / "run.writes.0").read_text()
    others = [line for line in (folder / "run.writes.1").read_text().splitlines() if "/checkpoints" not in line]
    assert others == []
    assert ended[0].result["status"] == "finished"
    assert "workdir" not in ended[1].output
    assert [line for line in ended[1].errors.splitlines() if line] == []
    assert "2 processes, 2 devices" in ended[0].errors
    assert "2 processes, 2 devices" in (folder / "run" / record.LOG).read_text()


@pytest.mark.parametrize("split", ["test"])
def test_an_evaluation_by_two_processes_has_each_example_once(one, two, tmp_path, split):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    shutil.copytree(one, ours)
    shutil.copytree(one, theirs)
    arguments = ["evaluate", f"--split={split}", "--step=latest", "--batch_size=50", "--no_plots"]
    ended = run(2, *arguments, f"--workdir={ours}")
    alone = run(1, *arguments, f"--workdir={theirs}")
    ended_well([*ended, *alone])
    assert ended[1].output.count("workdir") == 0
    first, second = ended[0].result, alone[0].result
    assert first["metrics"] == pytest.approx(second["metrics"], rel=1e-5)
    assert first["n"] == second["n"]
    tables = [read_arrays(workdir, split, first["step"]) for workdir in (ours, theirs)]
    assert tables[0].keys() == tables[1].keys()
    assert np.array_equal(tables[0]["id"], np.arange(first["n"]))
    assert first["n"] % 50
    for name, column in tables[1].items():
        np.testing.assert_allclose(tables[0][name], column, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.exhaustive
def test_two_processes_go_on_as_four_and_as_one(two, one, tmp_path):
    """The runs begin again from step 40, of which two processes have saved a part each."""
    for count, name in ((4, "four"), (1, "alone")):
        workdir = tmp_path / name
        shutil.copytree(one, workdir)
        shutil.rmtree(workdir / record.CHECKPOINTS)
        shutil.copytree(two[0] / "run" / record.CHECKPOINTS, workdir / record.CHECKPOINTS)
        for step in (44, 45):
            shutil.rmtree(workdir / record.CHECKPOINTS / str(step))
        (workdir / record.SUMMARY).unlink()
        ended_well(run(count, *train("cnn", workdir, **SETTINGS)))
        assert_same(rows(workdir), rows(one), 1e-4)
        assert configs.diff(record.read_config(workdir), record.read_config(one)) == {}


@pytest.mark.exhaustive
def test_two_processes_with_two_devices_each_train_as_one_with_four(tmp_path):
    settings = {"steps": 25, "eval_every": 20, "checkpoint_every": 25}
    ended_well(run(2, *train("mlp", tmp_path / "two", **settings), devices=2))
    ended_well(run(1, *train("mlp", tmp_path / "one", **settings), devices=4))
    assert_same(rows(tmp_path / "two"), rows(tmp_path / "one"), 1e-6)


@pytest.mark.exhaustive
def test_processes_under_pmap_train_stop_and_go_on_as_one(tmp_path):
    settings = {"steps": 25, "eval_every": 20, "checkpoint_every": 10}
    ended_well(run(2, *train("pmap", tmp_path / "two", **settings)))
    ended_well(run(1, *train("pmap", tmp_path / "one", **settings), devices=2))
    assert_same(rows(tmp_path / "two"), rows(tmp_path / "one"), 1e-6)
    ended_well(run(2, *train("pmap", tmp_path / "two", **{**settings, "steps": 35})))
    ended_well(run(1, *train("pmap", tmp_path / "one", **{**settings, "steps": 35}), devices=2))
    assert_same(rows(tmp_path / "two"), rows(tmp_path / "one"), 1e-6)
    arguments = ["evaluate", "--split=valid", "--step=latest", "--no_plots"]
    ended = run(2, *arguments, f"--workdir={tmp_path / 'two'}")
    alone = run(1, *arguments, f"--workdir={tmp_path / 'one'}", devices=2)
    ended_well([*ended, *alone])
    assert ended[0].result["metrics"] == pytest.approx(alone[0].result["metrics"], rel=1e-5)


def test_parameters_split_over_two_processes_are_saved_and_restored_by_one(tmp_path):
    settings = {"steps": 25, "eval_every": 20, "checkpoint_every": 25}
    split = ["--config.parallel.mesh.data=1", "--config.parallel.mesh.fsdp=2"]
    ended_well(run(2, *train("mlp", tmp_path / "two", **settings), *split))
    ended_well(run(1, *train("mlp", tmp_path / "one", **settings), *split, devices=2))
    assert_same(rows(tmp_path / "two"), rows(tmp_path / "one"), 1e-6)
    mine, other = saved(tmp_path / "two"), saved(tmp_path / "one")
    assert max(float(np.abs(mine[name] - other[name]).max()) for name in mine if mine[name].dtype == np.float32) < 1e-6
