"""Ctrl-C ends a command wherever it comes: in plain code, in a callback that forgets exceptions, within an import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from jaxlab.cli.interrupt import interruptible

BEGIN = """
import os, signal, sys, time
from jaxlab.cli import interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupt._PATIENCE = 1.0
me = lambda: os.kill(os.getpid(), signal.SIGINT)
with interrupt.interruptible():
"""
PLAIN = """
    try:
        me()
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(7)  # as main() does, after its own cleaning up
"""
FORGOTTEN = """
    class Callback:
        def __del__(self):
            me()
            time.sleep(0.01)
    Callback()
    time.sleep(60)
"""
IMPORT = """
    sys.path.insert(0, sys.argv[1])
    try:
        import interrupted
    except BaseException:
        sys.exit(9)
"""
TWICE = """
    try:
        me()
        time.sleep(60)
    except KeyboardInterrupt:
        me()
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("program", "code"), [(PLAIN, 7), (FORGOTTEN, 130), (IMPORT, 130), (TWICE, 130)],
    ids=["plain", "forgotten", "import", "twice"],
)  # fmt: skip
def test_an_interrupt_ends_the_command(program, code, tmp_path):
    (tmp_path / "interrupted.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", BEGIN + program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code, done.stderr
    assert ("stopped" in done.stderr) == (code == 130)


def test_what_handled_signals_before_does_so_afterwards():
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever began the tests may ignore it
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)


def test_another_thread_and_one_who_ignores_interrupts_are_left_alone():
    seen = []

    def inside():
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
