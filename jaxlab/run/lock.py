"""One writer a run directory: a lock that the operating system frees with the process, however that ends.

The file names who holds it. Readers, such as an evaluation, need no lock.
Usage: ``with one_writer(workdir): ...``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import UsageError

_log = logging.getLogger("jaxlab")


@contextlib.contextmanager
def one_writer(workdir: Path) -> Iterator[None]:
    """Hold the lock of a directory that is there.

    Raises:
      UsageError: another process holds it.
    """
    path = workdir / record.LOCK
    descriptor = _taken(path)
    left_by = os.read(descriptor, 1000)
    if left_by:
        _log.warning("%s was left by %s, which is gone", path, described(left_by))
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(this_process()).encode(), 0)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _taken(path: Path) -> int:
    """Return the open and locked file; one that another process removed meanwhile is no lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = described(os.read(descriptor, 1000))
            os.close(descriptor)
            raise UsageError(
                f"{path.parent} is being written by {holder}; wait for it, stop it, or choose another --workdir"
            ) from None
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def this_process() -> dict[str, Any]:
    """Return what names this process to whoever finds its lock."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def described(content: bytes | None) -> str:
    """Name the process that wrote a lock, as JSON of `this_process` says it."""
    try:
        found = json.loads(content or b"")
        return f"process {found['pid']} on {found['host']} (since {found['since']})"
    except (ValueError, KeyError, TypeError):  # read before it was written
        return "another process"
