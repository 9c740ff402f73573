"""Several processes of ``jaxlab`` on loopback, joined over gloo: started, killed, waited for with a hard limit."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from jaxlab.core import record

ROOT = Path(__file__).parents[2]
COMMAND = "import sys; from jaxlab.cli import main; sys.exit(main())"
PLUG_INS = str(Path(__file__).parent / "process_plugins.py")
LIMIT = 150  # seconds after which all are killed: a deadlock must not hang the tests


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    output: str
    errors: str

    @property
    def result(self) -> dict:
        """The last line of its output."""
        return json.loads(self.output.splitlines()[-1])

    @property
    def sentence(self) -> str:
        """The last line that it said."""
        return self.errors.rstrip().splitlines()[-1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(devices: int, **variables: str) -> dict[str, str]:
    plug_ins = os.pathsep.join([str(ROOT), str(ROOT / "tests/train"), str(ROOT / "tests/processes")])
    return {
        **os.environ, "PYTHONPATH": plug_ins, "JAX_PLATFORMS": "cpu", "JAXLAB_ALLOW": "tiny,process_plugins",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "NPROC": str(2 * devices), **variables,
    }  # fmt: skip


def start(count: int, *arguments: str, devices: int = 1, port: int = 0, **variables: str) -> list[subprocess.Popen]:
    """Start ``jaxlab ARGUMENTS`` in `count` processes that find each other by flags; one alone joins nobody."""
    port = port or free_port()
    started = []
    for process in range(count):
        flags = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--process={process}"]
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", COMMAND, *arguments, *(flags if count > 1 else ())], cwd=ROOT, text=True,
                env=environment(devices, **variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )  # fmt: skip
    return started


def finish(processes: list[subprocess.Popen], limit: float = LIMIT) -> list[Ended]:
    """Return how all ended; past the limit all are killed and the test fails."""
    until, ended = time.monotonic() + limit, []
    try:
        for process in processes:
            output, errors = process.communicate(timeout=max(0.1, until - time.monotonic()))
            ended.append(Ended(process.returncode, output, errors))
    except subprocess.TimeoutExpired:
        for process in processes:
            kill(process)
            print(process.communicate()[1])
        raise
    for number, end in enumerate(ended):
        print(f"--- process {number}: {end.code}\n{end.errors[-3000:]}")  # shown where the test fails
    return ended


def kill(process: subprocess.Popen) -> None:
    """Kill a process and its children, if it is there."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def run(count: int, *arguments: str, devices: int = 1, **variables: str) -> list[Ended]:
    """Run ``jaxlab ARGUMENTS`` to its end in `count` processes."""
    return finish(start(count, *arguments, devices=devices, **variables))


def train(preset: str, workdir: Path, **settings: object) -> list[str]:
    """Return the arguments that train a config of the plug-ins' file, with ``config.train`` settings."""
    flags = [f"--config.train.{name}={value}" for name, value in settings.items()]
    return ["train", f"--config={PLUG_INS}:{preset}", f"--workdir={workdir}", *flags]


def wait_for_step(workdir: Path, step: int, processes: list[subprocess.Popen], limit: float = LIMIT) -> None:
    """Wait until a row of `step` or later is there."""
    until = time.monotonic() + limit
    while not any(row["step"] >= step for row in record.read_metrics(workdir)):
        if time.monotonic() > until or any(process.poll() is not None for process in processes):
            finish(processes, 30.0)
            raise AssertionError(f"no row of step {step}")
        time.sleep(0.05)
