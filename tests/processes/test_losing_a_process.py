"""Whatever happens to one process, all end soon, with a sentence, and go on when started again."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from process_helpers import Ended, finish, free_port, run, start, train, wait_for_step
from train_helpers import rows, saved_steps

from jaxlab.core import record

pytestmark = pytest.mark.slow
EXHAUSTIVE = pytest.mark.exhaustive
SOON = 90.0  # seconds within which all are to be gone: half a minute, and more where tests share the machine


def disturbed(preset: str, workdir: Path, act, **settings) -> list[Ended]:
    """Train in two processes, disturb them at step 12 or later, and return how they ended, which is soon."""
    processes = start(2, *train(preset, workdir, **settings))
    wait_for_step(workdir, 12, processes)
    act(processes)
    return finish(processes, SOON)


def goes_on(workdir: Path, **settings) -> None:
    """Start all again for a few more steps, and check that no row is missing or twice there."""
    last = saved_steps(workdir)[-1]
    ended = run(2, *train("slow", workdir, steps=last + 5, **settings))
    assert [end.code for end in ended] == [0, 0]
    assert [row["step"] for row in rows(workdir) if "train/loss" in row] == list(range(1, last + 6))


@pytest.mark.parametrize(("asked", "number"), [pytest.param(1, signal.SIGTERM, marks=EXHAUSTIVE), (0, signal.SIGINT)])
def test_a_signal_to_one_process_stops_all_at_the_same_step_and_saves_it(tmp_path, asked, number):
    ended = disturbed("slow", tmp_path / "run", lambda processes: processes[asked].send_signal(number))
    assert [end.code for end in ended] == [75, 75]
    steps = {re.search(r"stopped at step (\d+) of 10000 and saved", end.sentence).group(1) for end in ended}
    assert steps == {str(saved_steps(tmp_path / "run")[-1])}
    goes_on(tmp_path / "run")


@pytest.mark.parametrize("killed", [0, pytest.param(1, marks=EXHAUSTIVE)])
def test_a_killed_process_ends_the_other_with_a_sentence(tmp_path, killed):
    ended = disturbed("slow", tmp_path / "run", lambda processes: processes[killed].kill())
    assert ended[killed].code == -signal.SIGKILL
    assert ended[1 - killed].code == 75
    assert ended[1 - killed].sentence.startswith("stopped: another process is gone")
    assert ended[1 - killed].sentence.endswith("run the same command to go on")
    if killed:
        goes_on(tmp_path / "run")


@pytest.mark.exhaustive
def test_a_process_that_stands_still_is_lost_to_the_other(tmp_path):
    processes = start(2, *train("slow", tmp_path / "run"))
    wait_for_step(tmp_path / "run", 12, processes)
    processes[1].send_signal(signal.SIGSTOP)
    try:
        assert processes[0].wait(2 * SOON) == 75
    finally:
        processes[1].send_signal(signal.SIGCONT)
    ended = finish(processes, SOON)
    assert ended[1].code == 75  # it learns, once it goes on, that the others have gone


@pytest.mark.exhaustive
def test_an_abort_of_its_own_stays_an_abort(tmp_path):
    ended = finish(start(2, *train("aborting", tmp_path / "run")), 3 * SOON)
    assert [end.code for end in ended] == [75, -signal.SIGABRT]


@pytest.mark.exhaustive
def test_a_signal_before_the_first_step_ends_all(tmp_path):
    processes = start(2, *train("slow", tmp_path / "run"))
    while not (tmp_path / "run" / record.CONFIG).exists() and processes[0].poll() is None:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    ended = finish(processes, SOON)
    assert [end.code for end in ended] == [75, 75]
    assert "stopped before the first step" in ended[0].sentence or "stopped at step 1 of" in ended[0].sentence


def test_an_error_in_the_data_of_one_process_ends_all_and_is_named(tmp_path):
    processes = start(2, *train("failing", tmp_path / "run"))
    wait_for_step(tmp_path / "run", 12, processes)
    ended = finish(processes, SOON)
    assert [end.code for end in ended] == [1, 1]
    assert ended[0].sentence == "error: process 1: OSError: the disk is gone"
    assert "Traceback" in ended[1].errors
    assert ended[1].sentence == "OSError: the disk is gone"


@pytest.mark.exhaustive
def test_data_that_hang_in_one_process_end_all_by_the_watchdog(tmp_path):
    processes = start(2, *train("hanging", tmp_path / "run", watchdog=12))
    wait_for_step(tmp_path / "run", 12, processes)
    ended = finish(processes, 12 + SOON)
    assert [end.code for end in ended] == [75, 75]
    assert any("process_plugins.py" in end.errors and "__getitems__" in end.errors for end in ended)
    assert all("nothing has been done for 12 s (config.train.watchdog)" in end.errors for end in ended)
    assert (tmp_path / "run" / record.LOG).read_text().count("nothing has been done") == 1


def test_processes_listen_where_they_are_told_alone(tmp_path):
    port = free_port()
    processes = start(2, *train("slow", tmp_path / "run"), port=port)
    wait_for_step(tmp_path / "run", 1, processes)
    heard = [place for process in processes for place in _listening(process.pid)]
    processes[0].send_signal(signal.SIGTERM)
    finish(processes, SOON)
    assert any(place.endswith(f":{port:04X}") for place in heard)
    everywhere = [place for place in heard if set(place.partition(":")[0]) == {"0"}]  # 0.0.0.0 and [::]
    assert everywhere == []
    assert all(place.partition(":")[0].endswith("0100007F") for place in heard)  # 127.0.0.1


def _listening(pid: int) -> list[str]:
    """Return the addresses and ports, in hexadecimal digits, at which a process listens."""
    sockets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return [fields[1] for fields in lines if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets]


@pytest.mark.exhaustive
def test_what_is_wrong_with_a_config_is_said_by_every_process(tmp_path):
    began = time.monotonic()
    flags = ["--config.train.batch_size=33"]
    ended = run(2, *train("mlp", tmp_path / "run"), *flags)
    assert [end.code for end in ended] == [2, 2]
    assert all(re.match("error: config.train.batch_size=33: expected a multiple of 2", end.sentence) for end in ended)
    assert not (tmp_path / "run").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    ended = run(2, *train("mlp", tmp_path / "other"))
    assert [end.code for end in ended] == [2, 2]
    assert all("is not empty and holds no run" in end.sentence for end in ended)
    assert time.monotonic() - began < 4 * SOON


@pytest.mark.exhaustive
def test_a_run_that_diverges_ends_all_with_3_and_keeps_the_whole_batch(tmp_path):
    ended = run(2, *train("mlp", tmp_path / "run", steps=40), "--config.optimizer.learning_rate=1e30")
    assert [end.code for end in ended] == [3, 3]
    ids = record.read_json(tmp_path / "run" / record.AUTOPSY / "incident.json")["ids"]
    assert len(ids) == 32
