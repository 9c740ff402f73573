"""SIGTERM and SIGINT: the first asks a run to save and stop, the second ends the process at once.

Before the first step there is nothing to save, and the run stops where it is. Python runs a handler only between two
steps of its own, which a compilation of minutes is not: a thread reads the signals as they come, so that the second one
works at any time. Usage: ``with stop_requests() as stop: ...; stop.wait_for_step(); ...; stop.asked()``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from jaxlab.core.errors import PreemptedError

_log = logging.getLogger("jaxlab")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
Judge = Callable[[int, Mapping[str, float]], bool]


class Stop:
    """Whether the run was asked to stop, and what that means at present."""

    def __init__(self, judge: Judge | None = None) -> None:
        self._asked, self._judge = threading.Event(), judge
        self.stepping = False  # whether a step may be under way, which is to be saved

    def asked(self) -> bool:
        """Say whether a signal has come."""
        return self._asked.is_set()

    def look(self, step: int, row: Mapping[str, float]) -> None:
        """Ask the run to stop if its judge says so of a row that it wrote."""
        if self._judge is not None and self._judge(step, row):
            self._asked.set()

    def wait_for_step(self) -> None:
        """From now on a signal lets the step finish; it is the loop that looks and saves.

        Raises:
          PreemptedError: a signal has come already.
        """
        self.stepping = True
        self._leave_if_asked()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal, on the main thread."""
        if not self._asked.is_set():
            self._asked.set()
            if self.stepping:
                _log.warning("stopping after this step; once more to leave at once")
        if not self.stepping:
            self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        if self._asked.is_set():
            raise PreemptedError("stopped before the first step; run the same command to go on")


@contextlib.contextmanager
def stop_requests(judge: Judge | None = None) -> Iterator[Stop]:
    """Handle the signals; outside the main thread, as in a notebook's worker, their owner does.

    Args:
      judge: is shown each row with its step, and says whether the run is to save and stop.
    """
    stop = Stop(judge)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    previous = {number: signal.signal(number, stop.handle) for number in SIGNALS}
    previous_writer = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_leave_at_the_second, args=(reader,), name="jaxlab-signals", daemon=True).start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(previous_writer)
        for number, handler in previous.items():
            signal.signal(number, handler)
        writer.close()  # ends the thread


def _leave_at_the_second(reader: socket.socket) -> None:
    """Read the number of each signal that comes, as a byte; checkpoints on disk are whole at any moment."""
    came = 0
    while number := reader.recv(1):
        came += number[0] in SIGNALS
        if came > 1:
            os._exit(128 + number[0])
    reader.close()
