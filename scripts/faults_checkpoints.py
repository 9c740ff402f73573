"""Damage a real checkpoint in 1,000 random ways: a flipped bit, a file cut short, a file deleted. None may be restored.

``python scripts/faults_checkpoints.py [--trials=1000]`` prints one JSON object as the last line; exit code 1 where a
damaged checkpoint was restored without an error, or an error did not name the file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core.errors import CorruptError
from jaxlab.core.types import PyTree
from jaxlab.train.checkpoint import Checkpoints

KINDS = ("flipped bit", "truncated", "deleted")


def run(trials: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """Return a row a kind of damage: ``fault``, ``runs`` and ``losses``, the restores that went through in silence."""
    generator, tree = np.random.default_rng(seed), make_tree()
    losses, counts = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    with tempfile.TemporaryDirectory() as folder:
        sound, damaged = Path(folder, "sound"), Path(folder, "damaged")
        with Checkpoints(sound, keep=1, best=None, mode="min") as checkpoints:
            checkpoints.save(7, tree, {"valid/loss": 0.5})
        files = sorted(path.relative_to(sound) for path in sound.rglob("*") if path.is_file())
        for trial in range(trials):
            kind = KINDS[trial % len(KINDS)]
            counts[kind] += 1
            shutil.rmtree(damaged, ignore_errors=True)
            shutil.copytree(sound, damaged)
            file = damaged / files[generator.integers(len(files))]
            if not damage(file, kind, generator):
                counts[kind] -= 1
                continue
            if not refused(damaged, file, tree):
                losses[kind] += 1
                print(f"restored: {kind} of {file.relative_to(damaged)}", file=sys.stderr)
    return [{"fault": f"checkpoint: {kind}", "runs": counts[kind], "losses": losses[kind]} for kind in KINDS]


def make_tree() -> PyTree:
    """Return leaves of several dtypes and shapes, as a state has."""
    key = jax.random.key(0)
    params = {f"Dense_{i}": {"kernel": jax.random.normal(key, (40, 30)), "bias": jnp.zeros(30)} for i in range(4)}
    return {
        "state": {"params": params, "step": jnp.int32(7), "half": jnp.ones(9, jnp.bfloat16), "flag": jnp.ones(3, bool)}
    }


def damage(file: Path, kind: str, generator: np.random.Generator) -> bool:
    """Damage a file, and say whether that was possible: an empty one has no bits."""
    content = bytearray(file.read_bytes())
    if kind == "deleted":
        file.unlink()
        return True
    if not content:
        return False
    if kind == "truncated":
        file.write_bytes(content[: generator.integers(len(content))])
        return True
    content[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
    file.write_bytes(content)
    return True


def refused(folder: Path, file: Path, tree: PyTree) -> bool:
    """Say whether the checkpoint is not there any more, or its restoration names the file."""
    with Checkpoints(folder, keep=1, best=None, mode="min", writable=False) as checkpoints:
        if not checkpoints.steps():
            return True
        try:
            checkpoints.restore(7, tree)
        except CorruptError as error:
            return str(file) in str(error)
    return False


def main() -> int:
    """Run and print the rows."""
    parser = argparse.ArgumentParser(description="Damage checkpoints.")
    parser.add_argument("--trials", type=int, default=1000)
    rows = run(parser.parse_args().trials)
    print(json.dumps({"rows": rows}))
    return int(any(row["losses"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
