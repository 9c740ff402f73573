"""The ``parallel`` of ``scripts/benchmark.py``: jaxlab's loop on two devices against a bare jitted step over a mesh.

The devices are virtual ones of one CPU, so that the figures say what the loop and the strategies cost, and nothing
about how training scales. Steps wait for each other on all sides: several CPU devices in a process deadlock otherwise.
Every variant is compiled and warmed up first; then all take turns.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from benchmark_loop import Case, Turn, interleaved, jaxlab_loop, load
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlab.models.sharding import RULES
from jaxlab.run.assemble import assemble
from jaxlab.run.host_memory import keep_freed_memory
from jaxlab.train.placement import Placement

DEVICES = 2
MLP = {"train.batch_size": "1024", "train.grad_norm": "false"}
CASES = (
    Case("digits MLP 64-128-128-10, batch 1024", "configs/digits_cnn.py:mlp", MLP, 1600),
    Case("digits CNN, batch 256", "configs/digits_cnn.py", {"train.batch_size": "256"}, 100),
)


def run(only: str, repeats: int) -> dict[str, Any]:
    """Return the rows of the cases whose name contains `only`, and what the table has to say about them."""
    os.environ["NPROC"] = str(2 * DEVICES)  # fewer threads deadlock
    jax.config.update("jax_num_cpu_devices", DEVICES)
    keep_freed_memory()  # before devices are found, as `jaxlab train` does; both sides have it
    rows = [row for case in CASES if only in case.name for row in measure_case(case, repeats)]
    about = (
        f"Steps a second on {DEVICES} virtual devices against a bare jitted step with the batch split over them; "
        f"medians of {repeats} interleaved turns, lowest and highest paired ratio in brackets"
    )
    return {"about": about, "unit": "steps/s", "rows": rows}


def measure_case(case: Case, repeats: int) -> list[dict[str, Any]]:
    """Return a row a variant: against a bare step over the same mesh, and pmap against jit."""
    variants = {
        "jit": {"parallel.strategy": "jit"},
        "pmap": {"parallel.strategy": "pmap"},
        "jit, fsdp 2": {"parallel.mesh.data": "1", "parallel.mesh.fsdp": "2"},
    }
    with tempfile.TemporaryDirectory() as folder:
        turns: dict[str, Turn] = {"bare step": bare(case, {"data": DEVICES, "fsdp": 1})}
        for name, overrides in variants.items():
            turns[f"jaxlab, {name}"] = jaxlab_loop(with_overrides(case, overrides), 1, Path(folder, name))
        turns["bare step, fsdp 2"] = bare(case, {"data": 1, "fsdp": DEVICES})
        for turn in turns.values():
            turn()
        split = {name: turns.pop(name) for name in ("bare step, fsdp 2", "jaxlab, jit, fsdp 2")}
        return interleaved(case.name, turns, repeats) + interleaved(f"{case.name}, fsdp", split, repeats)


def with_overrides(case: Case, overrides: dict[str, str]) -> Case:
    """Return the case under other overrides as well."""
    return case._replace(overrides={**case.overrides, **overrides})


def bare(case: Case, sizes: dict[str, int]) -> Turn:
    """Return a turn of the experiment's own step, jitted over a mesh, on batches that NumPy gathers."""
    config = load(case, 1)
    experiment = assemble(config, ("train",))
    axes = {**sizes, "sequence": 1, "tensor": 1}
    mesh = Mesh(np.array(jax.devices()).reshape(tuple(axes.values())), tuple(axes), axis_types=(AxisType.Auto,) * 4)
    placed = Placement(mesh, RULES).of(jax.eval_shape(experiment.init))
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    step = jax.jit(experiment.train_step(None), donate_argnums=0, out_shardings=(placed, None))
    init = jax.jit(experiment.init, out_shardings=placed)
    batches = experiment.batches("train", training=True)

    def turn() -> float:
        state = jax.block_until_ready(init())
        began = time.perf_counter()
        for number in range(case.steps):
            state, statistics = jax.block_until_ready(step(state, jax.device_put(batches[number], rows)))
            if (number + 1) % int(config.train.log_every) == 0:
                jax.device_get(statistics)
        return case.steps / (time.perf_counter() - began)

    return turn
