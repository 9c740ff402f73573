"""The run directory survives being killed, and is never taken for another run's."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.config import diff, spec
from jaxlab.core.errors import DataError, UsageError

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from jaxlab.core import record
log = record.MetricsLog(Path(sys.argv[1]), step=0)
step = 0
print("ready", flush=True)
while True:
    step += 1
    log.write(step, {"loss": 1 / step, "text": "x" * 3000})
"""
REPLACER = """
import sys
from pathlib import Path
from jaxlab.core import record
print("ready", flush=True)
n = 0
while True:
    n += 1
    record.finish(Path(sys.argv[1]), {"n": n, "filler": ["x" * 100] * 2000, "end": n})
"""


def make_config(**changes: float) -> ConfigDict:
    config = ConfigDict({"optimizer": spec("optax:adamw", learning_rate=0.1), "sizes": [1, 2], "seed": 0})
    return ConfigDict({**config, **changes}).lock()


def kill_while_it_writes(code: str, workdir: Path, seconds: float) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(workdir)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_run_opens_again_with_the_same_config_and_nothing_in_it_changes(tmp_path):
    workdir = tmp_path / "some" / "run"
    record.open_run(workdir, make_config(), {"config": "a.py", "overrides": {"seed": "0"}})
    first = contents(workdir)
    record.open_run(workdir, make_config(), {"config": "a.py", "overrides": {}})
    assert contents(workdir) == first
    assert diff(record.read_config(workdir), make_config()) == {}
    assert record.read_json(workdir / record.OVERRIDES)["overrides"] == {"seed": "0"}


def test_a_run_of_another_config_is_refused_and_the_differing_paths_are_named(tmp_path):
    record.open_run(tmp_path, make_config(), {})
    with pytest.raises(UsageError, match=r"config\.seed: 0 there, 1 now") as caught:
        record.open_run(tmp_path, make_config(seed=1), {})
    assert "optimizer" not in str(caught.value)
    other = make_config(optimizer=spec("optax:adamw", learning_rate=0.2))
    with pytest.raises(UsageError, match=r"config\.optimizer\.learning_rate: 0\.1 there, 0\.2 now"):
        record.open_run(tmp_path, other, {})


@pytest.mark.parametrize("name", ["thesis.tex", "metrics.jsonl", "checkpoints"])
def test_a_directory_that_holds_other_things_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(UsageError, match="not empty and holds no run"):
        record.open_run(tmp_path, make_config(), {})
    assert contents(tmp_path) == {name: "precious"}
    with pytest.raises(UsageError, match="not empty"):
        record.open_run(tmp_path / name, make_config(), {})


def test_a_run_whose_start_was_killed_half_way_can_be_started_again(tmp_path):
    record.write_json(tmp_path / record.OVERRIDES, {})
    (tmp_path / f".{record.CONFIG}.x1y2z3").write_text('{"seed"')
    record.open_run(tmp_path, make_config(), {"config": "a.py"})
    assert record.read_config(tmp_path).seed == 0


def test_reading_a_directory_without_a_run_says_so(tmp_path):
    with pytest.raises(DataError, match="holds no run"):
        record.read_config(tmp_path)
    assert record.read_metrics(tmp_path) == []
    assert record.read_json(tmp_path / record.SUMMARY) == {}


def test_a_resumed_log_drops_rows_after_the_resumed_step_and_a_torn_line_and_goes_on(tmp_path):
    log = record.MetricsLog(tmp_path, step=0)
    for step in (10, 20, 20, 30, 40):
        log.write(step, {"loss": step / 10})
    log.close()
    with (tmp_path / record.METRICS).open("a") as file:
        file.write('{"step": 50, "lo')
    assert [row["step"] for row in record.read_metrics(tmp_path)] == [10, 20, 20, 30, 40]
    log = record.MetricsLog(tmp_path, step=20)
    log.write(30, {"loss": -1.0})
    log.sync()
    log.close()
    assert [(row["step"], row["loss"]) for row in record.read_metrics(tmp_path)] == [
        (10, 1.0),
        (20, 2.0),
        (20, 2.0),
        (30, -1.0),
    ]


def test_a_torn_first_line_or_an_empty_file_reads_as_no_rows(tmp_path):
    for text in ("", '{"st'):
        (tmp_path / record.METRICS).write_text(text)
        log = record.MetricsLog(tmp_path, step=5)
        log.write(6, {})
        log.close()
        assert record.read_metrics(tmp_path) == [{"step": 6}]


def test_a_row_can_be_read_the_moment_it_is_written(tmp_path):
    log = record.MetricsLog(tmp_path, step=0)
    for step in range(3):
        log.write(step, {"loss": 0.5})
        assert len(record.read_metrics(tmp_path)) == step + 1
    log.close()


def test_what_json_cannot_say_is_written_as_valid_json_and_reads_back_as_the_same_number(tmp_path):
    log = record.MetricsLog(tmp_path, step=0)
    log.write(1, {"loss": float("nan"), "deep": {"a": [float("inf"), -float("inf"), 1.5]}})
    log.close()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    row = json.loads((tmp_path / record.METRICS).read_text(), parse_constant=refuse)
    assert float(row["loss"]) != float(row["loss"])
    assert [float(value) for value in row["deep"]["a"]] == [float("inf"), -float("inf"), 1.5]
    assert np.isnan(record.read_metrics(tmp_path)[0]["loss"])


@pytest.mark.slow
def test_rows_of_a_writer_killed_at_a_random_moment_all_parse_and_the_log_goes_on(tmp_path):
    rng = random.Random()
    for trial in range(3):
        workdir = tmp_path / str(trial)
        workdir.mkdir()
        kill_while_it_writes(WRITER, workdir, rng.uniform(0.02, 0.4))
        rows = record.read_metrics(workdir)
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        assert rows, "the writer was killed before its first row"
        log = record.MetricsLog(workdir, step=len(rows) - 1)
        log.write(len(rows), {"loss": 0.0})
        log.close()
        lines = (workdir / record.METRICS).read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(1, len(rows) + 1))


@pytest.mark.slow
def test_a_file_whose_replacer_is_killed_at_a_random_moment_is_whole(tmp_path):
    for trial in range(3):
        workdir = tmp_path / str(trial)
        workdir.mkdir()
        record.finish(workdir, {"n": 0, "end": 0})
        kill_while_it_writes(REPLACER, workdir, random.Random().uniform(0.02, 0.3))
        summary = record.read_json(workdir / record.SUMMARY)
        assert summary["n"] == summary["end"]


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / record.SUMMARY
    record.write_json(path, {"loss": 1.0})
    with pytest.raises(TypeError):
        record.write_json(path, {"loss": object()})
    with pytest.raises(UnicodeEncodeError):
        record.write_atomically(path, "half of it \ud800")
    (tmp_path / "folder" / "in_the_way").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        record.write_atomically(tmp_path / "folder", "text")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", record.SUMMARY]
    assert record.read_json(path) == {"loss": 1.0}


def test_a_finished_run_is_one_with_a_summary_that_others_may_read(tmp_path):
    record.finish(tmp_path, {"loss": 0.5})
    assert record.read_json(tmp_path / record.SUMMARY) == {"loss": 0.5}
    assert (tmp_path / record.SUMMARY).stat().st_mode & 0o044 == 0o044
