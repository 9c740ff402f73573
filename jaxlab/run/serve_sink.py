"""A sink in a thread of its own: neither a slow one, nor a dead one, nor one that raises stops or slows the run.

Usage: ``served = ServedSink(name, sink)``, then ``served.put(step, row)`` and at the end ``served.close()``.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Mapping

from jaxlab.core.types import Sink

_log = logging.getLogger("jaxlab")
SERVE_EVERY = 0.5  # seconds between looks for rows: waking a thread for each row costs the step's
MOST_ROWS = 10_000  # that wait for a slow sink; the oldest are left out after that
PATIENCE = 20.0  # seconds that the end of a run waits for a sink


class ServedSink:
    """Hands rows over; what the sink raises is reported once, and the sink gets no more."""

    def __init__(self, name: str, sink: Sink) -> None:
        """Begin to serve."""
        self._name, self._sink = name, sink
        self._rows: collections.deque[tuple[int, Mapping[str, float]]] = collections.deque(maxlen=MOST_ROWS)
        self._put = self._taken = 0
        self._failed = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"jaxlab-sink-{name}", daemon=True)
        self._thread.start()

    def put(self, step: int, row: Mapping[str, float]) -> None:
        """Leave a row for the sink."""
        self._put += 1
        self._rows.append((step, row))

    def close(self) -> None:
        """Wait for the rows that are left and for the sink's end, but not for ever."""
        self._closing.set()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            _log.warning("the sink %s has not ended after %g s; the run ends without it", self._name, PATIENCE)
        elif self._taken < self._put:
            _log.warning("the sink %s missed %d of %d rows", self._name, self._put - self._taken, self._put)

    def _serve(self) -> None:
        try:
            closing = False
            while not closing:
                closing = self._closing.wait(SERVE_EVERY)
                while self._rows:
                    self._sink.write(*self._rows.popleft())
                    self._taken += 1
        except BaseException as error:
            self._report(error)
        try:
            self._sink.close()
        except BaseException as error:
            self._report(error)

    def _report(self, error: BaseException) -> None:
        if self._failed:  # closing what has failed fails as well
            return
        self._failed = True
        _log.warning("the sink %s failed and gets no more rows: %s: %s", self._name, type(error).__name__, error)
