"""Kill trainings by SIGKILL at random moments and check that nothing is lost, by ``jaxlab verify-resume``.

Three configs of digits, so that all that a resume could forget is there: ``mlp``; ``cnn`` with dropout, batch
normalisation, augmentation and an average of the parameters; ``pmap`` on two devices with accumulation, several steps
a call and data that Grain's worker processes read from disk. Moments are spread over each run's life; of five kills one
is aimed at a save, one at an evaluation and one right after one. A loss is a row that is missing, twice there, torn or
other, a state with other bits, or more steps than between two saves.

``python scripts/faults_kills.py [--kills=102]`` prints a JSON line a config to stderr and one JSON object to stdout.
Exit code 1 where something was lost. A kill takes some seconds, most of which JAX takes to start.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from faults import compiled_once
from ml_collections import ConfigDict

import jaxlab
from jaxlab.run.verify_resume import print_verification, verify_resume

KILLS = 102
STEPS = 240
MOST_ROUNDS = 8  # of a config: kills that come too late are made up for
FAULT = "SIGKILL at random moments"


def mlp(folder: Path) -> ConfigDict:
    """Return a perceptron with AdamW whose intervals are no multiples of one another."""
    config = jaxlab.base_config()
    for split in ("train", "valid"):
        config.data[split] = jaxlab.spec("jaxlab.data.digits:make", split=split)
    config.model = jaxlab.spec("jaxlab.models.mlp:make", hidden=(16,))
    config.objective = jaxlab.spec("jaxlab.objectives.classify:make", label_smoothing=0.1)
    config.metrics.accuracy = jaxlab.spec("jaxlab.metrics.classify:accuracy")
    config.optimizer = jaxlab.spec("optax:adamw", learning_rate=3e-3)
    config.sinks = ConfigDict()
    config.train.update({"steps": STEPS, "batch_size": 32, "log_every": 5, "eval_every": 11, "checkpoint_every": 13})
    return config


def cnn(folder: Path) -> ConfigDict:
    """Return a network with dropout, batch normalisation, augmentation and an average of the parameters."""
    config = mlp(folder)
    config.data.augment = (jaxlab.spec("jaxlab.data.images:random_shift", pixels=1),)
    config.model = jaxlab.spec("jaxlab.models.cnn:make", channels=(4,), depth=(1,), hidden=(8,), dropout=0.3)
    config.objective = jaxlab.spec("jaxlab.objectives.classify:make", inputs=("image", "mask"))
    config.train.update({"ema": 0.9, "eval_every": 20})
    return config


def pmap(folder: Path) -> ConfigDict:
    """Return a perceptron under pmap, with microbatches, several steps a call and rows that workers read from disk."""
    from jaxlab.data import digits

    config = mlp(folder)
    for split in ("train", "valid"):
        source, place = digits.make(split), folder / split
        place.mkdir()
        for name, rows in source.__getitems__(np.arange(len(source))).items():
            np.save(place / f"{name}.npy", rows)
        classes = source.spec.classes
        config.data[split] = jaxlab.spec("jaxlab.data.memmap_source:make", path=str(place), classes=classes)
    config.data.workers = 1
    config.model = jaxlab.spec("jaxlab.models.mlp:make", hidden=(16,), dropout=0.2)
    config.train.update({"grad_accumulation": 2, "steps_per_call": 3, "eval_every": 15})
    config.parallel.strategy = "pmap"
    return config


CONFIGS: dict[str, tuple[Callable[[Path], ConfigDict], str]] = {
    "mlp": (mlp, ""),
    "cnn": (cnn, ""),
    "pmap": (pmap, "2:2"),
}
"""Each config, and its devices before and after a kill."""


def run(kills: int = KILLS, names: tuple[str, ...] = tuple(CONFIGS)) -> list[dict[str, Any]]:
    """Return a row a config: ``fault``, ``config``, ``runs`` (kills that landed), ``losses``, and what was seen.

    Args:
      kills: of all configs together, at least.
      names: of `CONFIGS`.
    """
    return [_killed(name, -(-kills // len(names))) for name in names]


def _killed(name: str, kills: int) -> dict[str, Any]:
    """Kill trainings of a config until `kills` kills have landed."""
    results: list[dict[str, Any]] = []
    landed = 0
    with tempfile.TemporaryDirectory(prefix="jaxlab-faults-") as folder:
        config = CONFIGS[name][0](Path(folder))
        while landed < kills and len(results) < MOST_ROUNDS:
            result = verify_resume(config, kills=kills - landed, devices=CONFIGS[name][1])
            print_verification(result)
            results.append(result)
            landed += result["landed"]
    phases = sum((Counter(result["phases"]) for result in results), Counter[str]())
    return {
        "fault": FAULT, "config": name, "runs": landed,
        "losses": sum(max(result["errors"], len(result["problems"])) for result in results),
        "verdicts": dict(Counter(result["verdict"] for result in results)), "phases": dict(phases),
        "while_saving": sum(kill["saving"] for result in results for kill in result["kills"]),
        "steps_lost": max(result["lost"]["most"] for result in results),
        "steps_lost_while_saving": max(result["lost"]["during_save"] for result in results),
        "checkpoint_every": results[0]["lost"]["every"], "seconds": round(sum(r["seconds"] for r in results), 1),
    }  # fmt: skip


def main() -> int:
    """Print each config's row, then all of them."""
    parser = argparse.ArgumentParser(description="Kill trainings at random moments.")
    parser.add_argument("--kills", type=int, default=KILLS, help=f"at least, of all configs (default: {KILLS})")
    parser.add_argument("--configs", default=",".join(CONFIGS), help="with commas between")
    options = parser.parse_args()
    with compiled_once():
        rows = run(options.kills, tuple(options.configs.split(",")))
    for row in rows:
        print(json.dumps(row), file=sys.stderr)
    print(
        json.dumps({"rows": rows, "runs": sum(row["runs"] for row in rows), "losses": sum(r["losses"] for r in rows)})
    )
    return 1 if any(row["losses"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
