"""Weights & Biases offline: the real client writes the rows, and knows the run again after a resume."""

import json

import pytest
import tracked

import jaxlab
from jaxlab.core.errors import ConfigError
from jaxlab.track import remembered
from jaxlab.track import wandb as ours

pytest.importorskip("wandb")


def sink() -> object:
    return jaxlab.spec("jaxlab.track.wandb:make", project="tests", mode="offline", tags=("red",))


@pytest.mark.slow
def test_offline_files_hold_the_run_and_its_id_survives_a_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    workdir = tmp_path / "run"
    jaxlab.train(tracked.config(20, wandb=sink()), workdir)
    identity = remembered.read(workdir, "wandb")["run"]
    jaxlab.train(tracked.config(30, wandb=sink()), workdir)
    assert remembered.read(workdir, "wandb")["run"] == identity
    folders = sorted(tmp_path.glob("wandb/offline-run-*"))
    assert len(folders) == 2
    assert all(folder.name.endswith(identity) for folder in folders)
    written = b"".join(file.read_bytes() for folder in folders for file in folder.glob("*.wandb"))
    assert b"train/loss" in written
    assert b"learning_rate" in written
    last = tracked.rows(workdir)[-1]["valid/accuracy"]
    assert json.dumps(last).encode() in written  # the client keeps numbers as JSON
    jaxlab.train(tracked.config(30), tmp_path / "plain")
    assert tracked.rows(workdir) == tracked.rows(tmp_path / "plain")
    assert tracked.final_state(workdir) == tracked.final_state(tmp_path / "plain") != {}


def test_a_mode_that_is_none_or_a_missing_package_is_told_before_the_run(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'offline'"):
        ours.make(tmp_path, mode="ofline")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxlab\[wandb\]'"):
        ours.make(tmp_path)
