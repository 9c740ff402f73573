"""What surrounds the loop cannot harm it: sinks that fail or hang, a hang itself, signals at any time, a jump."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
import tiny
from train_helpers import ROOT, command, finish, rows, same_bits, saved, start

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import PreemptedError
from jaxlab.run import serve_sink
from jaxlab.run.deterministic import FLAGS
from jaxlab.run.spikes import SpikeAlarm
from jaxlab.run.stopping import stop_requests

TINY = str(ROOT / "tests/train/tiny.py")


def make_config(**settings):
    config = tiny.mlp()
    config.train.update({"steps": 30, **settings})
    return config


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    jaxlab.train(make_config(), workdir)
    return workdir


def test_a_sink_that_raises_is_reported_once_and_alters_nothing(undisturbed, tmp_path):
    config = make_config()
    config.sinks.broken = jaxlab.spec("tiny:BreakingSink", after=2)
    config.sinks.good = jaxlab.spec("tiny:FileSink", path=str(tmp_path / "good.txt"))
    jaxlab.train(config, tmp_path / "run")
    assert rows(tmp_path / "run") == rows(undisturbed)
    assert same_bits(saved(tmp_path / "run"), saved(undisturbed))
    log = (tmp_path / "run" / record.LOG).read_text()
    assert log.count("the sink broken failed and gets no more rows: OSError: the server is gone") == 1
    assert len((tmp_path / "good.txt").read_text().splitlines()) == len(rows(undisturbed))


def test_a_sink_that_hangs_stops_no_run(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(serve_sink, "PATIENCE", 0.2)
    config = make_config()
    config.sinks.hanging = jaxlab.spec("tiny:HangingSink")
    jaxlab.train(config, tmp_path / "run")
    assert same_bits(saved(tmp_path / "run"), saved(undisturbed))
    assert "the sink hanging has not ended after 0.2 s" in (tmp_path / "run" / record.LOG).read_text()


def test_rows_for_a_sink_that_is_slow_are_bounded(monkeypatch):
    monkeypatch.setattr(serve_sink, "MOST_ROWS", 10)
    monkeypatch.setattr(serve_sink, "SERVE_EVERY", 1000)
    taken = []

    class Sink:
        def write(self, step, values):
            taken.append(step)

        def close(self):
            taken.append("closed")

    served = serve_sink.ServedSink("slow", Sink())
    for step in range(100):
        served.put(step, {})
    served.close()
    assert taken == [*range(90, 100), "closed"]


@pytest.mark.slow
def test_a_run_that_hangs_is_ended_with_its_stacks_and_goes_on_when_started_again(tmp_path, undisturbed):
    arguments = [f"--workdir={tmp_path / 'run'}", "--config.train.steps=30"]
    code, _, errors = finish(command("train", f"--config={TINY}:hanging", *arguments, "--config.train.watchdog=3"))
    assert code == 75, errors
    assert "nothing has been done for 3 s (config.train.watchdog) after step 20" in errors
    assert "tiny.py" in errors  # where the main thread stands
    assert "after step 20" in (tmp_path / "run" / record.LOG).read_text()
    code, _, errors = finish(command("train", f"--config={TINY}", *arguments))
    assert code == 0, errors
    assert rows(tmp_path / "run") == rows(undisturbed)


def stopped_early():
    with stop_requests():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


def test_a_signal_before_the_first_step_stops_at_once_and_one_after_waits_for_it():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(PreemptedError, match="before the first step"):
        stopped_early()
    with stop_requests() as stop:
        stop.wait_for_step()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        assert stop.asked()
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_are_left_to_their_owner_outside_the_main_thread():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def ask():
        with stop_requests() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.asked()))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


SECOND_SIGNAL = """
import ctypes, os, signal, threading, time
from jaxlab.run.stopping import stop_requests
with stop_requests() as stop:
    stop.wait_for_step()
    print("ready", flush=True)
    ctypes.CDLL(None).sleep(1)  # a first second in which the handler cannot run
    ctypes.PyDLL(None).usleep(0)
    ctypes.CDLL(None).sleep(60)  # as a compilation: no bytecode runs
    ctypes.CDLL(None).sleep(60)
"""


@pytest.mark.slow
def test_a_second_signal_ends_a_process_that_runs_no_python():
    process = start("-c", SECOND_SIGNAL)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, _, _ = finish(process)
    assert code == 128 + signal.SIGTERM
    assert time.monotonic() - began < 30


def test_a_loss_that_jumps_is_an_alarm_and_noise_is_none():
    generator = np.random.default_rng(0)
    alarm = SpikeAlarm(10.0)
    noisy = [alarm.look(step, 2.0 - step * 1e-3 + 0.05 * generator.normal()) for step in range(300)]
    assert noisy == [None] * 300
    assert "the loss is 4 in the steps up to 300" in alarm.look(300, 4.0)
    assert SpikeAlarm(0.0, [1.0] * 50).look(1, 1e9) is None
    assert SpikeAlarm(10.0, [1.0] * 5).look(1, 1e9) is None
    assert SpikeAlarm(10.0, [1.0] * 50).look(1, float("nan")) is None  # that is the end of the run, not an alarm


def test_a_jump_is_written_to_the_log(tmp_path):
    config = make_config(log_every=1)
    config.optimizer = jaxlab.spec("tiny:jumping", at=25)
    jaxlab.train(config, tmp_path / "run")
    assert "WARNING the loss is" in (tmp_path / "run" / record.LOG).read_text()


@pytest.mark.slow
def test_determinism_is_set_before_jax_has_its_devices_and_refused_after(tmp_path):
    arguments = ("train", f"--config={TINY}", f"--workdir={tmp_path / 'run'}", "--config.train.steps=20")
    code, _, errors = finish(command(*arguments, "--config.deterministic=true"))
    assert code == 0, errors
    assert set(FLAGS) <= set(record.read_json(tmp_path / "run" / record.ENVIRONMENT)["xla_flags"].split())
    late = "import jax; jax.devices(); import sys; from jaxlab.cli import main; sys.exit(main())"
    code, _, errors = finish(start("-c", late, *arguments, "--config.deterministic=true"))
    assert code == 2, errors
    assert "config.deterministic=true has to be set before JAX finds its devices" in errors


IDS = """
import sys, jaxlab, tiny
from jaxlab.core import record
from pathlib import Path
folder = Path(sys.argv[1])
pmap = {"mesh": 8, "strategy": "pmap"}
ways = {"one": {"mesh": 1}, "eight": {"mesh": 8}, "pmap": pmap, "calls": {"mesh": 1, "calls": 4}}
for name, way in ways.items():
    config = tiny.mlp()
    config.parallel.mesh.data = way["mesh"]
    config.parallel.strategy = way.get("strategy", "jit")
    config.train.steps_per_call = way.get("calls", 1)
    config.train.steps = 24
    jaxlab.train(config, folder / name)
"""


@pytest.mark.slow
def test_the_hash_of_the_data_seen_is_the_same_on_any_devices_and_by_any_calls(tmp_path):
    code, _, errors = finish(start("-c", IDS, str(tmp_path), devices=8))
    assert code == 0, errors
    found = {
        name: [(row["step"], row["data/ids"]) for row in rows(tmp_path / name) if "data/ids" in row]
        for name in ("one", "eight", "pmap", "calls")
    }
    assert len({value for _, value in found["one"]}) == len(found["one"]) > 3
    assert found["one"] == found["eight"] == found["pmap"] == found["calls"]


def test_the_hash_tells_the_order_of_steps_and_of_rows_apart():
    import jax.numpy as jnp

    from jaxlab.train.seen import roll

    def hashed(*batches):
        ids = jnp.uint32(0)
        for batch in batches:
            ids = roll(ids, jnp.array(batch, jnp.int32), None)
        return int(ids)

    orders = [((1, 2), (3, 4)), ((2, 1), (3, 4)), ((3, 4), (1, 2)), ((1, 3), (2, 4)), ((1, 2), (3, 5)), ((1, 2),)]
    assert len({hashed(*order) for order in orders}) == len(orders)
