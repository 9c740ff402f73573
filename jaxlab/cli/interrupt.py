"""Ctrl-C in commands that have nothing to save: they end, whatever Python does with the exception.

Python raises KeyboardInterrupt wherever the main thread is. Within a callback from C++ it is printed and forgotten;
within an import it becomes an ImportError, or aborts the process. Training has its own way, `jaxlab.run.stopping`.
Usage: ``with interruptible(): ...``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

CODE = 130
_PATIENCE = 5.0  # seconds in which the exception may end the command, temporary files and child processes included


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Handle SIGINT while the block lasts, but where the main thread is another's."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    left = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if left.is_set() or _imports(frame):
            _leave()
        left.set()
        late = threading.Timer(_PATIENCE, _leave)
        late.daemon = True
        late.start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _imports(frame: FrameType | None) -> bool:
    """Say whether a module is being imported, in `frame` or above."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _leave() -> None:
    print("stopped", file=sys.stderr, flush=True)
    os._exit(CODE)
