"""What the tests of training share: reading a run back bit by bit, and running the command line in a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from jaxlab.core import record
from jaxlab.core.tree import named_leaves
from jaxlab.run.assemble import assemble
from jaxlab.run.restore import restore
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.parallel import make_strategy

ROOT = Path(__file__).parents[2]
TIMING = ("wall", "steps_per_second", "examples_per_second", "data_wait")
COMMAND = "import sys; from jaxlab.cli import main; sys.exit(main())"
LIMIT = 120  # seconds after which a process is killed: a deadlock must not hang the tests


def rows(workdir: Path) -> list[dict]:
    """Return the rows of metrics without what differs from run to run: time."""
    return [{k: v for k, v in row.items() if k not in TIMING} for row in record.read_metrics(workdir)]


def saved(workdir: Path, step: str = "latest") -> dict[str, np.ndarray]:
    """Return a checkpoint's arrays by name: parameters, model state, optimizer state, average and open window."""
    config = record.read_config(workdir)
    experiment = assemble(config, ("train",))
    best, mode = config.train.best, config.train.best_mode
    strategy = make_strategy("jit", {"data": 1}, jax.devices())
    folder = workdir / record.CHECKPOINTS
    with Checkpoints(folder, keep=config.train.keep, best=best, mode=mode, writable=False) as checkpoints:
        tree = restore(checkpoints, checkpoints.resolve(step), experiment.abstract_step(), strategy)
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}


def saved_steps(workdir: Path) -> list[int]:
    """Return the steps whose checkpoints stand in the folder, as names say it."""
    return sorted(int(path.name) for path in (workdir / record.CHECKPOINTS).glob("*") if path.name.isdigit())


def same_bits(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Say whether names, dtypes, shapes and every bit are the same; print what is not."""
    kinds = [{name: (x.dtype, x.shape) for name, x in tree.items()} for tree in (first, second)]
    differing = [name for name in first if kinds[0] == kinds[1] and first[name].tobytes() != second[name].tobytes()]
    print("differing leaves:", differing)
    return kinds[0] == kinds[1] and not differing


def environment(devices: int = 1) -> dict[str, str]:
    """Return an environment with that many virtual devices and a fixed number of threads, on which bits depend."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent))),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "NPROC": str(2 * devices),  # fewer threads deadlock on jax 0.10 with several devices
    }


def start(*arguments: str, devices: int = 1) -> subprocess.Popen:
    """Start ``python ARGUMENTS`` in a session of its own, so that `finish` and `kill` reach its children."""
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment(devices), cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen, limit: float = LIMIT) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr; past the limit the process is killed and the test fails."""
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return process.returncode, output, errors


def kill(process: subprocess.Popen) -> None:
    """Kill the process and its children, and wait for it."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def command(*arguments: str) -> subprocess.Popen:
    """Start ``jaxlab ARGUMENTS``."""
    return start("-c", COMMAND, *arguments)
