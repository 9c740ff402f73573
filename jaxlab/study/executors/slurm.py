"""Each run a SLURM job, by submitit.

Usage: ``jaxlab study … --executor=slurm --executor.partition=gpu --executor.gpus=1``. The command waits for the jobs;
stopped and run again, it submits what is missing, and a job that still writes a run keeps it: its lock says so.
Needs ``pip install 'jaxlab[slurm]'``.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from jaxlab.core.errors import PreemptedError, UsageError, did_you_mean
from jaxlab.study.tasks import KILLED, PREEMPTED, Executor, Outcome, Task, do, outcome

CLUSTERS = ("slurm", "local")

_log = logging.getLogger("jaxlab")


def make(
    minutes: int = 60,
    cpus: int = 4,
    gpus: int = 0,
    gigabytes: int = 16,
    partition: str = "",
    at_once: int = 64,
    cluster: str = "slurm",
    poll: float = 5.0,
) -> Executor:
    """Return the executor.

    Args:
      minutes: that a job may take.
      cpus: of a job.
      gpus: of a job.
      gigabytes: of memory, of a job.
      partition: where jobs run; the cluster's own choice if empty.
      at_once: jobs that may run at a time, as an array.
      cluster: slurm, or local for processes on this machine, which tries all of it but the cluster.
      poll: seconds between looks at the jobs.
    """
    if cluster not in CLUSTERS:
        raise UsageError(f"--executor.cluster={cluster}{did_you_mean(cluster, CLUSTERS)}")
    try:
        import submitit
    except ImportError as error:
        raise UsageError("--executor=slurm needs submitit: pip install 'jaxlab[slurm]'") from error

    def execute(tasks: Sequence[Task]) -> Iterator[Outcome]:
        logs = tasks[0].folder.parents[2] / "jobs"
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        shape = {"timeout_min": minutes, "cpus_per_task": cpus, "gpus_per_node": gpus, "mem_gb": gigabytes}
        own = {"slurm_array_parallelism": at_once, **({"slurm_partition": partition} if partition else {})}
        executor.update_parameters(name="jaxlab", **shape, **(own if cluster == "slurm" else {}))
        began, jobs = time.monotonic(), executor.map_array(work, tasks)
        with _cancelled_if_stopped(jobs):
            yield from _as_they_end(dict(zip(jobs, tasks, strict=True)), began, poll)

    return execute


def work(task: Task) -> Outcome:
    """Do a task in a job; one that is preempted is an outcome, as an exception would lose what it was."""
    began = time.monotonic()
    try:
        return do(task)
    except PreemptedError as error:
        return outcome(task, PREEMPTED, began, str(error))


def _as_they_end(jobs: dict[Any, Task], began: float, poll: float) -> Iterator[Outcome]:
    while jobs:
        for job in [job for job in jobs if job.done()]:
            task = jobs.pop(job)
            yield _result(job, task, began)
        if jobs:
            time.sleep(poll)


def _result(job: Any, task: Task, began: float) -> Outcome:
    """Return a job's outcome; one that left none was killed, or ran out of its time or memory."""
    error = job.exception()
    if error is not None:
        return outcome(task, KILLED, began, f"job {job.job_id}: {type(error).__name__}: {str(error)[-500:]}")
    found = job.result()
    if found.status == PREEMPTED:
        return found._replace(status=KILLED, problem=f"job {job.job_id}: {found.problem}")
    return found


@contextlib.contextmanager
def _cancelled_if_stopped(jobs: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for job in jobs:
            if not job.done():
                job.cancel()
        raise
