"""A pool of processes on this machine, with its devices divided. Usage: ``jaxlab study … --executor=local``.

Each worker is a process that does one run after another; one that is killed, by the system for its memory or by a
crash, is replaced, and its run counts as killed. Workers end with the study, even if that is killed.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection
from typing import Any

from jaxlab.core.errors import PreemptedError, UsageError
from jaxlab.study.tasks import KILLED, PREEMPTED, Executor, Outcome, Task, do, outcome

_log = logging.getLogger("jaxlab")
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TPU_VISIBLE_DEVICES")


def make(workers: int = 2, devices: str = "") -> Executor:
    """Return the executor.

    Args:
      workers: processes at once.
      devices: numbers of accelerators with commas between, given to the workers in equal parts; empty leaves all to
        all of them, and divides the cores of a CPU.
    """
    numbers = [part for part in devices.split(",") if part]
    if workers < 1 or (numbers and len(numbers) % workers):
        raise UsageError(f"--executor.workers={workers}: expected 1 or more, and a divisor of {len(numbers)} devices")

    def execute(tasks: Sequence[Task]) -> Iterator[Outcome]:
        share = len(numbers) // workers
        surroundings = [_surroundings(workers, numbers[i * share : (i + 1) * share]) for i in range(workers)]
        with _Pool(surroundings[: len(tasks)]) as pool:
            yield from pool.do(tasks)

    return execute


def _surroundings(workers: int, devices: Sequence[str]) -> dict[str, str]:
    """Return the environment of a worker: its devices, or its part of the cores."""
    if devices:
        return dict.fromkeys(_VISIBLE, ",".join(devices))
    threads = max(1, len(os.sched_getaffinity(0)) // workers) if hasattr(os, "sched_getaffinity") else 1
    return {"NPROC": str(threads), "OMP_NUM_THREADS": str(threads)}


class _Pool:
    """Worker processes, each with at most one task under way."""

    def __init__(self, surroundings: Sequence[Mapping[str, str]]) -> None:
        self._workers = [_Worker(each) for each in surroundings]

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.stop()

    def do(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield each task's outcome as it comes."""
        waiting = collections.deque(tasks)
        while waiting or any(worker.task for worker in self._workers):
            for worker in self._workers:
                if worker.task is None and waiting:
                    worker.begin(waiting.popleft())
            busy = {worker.pipe: worker for worker in self._workers if worker.task is not None}
            for pipe in connection.wait(list(busy)):
                found = busy[pipe].result()  # type of `wait` is that of any of the things it takes
                if found.status == PREEMPTED:
                    raise PreemptedError("stopped, and every run is saved; run the same command to go on")
                yield found


class _Worker:
    """One process and the task that it does."""

    def __init__(self, surroundings: Mapping[str, str]) -> None:
        self._surroundings = dict(surroundings)
        self.task: Task | None = None
        self._began = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._surroundings), daemon=False)
        self._process.start()
        theirs.close()  # so that its end is noticed

    def begin(self, task: Task) -> None:
        self.task, self._began = task, time.monotonic()
        self.pipe.send(task)

    def result(self) -> Outcome:
        """Return what came of the task; a process that is gone is replaced."""
        task, self.task = self.task, None
        if task is None:
            raise RuntimeError("a worker without a task has no result")
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            self._start()
            return outcome(task, KILLED, self._began, f"its process ended with {how}")

    def stop(self) -> None:
        """Ask the process to save and end, and wait for it."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        if self.task is not None and self._process.is_alive():
            self._process.terminate()
        self._process.join()


def _work(pipe: connection.Connection, surroundings: Mapping[str, str]) -> None:
    """Do the tasks that come through the pipe until None comes."""
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C reaches the study alone, which asks the workers to stop
    os.environ.update(surroundings)
    threading.Thread(target=_leave_with_the_study, name="jaxlab-parent", daemon=True).start()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while (task := pipe.recv()) is not None:
        pipe.send(_done(task))


def _done(task: Task) -> Outcome:
    began = time.monotonic()
    try:
        return do(task)
    except PreemptedError as error:
        return outcome(task, PREEMPTED, began, str(error))


def _leave_with_the_study() -> None:
    """End at once when the process that gives the tasks is gone: checkpoints on disk are whole at any moment."""
    parent: Any = multiprocessing.parent_process()
    connection.wait([parent.sentinel])
    os._exit(1)
