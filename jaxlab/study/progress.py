"""A study's live table on stderr: a row an arm, with how many seeds are done and the metric so far.

Usage: ``with Progress(study, arms, tasks, todo) as progress: progress.tell(outcome)``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from jaxlab.core.errors import JaxlabError
from jaxlab.study.description import PlannedArm, Study
from jaxlab.study.read import value_of
from jaxlab.study.tasks import FINISHED, Outcome, Task, done


class Progress:
    """Shows how far a study is: a table on a terminal, a line a run elsewhere."""

    def __init__(self, study: Study, arms: Sequence[PlannedArm], tasks: Sequence[Task], todo: Sequence[Task]) -> None:
        """Begin with what is done already; `todo` are the others."""
        self._study, self._arms, self._total = study, arms, len(tasks)
        self._folders = {(task.arm, task.seed): task.folder for task in tasks}
        self._values: dict[str, list[float]] = {arm.key: [] for arm in arms}
        self._bad: dict[str, int] = {arm.key: 0 for arm in arms}
        self._began, self._did, self._todo = time.monotonic(), 0, len(todo)
        for task in tasks:
            if task not in todo and done(task):
                self._add(task.arm, task.seed)
        console = Console(stderr=True, markup=False)
        self._live = Live(self._table(), console=console, auto_refresh=False) if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        """Show the table."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the table as it stands."""
        if self._live is not None:
            self._live.stop()

    def tell(self, outcome: Outcome) -> None:
        """Show the outcome of a run."""
        self._did += 1
        if outcome.status == FINISHED:
            self._add(outcome.arm, outcome.seed)
        else:
            self._bad[outcome.arm] += 1
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            return
        name = next(arm.label for arm in self._arms if arm.key == outcome.arm)
        shown = f"{self._study.metric} {self._values[outcome.arm][-1]:.4g}" if outcome.status == FINISHED else ""
        print(f"{self._counted()}  {name}, seed {outcome.seed}: {outcome.status} {shown}", file=sys.stderr, flush=True)

    def _add(self, arm: str, seed: int) -> None:
        try:
            self._values[arm].append(value_of(self._folders[arm, seed], self._study.metric, self._study.at))
        except JaxlabError:  # told by the report, which names the file
            self._values[arm].append(float("nan"))

    def _counted(self) -> str:
        finished = sum(map(len, self._values.values()))
        took = time.monotonic() - self._began
        left = took / self._did * max(0, self._todo - self._did) if self._did else float("nan")
        return f"{finished}/{self._total} runs, {took:,.0f} s, about {left:,.0f} s left"

    def _table(self) -> Table:
        table = Table(title=self._counted(), title_justify="left")
        for name in ("arm", "done", "not", self._study.metric):
            table.add_column(name, overflow="fold")
        for arm in self._arms:
            values = self._values[arm.key]
            spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
            shown = f"{np.mean(values):.4g}{spread}" if values else ""
            row = arm.label + (" (baseline)" if arm.is_baseline else "")
            table.add_row(row, f"{len(values)}/{len(self._study.seeds)}", str(self._bad[arm.key] or ""), shown)
        return table
