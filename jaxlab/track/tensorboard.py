"""TensorBoard event files, written without TensorFlow.

Usage: ``config.sinks.tensorboard = spec("jaxlab.track.tensorboard:make")``, then ``tensorboard --logdir WORKDIR``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class TensorBoard:
    """Writes each number of a row as a scalar; numbering starts anew after a resume at the resumed step."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open an event file in `folder`; steps after `first_step` in older files are hidden from view."""
        from tensorboardX import SummaryWriter  # a second to import, and only where the sink is on
        from tensorboardX.proto.summary_pb2 import Summary

        self._summary = Summary
        purge = first_step + 1 if first_step else None
        # the writer names its file by the second and would overwrite that of a run stopped within it
        self._writer = SummaryWriter(str(folder), purge_step=purge, filename_suffix=f".{first_step}")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the row's numbers; a thread of the writer's own puts them on disk."""
        # one event a row: `add_scalar` makes one a number, which takes several times as long
        numbers = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._writer.file_writer.add_summary(self._summary(value=numbers), step)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


def make(workdir: Path, first_step: int, folder: str = "tensorboard") -> TensorBoard:
    """Return a sink that writes under `folder` of the run directory."""
    return TensorBoard(workdir / folder, first_step)
