"""What a container runs: ``jaxlab ARGUMENTS``, told which of several processes it is, again while that ends with 75.

Kubernetes, SageMaker and Vertex AI each say in their own way where the others are. A signal that asks the container to
stop is passed on, and its 75 ends the container: whoever started it starts it again.
Usage: ``python scripts/launch/entry.py train --config=F --workdir=D``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

PORT = 8476
SAGEMAKER = Path("/opt/ml/input/config/resourceconfig.json")
COMMAND = (sys.executable, "-c", "import sys; from jaxlab.cli import main; sys.exit(main())")
PREEMPTED = 75


def main(arguments: list[str]) -> int:
    """Run jaxlab until it ends with something else than 75, or with 75 after a signal."""
    asked: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for process in running:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    sagemaker = json.loads(SAGEMAKER.read_text()) if SAGEMAKER.exists() else {}
    command = [*COMMAND, *arguments, *flags(os.environ, sagemaker)]
    while True:
        running[:] = [subprocess.Popen(command)]
        code = running[0].wait()
        if code != PREEMPTED or asked:
            return code if code >= 0 else 128 - code


def flags(environment: Mapping[str, str], sagemaker: Mapping[str, object]) -> list[str]:
    """Return the flags that say which process this is; none where it is the only one.

    Args:
      environment: with ``JAXLAB_COORDINATOR``, ``JAXLAB_PROCESSES`` and ``JOB_COMPLETION_INDEX`` on Kubernetes, or
        ``CLUSTER_SPEC`` on Vertex AI.
      sagemaker: what SageMaker writes into ``resourceconfig.json``.
    """
    if "JAXLAB_COORDINATOR" in environment:
        return placed(
            environment["JAXLAB_COORDINATOR"],
            int(environment["JAXLAB_PROCESSES"]),
            int(environment["JOB_COMPLETION_INDEX"]),
        )
    if sagemaker:
        hosts = [str(host) for host in sagemaker["hosts"]]
        return placed(f"{hosts[0]}:{PORT}", len(hosts), hosts.index(str(sagemaker["current_host"])))
    if "CLUSTER_SPEC" in environment:
        spec = json.loads(environment["CLUSTER_SPEC"])
        pools = [f"workerpool{number}" for number in range(4)]
        hosts = [host for pool in pools for host in spec["cluster"].get(pool, [])]
        mine = spec["cluster"][spec["task"]["type"]][int(spec["task"]["index"])]
        return placed(f"{hosts[0].partition(':')[0]}:{PORT}", len(hosts), hosts.index(mine))
    return []


def placed(coordinator: str, processes: int, process: int) -> list[str]:
    """Return the flags of one of several processes."""
    if processes == 1:
        return []
    return [f"--coordinator={coordinator}", f"--processes={processes}", f"--process={process}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
