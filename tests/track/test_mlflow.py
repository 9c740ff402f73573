"""MLflow gets a run's rows, config and files, knows it again after a resume, and cannot harm it."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import tracked

import jaxlab
from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError
from jaxlab.track import mlflow as ours
from jaxlab.track import remembered

client_of = pytest.importorskip("mlflow").MlflowClient


def sink(uri: str, **options) -> object:
    return jaxlab.spec("jaxlab.track.mlflow:make", uri=uri, experiment="tests", **options)


def only_run(uri: str):
    client = client_of(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tests")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1
    return client, runs[0]


@pytest.fixture
def server(tmp_path):
    """Start a real server in a process group of its own; yield its address and group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
    uri = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 150
        while time.monotonic() < until:
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:
                if answer.status == 200:
                    break
            time.sleep(0.2)
        yield uri, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


@pytest.mark.slow
def test_a_sqlite_store_has_the_rows_the_config_and_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # its artifacts stand beside it
    uri = f"sqlite:///{tmp_path}/store.db"
    workdir = tmp_path / "run"
    jaxlab.train(tracked.config(20, mlflow=sink(uri, tags=("team=red",))), workdir)
    client, run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_id == remembered.read(workdir, "mlflow")["run"]
    assert run.data.tags["team"] == "red"
    flat = configs.flatten(jaxlab.Run(workdir).config)
    assert run.data.params["optimizer.learning_rate"] == "0.1"
    assert len(run.data.params) == len(flat)
    for name in ("train/loss", "valid/accuracy"):
        logged = {row["step"]: row[name] for row in tracked.rows(workdir) if name in row}
        theirs = {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}
        assert theirs == pytest.approx(logged)
    jaxlab.train(tracked.config(30, mlflow=sink(uri, tags=("team=red",))), workdir)  # goes on, in the same run
    jaxlab.report(workdir)
    client, run = only_run(uri)
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(steps) == list(range(1, 31))
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "summary.json", "REPORT.md", "report.html", "plots"} <= names


@pytest.mark.slow
def test_a_study_that_is_tracked_has_its_report_there_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/store.db"
    study = jaxlab.Study(tracked.config(20, mlflow=sink(uri)), [{}, {"model.hidden": (4,)}], (0,), "valid/accuracy")
    jaxlab.run_study(study, tmp_path / "study")
    for _ in range(2):
        jaxlab.report(tmp_path / "study")
    client = client_of(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["seed-0", "seed-0", "study"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    entry = next(run.info.run_id for run in runs if run.info.run_name == "study")
    assert entry == remembered.read(tmp_path / "study", "mlflow")["run"]
    assert {"REPORT.md", "report.html", "results.json"} <= {item.path for item in client.list_artifacts(entry)}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_a_server_that_goes_away_changes_nothing_and_is_told_once(tmp_path, server, number, caplog, monkeypatch):
    uri, group = server
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    hook = jaxlab.spec("tracked:signaller", pid=group, number=int(number))
    config = tracked.config(60, mlflow=sink(uri))
    config.hooks.go_away = hook
    plain = tracked.config(60)
    plain.hooks.go_away = jaxlab.spec("tracked:signaller", pid=0, number=int(number))
    jaxlab.train(plain, tmp_path / "plain")
    log = logging.getLogger("jaxlab")
    log.addHandler(caplog.handler)
    try:
        jaxlab.train(config, tmp_path / "run")
    finally:
        log.removeHandler(caplog.handler)
    assert tracked.rows(tmp_path / "run") == tracked.rows(tmp_path / "plain")
    assert tracked.final_state(tmp_path / "run") == tracked.final_state(tmp_path / "plain") != {}
    failed = [entry.getMessage() for entry in caplog.records if "sink mlflow failed" in entry.getMessage()]
    assert len(failed) <= 2  # the row that failed, and closing
    assert any("sink mlflow" in entry.getMessage() for entry in caplog.records)


def test_a_server_that_is_not_there_does_not_stop_a_run(tmp_path):
    jaxlab.train(tracked.config(10, mlflow=sink("http://127.0.0.1:9")), tmp_path / "run")
    assert jaxlab.Run(tmp_path / "run").summary["step"] == 10
    assert remembered.trackers(tmp_path / "run") == []


def test_what_is_not_installed_or_no_tag_is_told_before_the_run(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="expected name=value"):
        ours.make(tmp_path, 1, tags=("red",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxlab\[mlflow\]'"):
        ours.make(tmp_path, 1)
