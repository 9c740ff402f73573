"""Each run a task on a Ray cluster. Usage: ``jaxlab study … --executor=ray --executor.address=auto --executor.gpus=1``.

The study's directory has to be on a disk that all nodes share. Needs ``pip install 'jaxlab[ray]'``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from jaxlab.core.errors import UsageError
from jaxlab.study.executors.slurm import work
from jaxlab.study.tasks import KILLED, PREEMPTED, Executor, Outcome, Task, outcome


def make(address: str = "auto", cpus: int = 1, gpus: float = 0.0) -> Executor:
    """Return the executor.

    Args:
      address: of the cluster; auto finds the one that this machine is a node of.
      cpus: of a run.
      gpus: of a run; parts of one are allowed.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor=ray needs Ray: pip install 'jaxlab[ray]'") from error

    def execute(tasks: Sequence[Task]) -> Iterator[Outcome]:
        if not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False)
            except ConnectionError as error:
                raise UsageError(f"--executor.address={address}: no cluster answers; `ray start` begins one") from error
        # one process a run: environment and memory of one do not reach the next; the study itself tries again
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_calls=1, max_retries=0)(work)
        began = time.monotonic()
        waiting = {remote.remote(task): task for task in tasks}
        try:
            while waiting:
                for found in ray.wait(list(waiting))[0]:
                    yield _result(found, waiting.pop(found), began)
        finally:
            for left in waiting:
                ray.cancel(left)

    return execute


def _result(found: object, task: Task, began: float) -> Outcome:
    """Return a task's outcome; one whose process or node is gone was killed."""
    import ray

    try:
        result: Outcome = ray.get(found)
    except ray.exceptions.RayError as error:
        return outcome(task, KILLED, began, f"{type(error).__name__}: {str(error)[:500]}")
    return result._replace(status=KILLED) if result.status == PREEMPTED else result
