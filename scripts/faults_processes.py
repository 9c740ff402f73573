"""Disturb trainings by two processes at random moments and check that nothing is lost when all are started again.

Each training of a perceptron on digits is disturbed again and again until it is finished: SIGTERM, SIGINT, SIGKILL or
SIGSTOP (then SIGCONT) to one of the processes, chosen by chance. A loss is a process that is still there after 30
seconds, one that ends with another code than 75, two that stop at different steps, a row that is missing, twice there
or other than in an undisturbed training, more steps lost than lie between two saves, or a last state with other bits.

``python scripts/faults_processes.py [--runs=40]`` prints a JSON line a signal to stderr and one JSON object to stdout.
Exit code 1 where something was lost. A disturbance takes some seconds, most of which JAX takes to start.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from faults import compiled_once
from ml_collections import ConfigDict

import jaxlab
from jaxlab.core import record
from jaxlab.core.types import Periodic
from jaxlab.run.journal import IDS
from jaxlab.train import manifest

RUNS = 40
PROCESSES, STEPS, EVERY = 2, 120, 13
PACE = 0.05  # seconds that a step takes at least, so that there are moments to disturb
SOON = 30.0  # seconds within which all processes are to be gone
LIMIT = 300.0  # seconds after which a training hangs
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSTOP)
SAME = ("train/", "valid/", IDS)  # how the names begin of what has to be equal


def pace() -> Periodic:
    """Return a hook that takes its time after each step."""
    return Periodic(1, lambda step, state: time.sleep(PACE))


def get_config() -> ConfigDict:
    """Return the perceptron."""
    config = jaxlab.base_config()
    for split in ("train", "valid"):
        config.data[split] = jaxlab.spec("jaxlab.data.digits:make", split=split)
    config.model = jaxlab.spec("jaxlab.models.mlp:make", hidden=(16,), dropout=0.2)
    config.objective = jaxlab.spec("jaxlab.objectives.classify:make")
    config.metrics.accuracy = jaxlab.spec("jaxlab.metrics.classify:accuracy")
    config.optimizer = jaxlab.spec("optax:adamw", learning_rate=3e-3)
    config.hooks.pace = jaxlab.spec("faults_processes:pace")
    config.sinks = ConfigDict()
    config.train.update(
        {"steps": STEPS, "batch_size": 32, "log_every": 1, "eval_every": 17, "checkpoint_every": EVERY, "keep": 99}
    )
    return config


def run(runs: int = RUNS, seed: int = 0) -> list[dict[str, Any]]:
    """Return a row a signal: ``fault``, ``runs`` (disturbances), ``losses``, and how long the others took to end."""
    chance, done = random.Random(seed), Counter[str]()
    losses, slowest = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="jaxlab-faults-") as name:
        folder = Path(name)
        _finish(_start(folder / "undisturbed"), LIMIT)
        expected = _outcome(folder / "undisturbed")
        while done.total() < runs:
            workdir = folder / f"run-{done.total()}"
            for problem, kind, seconds in _disturbed(workdir, chance, runs - done.total()):
                done[kind] += 1
                losses[kind] += problem is not None
                slowest[kind] = max(slowest[kind], int(10 * seconds))
                print(json.dumps({"signal": kind, "seconds": round(seconds, 1), "problem": problem}), file=sys.stderr)
            if _outcome(workdir) != expected:
                losses[kind] += 1
                print(json.dumps({"workdir": workdir.name, "problem": _difference(workdir, expected)}), file=sys.stderr)
    return [
        {"fault": f"{kind} to one of {PROCESSES} processes at random moments", "runs": done[kind],
         "losses": losses[kind], "seconds": slowest[kind] / 10}
        for kind in done
    ]  # fmt: skip


def _disturbed(workdir: Path, chance: random.Random, most: int) -> list[tuple[str | None, str, float]]:
    """Train to the end, disturbed up to `most` times; return what was wrong each time, by which signal, how long."""
    found: list[tuple[str | None, str, float]] = []
    while not (workdir / record.SUMMARY).exists():
        started, before = _start(workdir), _last_row(workdir)
        disturb = len(found) < min(most, 4)
        moment = before + chance.randint(1, STEPS // 4)
        until = time.monotonic() + LIMIT
        while disturb and _last_row(workdir) < moment and time.monotonic() < until and _running(started):
            time.sleep(0.02)
        if not disturb or not _running(started):
            _finish(started, LIMIT)
            continue
        kind, victim, reached = chance.choice(SIGNALS), chance.randrange(PROCESSES), _last_row(workdir)
        began = time.monotonic()
        os.kill(started[victim].pid, kind)
        problem = _ended(started, victim, kind)
        found.append((problem or _lost(workdir, reached, kind), kind.name, time.monotonic() - began))
    return found


def _ended(started: list[subprocess.Popen[str]], victim: int, kind: signal.Signals) -> str | None:
    """Wait for all processes, and return what is wrong with how they ended."""
    others = [process for i, process in enumerate(started) if i != victim or kind != signal.SIGSTOP]
    said = _finish(others, SOON)
    if kind == signal.SIGSTOP:
        os.kill(started[victim].pid, signal.SIGCONT)
        said += _finish([started[victim]], SOON)
    for i, process in enumerate(started):
        if process.returncode != (-signal.SIGKILL if i == victim and kind == signal.SIGKILL else 75):
            return f"process {i} ended with {process.returncode}: {' '.join(said)[-300:]}"
    stopped = {line for text in said for line in text.splitlines() if line.startswith("stopped: stopped at step")}
    if kind in (signal.SIGTERM, signal.SIGINT) and len(stopped) != 1:
        return f"not one step to stop at: {sorted(stopped)}"
    return None


def _lost(workdir: Path, reached: int, kind: signal.Signals) -> str | None:
    """Return what is wrong with the latest checkpoint, after a row of the step `reached` was there."""
    steps = [int(path.name) for path in (workdir / record.CHECKPOINTS).glob("*") if path.name.isdigit()]
    most = 2 * EVERY if kind in (signal.SIGKILL, signal.SIGSTOP) else 0  # the save under way is lost with the process
    lost = reached - max(steps, default=0)
    return f"{lost} steps lost" if lost > most else None


def _start(workdir: Path) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    here = Path(__file__).resolve()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here.parent}"}
    command = [
        sys.executable, str(here.with_name("train.py")), f"--config={here}", f"--workdir={workdir}",
        f"--coordinator={coordinator}", f"--processes={PROCESSES}",
    ]  # fmt: skip
    return [
        subprocess.Popen([*command, f"--process={i}"], env=environment, text=True, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE, start_new_session=True)
        for i in range(PROCESSES)
    ]  # fmt: skip


def _finish(started: list[subprocess.Popen[str]], limit: float) -> list[str]:
    """Return what the processes said; one that is there after `limit` seconds is killed, by which its code says so."""
    until, said = time.monotonic() + limit, []
    for process in started:
        try:
            said.append(process.communicate(timeout=max(0.1, until - time.monotonic()))[1])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said.append(f"still there after {limit:g} s: {process.communicate()[1]}")
    return said


def _running(started: list[subprocess.Popen[str]]) -> bool:
    return all(process.poll() is None for process in started)


def _last_row(workdir: Path) -> int:
    return max((row["step"] for row in record.read_metrics(workdir)), default=0)


def _outcome(workdir: Path) -> dict[str, Any]:
    """Return what two trainings have to have in common: every row, and the digests of the last state's files."""
    rows = [{k: v for k, v in row.items() if k == "step" or k.startswith(SAME)} for row in record.read_metrics(workdir)]
    contents = manifest.read(workdir / record.CHECKPOINTS / str(STEPS))
    files = {} if contents is None else contents.files
    arrays = {name: digest for name, digest in files.items() if "/state." in name or "/window." in name}
    return {"rows": rows, "arrays": arrays}


def _difference(workdir: Path, expected: dict[str, Any]) -> str:
    found = _outcome(workdir)
    for one, other in zip(found["rows"], expected["rows"], strict=False):
        if one != other:
            return f"{one} instead of {other}"
    counts = f"{len(found['rows'])} rows, {len(found['arrays'])} files"
    return f"{counts} instead of {len(expected['rows'])} and {len(expected['arrays'])}, or other bits"


def main() -> int:
    """Print each signal's row, then all of them."""
    parser = argparse.ArgumentParser(description="Disturb trainings by several processes.")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"disturbances, of all signals (default: {RUNS})")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args()
    with compiled_once():
        rows = run(options.runs, options.seed)
    for row in rows:
        print(json.dumps(row), file=sys.stderr)
    print(json.dumps({"rows": rows, "runs": sum(r["runs"] for r in rows), "losses": sum(r["losses"] for r in rows)}))
    return 1 if any(row["losses"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
