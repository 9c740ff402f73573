"""What a run writes while it trains: rows to ``metrics.jsonl`` and the sinks, sentences to ``log.txt``."""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxlab.core import record
from jaxlab.core.types import Sink

_log = logging.getLogger("jaxlab")
SERVE_EVERY = 0.5  # seconds between looks for rows that wait for the sinks


class Journal:
    """Goes on where an earlier process stopped after `step`: later rows are dropped, seconds are counted on."""

    def __init__(self, workdir: Path, step: int, sinks: Sequence[Sink]) -> None:
        """Open the files in `workdir`."""
        self._metrics, self._sinks = record.MetricsLog(workdir, step), sinks
        self._rows: collections.deque[tuple[int, dict[str, float]]] = collections.deque()
        self._closing = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve_sinks, name="jaxlab-sinks", daemon=True)
        self._thread.start()
        earlier = max((row["wall"] for row in record.read_metrics(workdir)), default=0.0)
        self._began = time.monotonic() - earlier
        file, terminal = logging.FileHandler(workdir / record.LOG), logging.StreamHandler()
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        terminal.setLevel(logging.WARNING)
        self._handlers = (file, terminal)
        for handler in self._handlers:
            _log.addHandler(handler)
        _log.setLevel(logging.INFO)
        _log.propagate = False  # absl's handler on the root would print every sentence through the progress bar

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Write one row, with ``wall``: the seconds that the run has taken, earlier processes included.

        The sinks get it from a thread, off the step's path; what a sink raised is raised here at the next row.
        """
        values = {name: float(value) for name, value in row.items()} | {"wall": time.monotonic() - self._began}
        self._metrics.write(step, values)
        self._rows.append((step, values))
        if self._error is not None:
            raise self._error

    def sync(self) -> None:
        """Flush the rows to disk."""
        self._metrics.sync()

    def close(self) -> None:
        """Close the files and the sinks, after the rows that wait for them."""
        self._closing.set()
        self._thread.join()
        if self._error is not None:
            _log.warning("a sink failed: %s: %s", type(self._error).__name__, self._error)
        self._metrics.close()
        for handler in self._handlers:
            _log.removeHandler(handler)
            handler.close()
        _log.propagate = True

    def _serve_sinks(self) -> None:
        try:
            closing = False
            while not closing:
                closing = self._closing.wait(SERVE_EVERY)  # not for each row: waking a thread costs the step's
                while self._rows:
                    row = self._rows.popleft()
                    for sink in self._sinks:
                        sink.write(*row)
        except BaseException as error:  # raised again where the run can end by it
            self._error = error
        finally:
            for sink in self._sinks:
                sink.close()
