"""One writer a bucket's folder: an object that names its holder, who writes it again and again while it is there.

Buckets free no lock when a process dies. So one that has not been written for a while is nobody's; how long is measured
by the one who waits, as clocks differ.
Usage: ``with Lease(bucket, owner) as lease: ...; lease.held``.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from types import TracebackType

from jaxlab.core.errors import UsageError
from jaxlab.run.bucket import Bucket
from jaxlab.run.lock import described, this_process

NAME = ".jaxlab-lease.json"
BEAT = 10.0  # seconds between two signs of life
GONE = 60.0  # seconds without one after which the holder is gone
_SETTLED = 3.0  # seconds in which two who take over at once see who was later
_WAY_ON = "wait for it, stop it, or choose another --workdir"
_log = logging.getLogger("jaxlab")


class Lease:
    """The right to write, and the thread that keeps it."""

    def __init__(self, bucket: Bucket, owner: str) -> None:
        """Ask for nothing yet.

        Args:
          bucket: whose folder is to be written.
          owner: an id that stays the same when the same folder of this machine goes on; at most one process has it.
        """
        self._bucket, self._owner = bucket, owner
        self._process, self._count, self._left = this_process(), 0, threading.Event()
        self._thread = threading.Thread(target=self._keep, name="jaxlab-lease", daemon=True)
        self.held = False

    def __enter__(self) -> Lease:
        """Take the lease, once nobody else has it.

        Raises:
          UsageError: another process has it.
        """
        there = self._bucket.read(NAME) is not None  # looked at first, as not every bucket knows conditions
        if there or not self._bucket.write(NAME, self._content(), new=True):
            self._take_over()
        self.held = True
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give it back, unless another process has taken it."""
        self._left.set()
        self._thread.join()
        try:
            if self.held and _owner(self._bucket.read(NAME)) == self._owner:
                self._bucket.remove(NAME)
        except Exception as problem:  # whatever a bucket raises: nobody has it in a minute
            _log.warning("%s/%s could not be removed: %s", self._bucket.url, NAME, problem)
        self.held = False

    def _take_over(self) -> None:
        """Take what its holder left; one of this very folder has ended, as only one process can have that."""
        url, found = self._bucket.url, self._bucket.read(NAME)
        if found is not None and _owner(found) != self._owner:
            _log.warning("%s is or was written by %s: looking for %.0f s", url, described(found), GONE)
            until = time.monotonic() + GONE
            while time.monotonic() < until and (now := self._bucket.read(NAME)) is not None:
                if now != found:
                    raise UsageError(f"{url} is being written by {described(now)}; {_WAY_ON}")
                time.sleep(BEAT / 5)
        self._bucket.write(NAME, self._content())
        time.sleep(_SETTLED)
        found = self._bucket.read(NAME)
        if _owner(found) != self._owner:
            raise UsageError(f"{url} has been taken over by {described(found)} at the same time")

    def _keep(self) -> None:
        while not self._left.wait(BEAT):
            try:
                found = self._bucket.read(NAME)
                if found is not None and _owner(found) != self._owner:
                    _log.error("%s has been taken over by %s: this process stops", self._bucket.url, described(found))
                    self.held = False
                    os.kill(os.getpid(), signal.SIGTERM)  # as a scheduler would: what is saved here is whole
                    return
                self._bucket.write(NAME, self._content())
            except Exception as error:  # whatever a bucket raises; the next time may do better
                _log.warning("%s cannot be reached: %s", self._bucket.url, error)

    def _content(self) -> bytes:
        self._count += 1
        return json.dumps({"owner": self._owner, "beat": self._count, **self._process}).encode()


def _owner(content: bytes | None) -> str | None:
    try:
        return str(json.loads(content or b"")["owner"])
    except (ValueError, KeyError, TypeError):
        return None
