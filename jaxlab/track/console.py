"""Progress on stderr: a bar on a terminal, plain lines elsewhere.

Usage: ``config.sinks.console = spec("jaxlab.track.console:make")``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

_HIDDEN = ("wall", "examples_per_second", "data_wait")


def describe(values: Mapping[str, float]) -> str:
    """Return a row as short text: ``loss 0.3101  accuracy 0.9102``, names without their common prefix."""
    shown = {name: value for name, value in values.items() if name not in _HIDDEN}
    return "  ".join(f"{name.removeprefix('train/')} {_short(value)}" for name, value in shown.items())


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


class _Values(TextColumn):
    """The latest row: the one column that gives way on a narrow terminal, by an ellipsis."""

    def render(self, task: Task) -> Text:
        """Return the description as one line."""
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class Bar:
    """A rich progress bar with the latest training row beside it; other rows stand above it."""

    def __init__(self, total_steps: int, first_step: int) -> None:
        """Show a bar that starts at `first_step`."""
        columns = (
            BarColumn(bar_width=16, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            _Values("", table_column=Column(no_wrap=False)),
        )
        self._progress = Progress(*columns, console=Console(stderr=True, markup=False))
        self._progress.start()
        self._task = self._progress.add_task("compiling", total=total_steps, completed=first_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar, or print an evaluation's row above it."""
        if "steps_per_second" in values:
            self._progress.update(self._task, completed=step, description=describe(values))
        else:
            self._progress.console.print(f"step {step}  {describe(values)}", highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._progress.stop()


class Lines:
    """One line a row, at most one training row every `seconds`."""

    def __init__(self, total_steps: int, seconds: float) -> None:
        """Print lines that name the step of `total_steps`."""
        self._total, self._seconds, self._last = total_steps, seconds, -float("inf")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Print the row; a training row that comes too soon after the one before is left out."""
        now = time.monotonic()
        if "steps_per_second" in values and now - self._last < self._seconds and step < self._total:
            return
        self._last = now
        print(f"step {step}/{self._total}  {describe(values)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to close."""


def make(total_steps: int, first_step: int, seconds: float = 2.0) -> Bar | Lines:
    """Return a bar where stderr is a terminal, else lines; `seconds` is the least time between training lines."""
    return Bar(total_steps, first_step) if sys.stderr.isatty() else Lines(total_steps, seconds)
