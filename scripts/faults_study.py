"""Kills a study at random moments and compares its end with an unkilled one's: ``python scripts/faults_study.py``.

A study of many tiny runs is done by `jaxlab study`, once in peace and once under ``kill -9`` of its process, then what
both amount to is compared number by number. The undisturbed one also says what jaxlab adds around training. Prints a
sentence each and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.study.analysis import analyse
from jaxlab.study.attempts import attempts

STUDY = """
import jaxlab
from jaxlab.study.grid import sweep

def get_study():
    base = jaxlab.load_config("{config}:mlp")
    few = {{"train.steps": 40, "train.eval_every": 20, "train.checkpoint_every": 20, "train.log_every": 10,
           "model.hidden": (16,), "sinks.console.seconds": 1e9}}
    rates = [10 ** -(1 + i / 5) for i in range({arms})]
    arms = sweep("optimizer.weight_decay", *rates)
    return jaxlab.Study(jaxlab.override(base, few), arms, range({seeds}), "valid/accuracy")
"""


def main() -> int:
    """Run both studies and compare."""
    parser = argparse.ArgumentParser(description="Kill a study at random moments.")
    parser.add_argument("--arms", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workdir", type=Path, help="kept (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.workdir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "killed_study.py"
        config = Path(__file__).parents[1] / "configs" / "digits_cnn.py"
        file.write_text(STUDY.format(config=config, arms=arguments.arms, seeds=arguments.seeds))
        whole = in_peace(file, folder / "whole")
        runs = arguments.arms * arguments.seeds
        print(
            f"{runs} runs: {whole['wall']:.0f} s, of them {whole['training']:.0f} s in training: "
            f"{whole['overhead']:.1%} around it"
        )
        kills = under_kills(file, folder / "killed", arguments.kills, whole["wall"])
        same = amounts(folder / "whole") == amounts(folder / "killed")
        print(f"{kills} kills: the finished study is {'the same' if same else 'ANOTHER'}")
    print(json.dumps({"runs": runs, **whole, "kills": kills, "same": same}))
    return 0 if same else 1


def command(file: Path, folder: Path) -> list[str]:
    """Return the study's command."""
    return [sys.executable, "scripts/study.py", f"--study={file}", f"--workdir={folder}", "--no_report"]


def in_peace(file: Path, folder: Path) -> dict[str, float]:
    """Do the study undisturbed, and return what it took: in all, and in the runs themselves."""
    began = time.perf_counter()
    subprocess.run(command(file, folder), check=True, capture_output=True)
    wall = time.perf_counter() - began
    training = sum(row["seconds"] for row in attempts(folder))
    return {"wall": wall, "training": training, "overhead": wall / training - 1}


def under_kills(file: Path, folder: Path, kills: int, wall: float) -> int:
    """Do the study while it is killed at moments drawn evenly; return how often it was."""
    drawn, killed = random.Random(0), 0
    while killed < kills:
        process = subprocess.Popen(command(file, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=drawn.uniform(2.0, 2.0 + 1.5 * wall / kills))
            break  # done before all kills were used
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    subprocess.run(command(file, folder), check=True, capture_output=True)
    return killed


def amounts(folder: Path) -> dict[str, Any]:
    """Return what a study amounts to, but for how long it took."""
    results = analyse(folder)
    for arm in results["arms"]:
        del arm["cost"]
    return record.jsonable({name: results[name] for name in ("arms", "interactions", "failures", "sentences")})


if __name__ == "__main__":
    raise SystemExit(main())
