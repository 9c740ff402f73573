"""Progress reaches a person: lines in a log file, a bar on a terminal, which is left as it was found."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from jaxlab.track import console

ROOT = Path(__file__).parents[2]
SPEED = {"steps_per_second": 10.0, "examples_per_second": 1280.0, "data_wait": 0.01, "wall": 3.0}


def test_lines_prints_one_line_a_row_with_the_step_and_the_values_to_stderr_alone(capsys):
    lines = console.Lines(30, seconds=0.0)
    lines.write(10, {"train/loss": 2.5, "train/accuracy": 0.25, **SPEED})
    lines.write(20, {"train/loss": 12345.678, **SPEED})
    lines.write(20, {"valid/loss": float("nan")})
    lines.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "step 10/30  loss 2.5  accuracy 0.25  steps_per_second 10",
        "step 20/30  loss 12,346  steps_per_second 10",
        "step 20/30  valid/loss nan",
    ]


def test_lines_leaves_out_training_rows_that_come_too_soon_but_no_evaluation_and_not_the_last(capsys):
    lines = console.Lines(40, seconds=3600.0)
    for step in (10, 20, 30):
        lines.write(step, {"train/loss": 1.0, **SPEED})
    lines.write(30, {"valid/loss": 1.0})
    lines.write(40, {"train/loss": 1.0, **SPEED})
    steps = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert steps == ["10/40", "30/40", "40/40"]


def test_where_stderr_is_no_terminal_there_are_lines():
    assert isinstance(console.make(10, 0), console.Lines)


SCRIPT = """
import time
from jaxlab.track import console
sink = console.make(40, 10)
for step in (20, 30, 35):
    time.sleep(0.3)
    sink.write(step, {"train/loss": 2.5 / step, "train/accuracy": step / 100, "train/grad_norm": 0.5,
                      "steps_per_second": 10.0, "examples_per_second": 1280.0, "data_wait": 0.0, "wall": 1.0})
    sink.write(step, {"valid/loss": 1.25, "valid/[odd]": 2.0})
time.sleep(0.3)
sink.close()
print("the result")
"""


def on_a_terminal(columns):
    """Run the script with stderr on a pseudo-terminal; return what stood there, stdout, and both terminal settings."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stderr=theirs, stdout=subprocess.PIPE, env=environment, text=True
    )
    shown = b""
    while process.poll() is None or select.select([ours], [], [], 0.2)[0]:
        if select.select([ours], [], [], 0.2)[0]:
            shown += os.read(ours, 65536)
    after = termios.tcgetattr(theirs)
    os.close(theirs)
    os.close(ours)
    with process.stdout as out:
        return shown.decode(), out.read(), process.returncode, before, after


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120])
def test_a_bar_shows_loss_accuracy_steps_and_time_left_and_leaves_the_terminal_usable(columns):
    shown, out, returned, before, after = on_a_terminal(columns)
    assert returned == 0, shown
    assert out == "the result\n"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "compiling" in text
    assert re.search(r"35/40.* \d+:\d\d:\d\d .*loss 0.07143 +accuracy 0.35", text)
    assert "step 30  valid/loss 1.25  valid/[odd] 2" in text  # an evaluation stays above the bar
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is hidden, and shown again
    assert shown.rindex("\x1b[?25h") > shown.rindex("35/40")
    assert after == before
