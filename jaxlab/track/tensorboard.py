"""TensorBoard event files, written without TensorFlow.

Usage: ``config.sinks.tensorboard = spec("jaxlab.track.tensorboard:make")``, then ``tensorboard --logdir WORKDIR``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

_FLUSH_EVERY = 10.0  # seconds, after which a viewer sees what was written


class TensorBoard:
    """Writes each number of a row as a scalar; numbering starts anew after a resume at the resumed step."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open an event file in `folder`; steps after `first_step` in older files are hidden from view."""
        from tensorboardX.event_file_writer import EventsWriter  # a second to import, and only where the sink is on
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(parents=True, exist_ok=True)
        # the writer names its file by the second and would overwrite that of a run stopped within it; the one below
        # tensorboardX's usual face, as that has a thread which dies with a full disk and is waited for at exit
        self._writer = EventsWriter(str(folder / "events"), f".{first_step}")
        self._flushed = time.monotonic()
        if first_step:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(first_step + 1, session_log=start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the row's numbers."""
        # one event a row: `add_scalar` makes one a number, which takes several times as long
        numbers = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step, summary=self._summary(value=numbers))
        if time.monotonic() - self._flushed > _FLUSH_EVERY:
            self._writer.flush()
            self._flushed = time.monotonic()

    def _write(self, step: int, **content: object) -> None:
        self._writer.write_event(self._event(step=step, wall_time=time.time(), **content))

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


def make(workdir: Path, first_step: int, folder: str = "tensorboard") -> TensorBoard:
    """Return a sink that writes under `folder` of the run directory."""
    return TensorBoard(workdir / folder, first_step)
