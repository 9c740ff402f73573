"""What a run writes while it trains: rows to ``metrics.jsonl`` and the sinks, sentences to ``log.txt``."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxlab.core import record
from jaxlab.core.types import Sink

_log = logging.getLogger("jaxlab")


class Journal:
    """Goes on where an earlier process stopped after `step`: later rows are dropped, seconds are counted on."""

    def __init__(self, workdir: Path, step: int, sinks: Sequence[Sink]) -> None:
        """Open the files in `workdir`."""
        self._metrics, self._sinks = record.MetricsLog(workdir, step), sinks
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
        """Write one row everywhere, with ``wall``: the seconds that the run has taken, earlier processes included."""
        values = {name: float(value) for name, value in row.items()} | {"wall": time.monotonic() - self._began}
        self._metrics.write(step, values)
        for sink in self._sinks:
            sink.write(step, values)

    def sync(self) -> None:
        """Flush the rows to disk."""
        self._metrics.sync()

    def close(self) -> None:
        """Close the files and the sinks."""
        for sink in self._sinks:
            sink.close()
        self._metrics.close()
        for handler in self._handlers:
            _log.removeHandler(handler)
            handler.close()
        _log.propagate = True
