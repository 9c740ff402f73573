"""Stops runs on 8 virtual devices half way and goes on with them on other devices and by another strategy.

Run by test_devices.py in a process of its own; prints where each run stands and its rows as JSON.
Usage: ``python devices_program.py FOLDER``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import warnings
from pathlib import Path

import jax
import tiny
from ml_collections import ConfigDict
from train_helpers import rows, saved, saved_steps

import jaxlab
from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.errors import PreemptedError
from jaxlab.train.compilation import RecompilationWarning

STOP, STEPS = 7, 12  # 7 is no multiple of any interval, so that a window of statistics is open there
ON = {"jit": ("jit", 8), "pmap": ("pmap", 8), "jit on 1": ("jit", 1), "jit on 2": ("jit", 2), "pmap on 2": ("pmap", 2)}
MOVES = [("jit", "jit on 1"), ("jit", "jit on 2"), ("jit", "pmap"), ("pmap", "jit"), ("pmap", "pmap on 2")]


def make_config(on: str, stop: int = 0) -> ConfigDict:
    """Return the config of a run on the named devices, which stops itself after step `stop`."""
    config = tiny.mlp()
    config.data.augment = (jaxlab.spec("jaxlab.data.images:random_shift", pixels=1),)
    config.parallel.strategy, config.parallel.mesh.data = ON[on]
    config.train.update(
        {"steps": STEPS, "log_every": 5, "eval_every": 6, "checkpoint_every": 100, "ema": 0.9, "keep": 9}
    )
    config.hooks.stop = jaxlab.spec("tiny:stopping_hook", at=stop - 1)  # the step under way is finished first
    return config


def run(folder: Path, on: str, stop: int = 0) -> Path:
    """Train as far as the run goes."""
    with contextlib.suppress(PreemptedError):
        jaxlab.train(make_config(on, stop), folder)
    return folder


def move(source: Path, target: Path, on: str) -> Path:
    """Copy a stopped run and give it the config of other devices: a run keeps its own, the copy is another run."""
    shutil.copytree(source, target)
    record.write_atomically(target / record.CONFIG, configs.to_json(make_config(on)))
    return target


def main() -> None:
    """Print each run's rows, and how far its last state is from that of the run on one device."""
    warnings.simplefilter("error", RecompilationWarning)
    folder = Path(sys.argv[1])
    whole = run(folder / "whole", "jit on 1")
    expected = saved(whole)
    stopped = {on: run(folder / on, on, STOP) for on in ("jit", "pmap")}
    result = {
        "devices": jax.device_count(),
        "whole": rows(whole),
        "stopped at": {on: saved_steps(path) for on, path in stopped.items()},
        "finished": {},
    }
    for source, target in MOVES:
        name = f"{source} to {target}"
        path = move(stopped[source], folder / name, target)
        run(path, target)
        found = saved(path)
        distance = {leaf: float(abs(found[leaf] - expected[leaf]).max()) for leaf in expected}
        result["finished"][name] = {"rows": rows(path), "distance": distance}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
