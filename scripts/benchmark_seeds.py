"""The ``seeds`` of ``scripts/benchmark.py``: eight seeds by `jaxlab.run.seeds` against one run after another.

Both train the same configs from nothing to finished run directories, compilation included, and take turns. A process
each is what a shell loop over ``jaxlab train`` does: two of them are timed, one after the other.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jaxlab
from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.override import override
from jaxlab.run.seeds import train_seeds

SEEDS = range(8)
PROCESSES = 2
QUIET = {"sinks.console.seconds": 1e9, "train.eval_every": 10**9, "train.checkpoint_every": 10**9}


class Case(NamedTuple):
    """A config by name, and what is changed in it."""

    name: str
    preset: str
    changes: dict[str, Any]


CASES = (
    Case("tiny MLP 64-16-10, batch 16", "mlp", {"model.hidden": (16,), "train.batch_size": 16, "train.steps": 6000}),
    Case("digits MLP 64-128-128-10, batch 64", "mlp", {"train.batch_size": 64, "train.steps": 3000}),
    Case("digits CNN, batch 128", "get_config", {"train.steps": 400}),
    Case(
        "digits ViT 2 × 64, batch 64", "get_config",
        {
            "model": jaxlab.spec("jaxlab.models.vit:make", patch_size=2, width=64, depth=2, heads=4),
            "train.batch_size": 64, "train.steps": 400,
        },
    ),
)  # fmt: skip


def run(only: str, repeats: int) -> dict[str, Any]:
    """Return the rows of the cases whose name contains `only`, and what the table has to say about them."""
    rows = [row for case in CASES if only in case.name for row in measure_case(case, repeats)]
    about = (
        f"Seeds an hour, {len(SEEDS)} seeds from a config to finished runs, against one run after another in one "
        f"process; medians of {repeats} interleaved turns, lowest and highest paired ratio in brackets"
    )
    return {"about": about, "unit": "seeds/h", "rows": rows}


def measure_case(case: Case, repeats: int) -> list[dict[str, Any]]:
    """Return a row for each way."""
    config = override(jaxlab.load_config(f"configs/digits_cnn.py:{case.preset}"), {**QUIET, **case.changes})
    forms: list[str] = []
    ways: dict[str, Callable[[Path], int]] = {
        "one after another": lambda folder: in_turn(config, folder),
        "jaxlab's seeds": lambda folder: at_once(config, folder, forms),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    alone = timed(lambda folder: a_process_each(config, folder))
    base = seconds["one after another"]
    chosen = ", ".join(dict.fromkeys(forms))
    times = alone / statistics.median(seconds["jaxlab's seeds"])
    name = f"jaxlab's seeds ({chosen}), {times:.1f} times a process each"
    return [
        row(case.name, "one after another", base, base),
        row(case.name, name, seconds["jaxlab's seeds"], base),
        row(case.name, "a process each", [alone], base[:1]),
    ]


def row(case: str, way: str, seconds: list[float], base: list[float]) -> dict[str, Any]:
    """Return a way's rate and how far it is from the base's; `seconds` are a seed's."""
    ratios = [b / s for s, b in zip(seconds, base, strict=True)]
    rate = 3600 / statistics.median(seconds)
    return {"case": case, "variant": way, "rate": rate, "ratio": statistics.median(ratios),
            "ratio_low": min(ratios), "ratio_high": max(ratios)}  # fmt: skip


def timed(way: Callable[[Path], int]) -> float:
    """Return the seconds a seed that a way takes; it returns how many it trained."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        count = way(Path(folder))
        return (time.perf_counter() - began) / count


def in_turn(config: Any, folder: Path) -> int:
    """Train one run after another, as a Python loop over `jaxlab.train` does."""
    for seed in SEEDS:
        jaxlab.train(override(config, {"seed": seed}), folder / str(seed))
    return len(SEEDS)


def at_once(config: Any, folder: Path, forms: list[str]) -> int:
    """Train all seeds, and note the form that the trial chose."""
    train_seeds(config, {seed: folder / str(seed) for seed in SEEDS})
    environment = record.read_json(folder / "0" / record.ENVIRONMENT)
    forms.append(environment["form"].replace("_", " "))
    return len(SEEDS)


def a_process_each(config: Any, folder: Path) -> int:
    """Train runs in processes of their own, one after the other."""
    file = folder / "config.json"
    file.write_text(configs.to_json(config))
    for seed in range(PROCESSES):
        command = [sys.executable, "scripts/train.py", f"--config={file}", f"--workdir={folder / str(seed)}"]
        subprocess.run([*command, f"--config.seed={seed}"], check=True, capture_output=True)
    return PROCESSES
