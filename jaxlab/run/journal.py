"""What a run writes while it trains: rows to ``metrics.jsonl`` and the sinks, sentences to ``log.txt``."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from jaxlab.core import record
from jaxlab.core.types import Sink
from jaxlab.run.serve_sink import ServedSink

_log = logging.getLogger("jaxlab")
IDS = "data/ids"  # the hash of what was seen: for comparing runs, no curve


class Unwritten:
    """The journal of a process that does not write the run's directory: warnings go to its terminal, rows nowhere."""

    def __init__(self, process: int) -> None:
        """Mark what it says with the number of the `process`."""
        self._handlers: tuple[logging.Handler, ...] = (_terminal(f"process {process}: %(message)s"),)
        _open_log(self._handlers)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Leave the row to process 0."""

    def rewind(self, step: int) -> None:
        """Leave the rows to process 0."""

    def sync(self) -> None:
        """Leave the rows to process 0."""

    def close(self) -> None:
        """Close the log."""
        _close_log(self._handlers)


class Journal(Unwritten):
    """Goes on where an earlier process stopped after `step`: later rows are dropped, seconds are counted on."""

    def __init__(self, workdir: Path, step: int, sinks: Mapping[str, Sink], *, terminal: bool = True) -> None:
        """Open the files in `workdir`; the sinks are closed with the journal, warnings go to the `terminal` too."""
        self._workdir, self._metrics = workdir, record.MetricsLog(workdir, step)
        self._sinks = [ServedSink(name, sink) for name, sink in sinks.items()]
        earlier = max((row["wall"] for row in record.read_metrics(workdir)), default=0.0)
        self._began = time.monotonic() - earlier
        file = logging.FileHandler(workdir / record.LOG)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._handlers = (file, *([_terminal("%(message)s")] if terminal else []))
        _open_log(self._handlers)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Write one row, with ``wall``: the seconds that the run has taken, earlier processes included."""
        values = {name: float(value) for name, value in row.items()} | {"wall": time.monotonic() - self._began}
        self._metrics.write(step, values)
        shown = {name: value for name, value in values.items() if name != IDS}
        for sink in self._sinks:
            sink.put(step, shown)

    def rewind(self, step: int) -> None:
        """Drop the rows after `step`, from which the run goes on."""
        self._metrics.close()
        self._metrics = record.MetricsLog(self._workdir, step)

    def sync(self) -> None:
        """Flush the rows to disk."""
        self._metrics.sync()

    def close(self) -> None:
        """Close the files and the sinks, after the rows that wait for them."""
        for sink in self._sinks:
            sink.close()
        self._metrics.close()
        super().close()


def _terminal(form: str) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter(form))
    return handler


def _open_log(handlers: tuple[logging.Handler, ...]) -> None:
    for handler in handlers:
        _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False  # absl's handler on the root would print every sentence through the progress bar


def _close_log(handlers: tuple[logging.Handler, ...]) -> None:
    for handler in handlers:
        _log.removeHandler(handler)
        handler.close()
    _log.propagate = True
    _log.setLevel(logging.NOTSET)  # what is said between runs is not printed
