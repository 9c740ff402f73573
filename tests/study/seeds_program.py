"""Trains eight seeds over four virtual devices and prints where they lay, what was sent, and their losses."""

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import small_study

import jaxlab
from jaxlab.core import record
from jaxlab.run.assemble import assemble
from jaxlab.run.seed_programs import beginning, together
from jaxlab.run.seeds import train_seeds

SEEDS = range(8)


def main(folder: Path) -> None:
    """Train, and print a JSON object."""
    config = small_study.base()
    train_seeds(config, {seed: folder / str(seed) for seed in SEEDS}, "together")
    experiment = assemble(config)
    programs = together(experiment, len(SEEDS))
    seeds = programs.lift.put(np.arange(len(SEEDS), dtype=np.uint32), 0)
    state, window = beginning(programs, SEEDS, {})
    batch = {name: np.zeros((1, len(SEEDS), *x.shape), x.dtype) for name, x in experiment.abstract_batch().items()}
    text = programs.step.lower(state, window, seeds, programs.put(batch)).compile().as_text()
    kernel = jax.tree.leaves(state.params)[0]
    alone = jaxlab.train(jaxlab.override(config, {"seed": 3, "parallel.mesh.data": 1}), folder / "alone")
    print(
        json.dumps(
            {
                "devices": len(jax.devices()),
                "shards": [shard.data.shape[0] for shard in kernel.addressable_shards],
                "collectives": len(re.findall(r"all-reduce|all-gather|all-to-all|collective-permute", text)),
                "losses": losses(folder / "3"),
                "losses_alone": losses(alone.workdir),
            }
        )
    )


def losses(folder: Path) -> list[float]:
    """Return the training losses of a run."""
    return [row["train/loss"] for row in record.read_metrics(folder) if "train/loss" in row]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
