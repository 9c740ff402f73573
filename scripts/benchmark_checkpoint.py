"""The ``checkpoint`` of ``scripts/benchmark.py``: how long a save stops the loop, and when it is on the disk.

A tree of 100 million float32 numbers in 100 leaves, random, so that nothing shrinks. A turn is one save. Wanted: the
loop stands still for at most a tenth of what a save in the foreground takes, and the save in the background is done,
digests and all flushed to the disk, within three times what NumPy needs to write and flush the same bytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlab.core.types import PyTree
from jaxlab.train.checkpoint import Checkpoints

LEAVES, SIDE = 100, 1000
Turn = Callable[[Path, PyTree], float]


def run(only: str, repeats: int) -> dict[str, Any]:
    """Return the rows of the cases whose name contains `only`, and what the table has to say about them."""
    keys = jax.random.split(jax.random.key(0), LEAVES)
    tree = {f"leaf_{i}": jax.random.normal(key, (SIDE, SIDE)) for i, key in enumerate(keys)}
    jax.block_until_ready(tree)
    cases: dict[str, dict[str, Turn]] = {
        "the loop stands still": {"save in the foreground": foreground, "jaxlab": standstill},
        "until all is on the disk": {"NumPy, the same bytes": numpy_write, "jaxlab, in the background": background},
    }
    rows = [row for case, turns in cases.items() if only in case for row in paired(case, turns, tree, repeats)]
    about = (
        f"Seconds a save of {LEAVES * SIDE * SIDE:,} float32 numbers in {LEAVES} leaves; medians of {repeats} "
        "interleaved turns, ratio of seconds to the first variant's, lowest and highest paired ratio in brackets"
    )
    return {"about": about, "unit": "s", "digits": 3, "rows": rows}


def paired(case: str, turns: dict[str, Turn], tree: PyTree, repeats: int) -> list[dict[str, Any]]:
    """Return a row a variant after all have taken turns."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for repeat in range(repeats):
        for name in list(turns) if repeat % 2 == 0 else list(reversed(turns)):
            folder = Path(tempfile.mkdtemp())
            seconds[name].append(turns[name](folder, tree))
            shutil.rmtree(folder)
    base = np.array(next(iter(seconds.values())))
    return [
        {
            "case": case, "variant": name, "rate": float(np.median(values)),
            "ratio": float(np.median(np.array(values) / base)), "ratio_low": float(np.min(np.array(values) / base)),
            "ratio_high": float(np.max(np.array(values) / base)),
        }
        for name, values in seconds.items()
    ]  # fmt: skip


def foreground(folder: Path, tree: PyTree) -> float:
    """Return the seconds of a save that is waited for."""
    with Checkpoints(folder, keep=1, best=None, mode="min") as checkpoints:
        began = time.perf_counter()
        checkpoints.save(1, tree, {})
        checkpoints.wait()
        return time.perf_counter() - began


def standstill(folder: Path, tree: PyTree) -> float:
    """Return the seconds until a save lets the loop go on."""
    with Checkpoints(folder, keep=1, best=None, mode="min") as checkpoints:
        began = time.perf_counter()
        checkpoints.save(1, tree, {})
        return time.perf_counter() - began


def background(folder: Path, tree: PyTree) -> float:
    """Return the seconds until a save in the background is a checkpoint."""
    return foreground(folder, tree)


def numpy_write(folder: Path, tree: PyTree) -> float:
    """Return the seconds in which NumPy writes and flushes a file a leaf."""
    arrays = {name: np.asarray(leaf) for name, leaf in tree.items()}
    began = time.perf_counter()
    for name, array in arrays.items():
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - began
