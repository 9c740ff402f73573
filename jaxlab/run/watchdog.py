"""Ends a run that hangs: where no step, evaluation or save ends for too long, as when a device or a peer is gone.

The process prints every thread's stack and exits with 75, so that whoever started it starts it again.
Usage: ``with watchdog(seconds, step, folder / "log.txt", peers.last_words) as progress: ...; progress(step)``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxlab.core.errors import PreemptedError

_TELLING = 10.0  # seconds that last words may take


@contextlib.contextmanager
def watchdog(
    seconds: float, step: int, log: Path | None, last_words: Callable[[str], None]
) -> Iterator[Callable[[int], None]]:
    """Give the function that is told of every step that has been done; 0 seconds watch nothing.

    Args:
      seconds: how long may pass between two calls of it; a compilation counts.
      step: already taken.
      log: the file that gets the stacks too; None where another process writes it.
      last_words: tells the run's other processes why this one ends; may hang as well.
    """
    if not seconds:
        yield lambda step: None
        return
    latest, over = [(step, time.monotonic())], threading.Event()

    def progress(step: int) -> None:
        latest[0] = (step, time.monotonic())

    def watch() -> None:
        while not over.wait(min(1.0, seconds / 4)):
            done, when = latest[0]
            if time.monotonic() - when > seconds:
                problem = f"nothing has been done for {seconds:g} s (config.train.watchdog) after step {done}"
                _leave(problem, log, last_words)

    threading.Thread(target=watch, name="jaxlab-watchdog", daemon=True).start()
    try:
        yield progress
    finally:
        over.set()


def _leave(problem: str, log: Path | None, last_words: Callable[[str], None]) -> None:
    """Say where every thread stands and end the process, which could not end itself."""
    message = f"stopped: {problem}; the latest checkpoint stands, run the same command to go on\n"
    if log is not None:
        with contextlib.suppress(OSError), log.open("a") as file:
            file.write(message)
            file.flush()
            faulthandler.dump_traceback(file)
    faulthandler.dump_traceback(sys.__stderr__)
    os.write(2, message.encode())
    telling = threading.Thread(target=last_words, args=(problem,), daemon=True)
    telling.start()
    telling.join(_TELLING)
    os._exit(PreemptedError.exit_code)
