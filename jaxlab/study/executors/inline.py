"""One run after another, in this process. Usage: ``jaxlab study … --executor=inline``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxlab.study.tasks import Executor, Outcome, Task, do


def make() -> Executor:
    """Return the executor."""

    def execute(tasks: Sequence[Task]) -> Iterator[Outcome]:
        yield from map(do, tasks)

    return execute
