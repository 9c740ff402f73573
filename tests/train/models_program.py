"""Trains every model that jaxlab ships for a step on 8 virtual devices, under jit and under pmap.

Run by test_models_on_devices.py in a process of its own; prints what became of each model as JSON.
Usage: ``python models_program.py``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
# each program runs once: what matters is the time to compile it
os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

import jax
import numpy as np
import optax
from contract_cases import SIZE
from contract_discovery import FOUND, Case, make_batch, make_trained

from jaxlab.core.tree import named_leaves, unpack
from jaxlab.run.collectives import collectives
from jaxlab.train.parallel import make_strategy
from jaxlab.train.step import init_state, make_train_step
from jaxlab.train.window import open_window, single

ROWS = np.arange(16) % SIZE


def step(case: Case, kind: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], float, str]:
    """Return the parameters before and after a step, its mean loss and under jit the compiled program."""
    strategy = make_strategy(kind, {"data": -1}, jax.devices())
    model, objective = make_trained(case, strategy.batch_axis)
    optimizer = optax.sgd(0.1)
    chunk = {name: value[None] for name, value in make_batch(ROWS, case.trained.source).items()}
    batch = {name: value[0, :2] for name, value in chunk.items()}
    plain, _ = make_trained(case)
    state = strategy.init(lambda: init_state(plain, objective, optimizer, batch, 0, False))
    train_step = make_train_step(model, objective, {}, optimizer, seed=0, batch_axis=strategy.batch_axis)
    plain_step = make_train_step(plain, objective, {}, optimizer, seed=0)
    abstract = jax.eval_shape(lambda: init_state(plain, objective, optimizer, batch, 0, False))
    shapes = jax.eval_shape(plain_step, abstract, {name: value[0] for name, value in chunk.items()})[1]
    window = strategy.init(lambda: open_window(shapes))
    before = {name: np.array(x) for name, x in named_leaves(strategy.fetch(state.params)).items()}
    advance = strategy.compile(single(train_step, strategy.batch_axis), donate=False)
    arguments = (state, window, strategy.put_chunk(chunk))
    compiled = advance.lower(*arguments).compile() if kind == "jit" else advance
    after, window = jax.block_until_ready(compiled(*arguments))
    sums = unpack(strategy.fetch(window).sums, shapes)["loss"]
    after_leaves = {name: np.array(x) for name, x in named_leaves(strategy.fetch(after.params)).items()}
    text = compiled.as_text() if kind == "jit" else ""
    return before, after_leaves, float(sums["sum"] / sums["weight"]), text


def main() -> None:
    """Print by model: the parameters, those that a step left as they were, and how far pmap is from jit."""
    results: dict[str, Any] = {}
    for place, case in enumerate(case for case in FOUND if case.kind == "model"):
        before, after, loss, text = step(case, "jit")
        _, mapped, mapped_loss, _ = step(case, "pmap")
        results[f"{case.path} {place}"] = {
            "loss": loss, "pmap loss": mapped_loss, "parameters": len(before),
            "unmoved": [n for n in before if np.array_equal(before[n], after[n])],
            "not finite": [n for n in after if not np.isfinite(after[n]).all()],
            "travels": {kind: travel.bytes for kind, travel in collectives(text).items()},
            "bytes": sum(int(x.nbytes) for x in before.values()),
            "distance": max(float(np.abs(after[n] - mapped[n]).max()) for n in after),
        }  # fmt: skip
    print(json.dumps({"devices": jax.device_count(), "models": results}))


if __name__ == "__main__":
    main()
