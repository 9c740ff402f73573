"""What the TensorBoard sink writes is read back from the event files' own framing, without TensorBoard."""

import math
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboardX.proto import event_pb2

from jaxlab.track import tensorboard

ROWS = [
    (10, {"train/loss": 2.5, "train/accuracy": 0.25, "steps_per_second": 100.0}),
    (20, {"train/loss": 1.5, "train/accuracy": 0.5}),
    (20, {"valid/loss": 1.75}),
    (30, {"train/loss": float("nan"), "train/accuracy": 1.0}),
]


def events(path: Path):
    """Yield the events of a file: length, its checksum, the message, its checksum, all little-endian."""
    content, offset = path.read_bytes(), 0
    while offset < len(content):
        (length,) = struct.unpack_from("<Q", content, offset)
        yield event_pb2.Event.FromString(content[offset + 12 : offset + 12 + length])
        offset += 12 + length + 4


def scalars(path: Path):
    return [
        (event.step, value.tag, value.simple_value) for event in events(path) for value in event.summary.value
    ]  # fmt: skip


def starts(path: Path):
    return [
        event.step for event in events(path) if event.session_log.status == event_pb2.SessionLog.START
    ]  # fmt: skip


def write(workdir, rows, first_step=0):
    sink = tensorboard.make(workdir, first_step)
    for step, values in rows:
        sink.write(step, values)
    sink.close()
    return set((workdir / "tensorboard").iterdir())


def test_each_number_of_each_row_is_a_scalar_with_its_name_and_step(tmp_path):
    (path,) = write(tmp_path, ROWS)
    expected = [(step, name, value) for step, values in ROWS for name, value in values.items()]
    found = scalars(path)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    for (_, _, value), (_, _, wanted) in zip(found, expected, strict=True):
        assert value == pytest.approx(wanted, nan_ok=True)
    assert math.isnan(found[-2][2])
    assert starts(path) == []  # nothing before it to hide


def test_after_a_resume_the_new_file_hides_later_steps_of_the_old_one_and_destroys_nothing(tmp_path):
    old = write(tmp_path, ROWS)
    before = {path: path.read_bytes() for path in old}
    (new,) = write(tmp_path, ROWS[3:], first_step=20) - old
    assert {path: path.read_bytes() for path in old} == before
    assert starts(new) == [21]
    assert [row[0] for row in scalars(new)] == [30, 30]


def test_the_files_are_where_and_named_as_tensorboard_looks_for_them(tmp_path):
    (path,) = write(tmp_path, ROWS[:1])
    assert path.parent == tmp_path / "tensorboard"
    assert "tfevents" in path.name
    tensorboard.make(tmp_path, 0, folder="elsewhere").close()
    assert list((tmp_path / "elsewhere").iterdir())


FULL = """
import resource, signal, sys
from pathlib import Path
from jaxlab.track import tensorboard
sink = tensorboard.make(Path(sys.argv[1]), 0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    for step in range(10_000):
        sink.write(step, {"train/loss": 1.0})
except OSError as error:
    print(type(error).__name__, error.errno)
"""


def test_a_disk_that_is_full_is_an_error_and_does_not_keep_the_process_from_ending(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "OSError 27\n", done.stderr
