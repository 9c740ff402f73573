"""Trains small models on 8 virtual devices under several meshes and reads the compiled steps.

Run by test_sharding.py in a process of its own; prints what was found as JSON.
Usage: ``python sharding_program.py``.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxlab.core.tree import named_leaves
from jaxlab.core.types import DataSpec
from jaxlab.models import decoder, mlp
from jaxlab.models.sharding import RULES
from jaxlab.objectives import classify, language
from jaxlab.train.checkpoint import Checkpoints
from jaxlab.train.parallel import Strategy, make_strategy
from jaxlab.train.step import init_state, make_train_step
from jaxlab.train.window import open_window, single, window_shapes

B, T, VOCABULARY, WIDTH = 16, 16, 64, 32
STEPS = 3
BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}
TEXTS = DataSpec({"tokens": jax.ShapeDtypeStruct((T,), np.int32)}, B, {"vocabulary_size": VOCABULARY})
FACES = DataSpec(
    {"image": jax.ShapeDtypeStruct((24,), np.float32), "label": jax.ShapeDtypeStruct((), np.int32)},
    B,
    {"classes": tuple("abcdefgh")},
)
CASES = {
    "mlp": ("mlp", {"data": 8}, ""),
    "mlp, fsdp 8": ("mlp", {"fsdp": 8}, ""),
    "mlp, data 2, fsdp 4": ("mlp", {"data": 2, "fsdp": -1}, ""),
    "decoder": ("decoder", {"data": 8}, ""),
    "decoder, fsdp 8": ("decoder", {"fsdp": 8}, ""),
    "decoder, fsdp 8, scanned": ("scanned", {"fsdp": 8}, ""),
    "decoder, data 2, fsdp 2, tensor 2": ("decoder", {"data": 2, "fsdp": 2, "tensor": 2}, ""),
    "decoder, data 2, sequence 4": ("decoder", {"data": 2, "sequence": 4}, ""),
    "decoder, fsdp 8, offloaded": ("decoder", {"fsdp": 8}, "optimizer"),
    "decoder, data 1, offloaded": ("decoder", {"data": 1}, "optimizer"),
}


def parts(kind: str) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """Return a model, an objective and a batch."""
    random = np.random.default_rng(0)
    batch = {"mask": (np.arange(B) != 3).astype(np.float32), "id": np.arange(B, dtype=np.int32)}
    if kind == "mlp":
        batch |= {"image": random.normal(size=(B, 24)).astype(np.float32), "label": np.arange(B, dtype=np.int32) % 8}
        return mlp.make(FACES, None, (40, 48)), classify.make(FACES, ("image",)), batch
    options = {
        "width": WIDTH,
        "depth": 2 if kind == "scanned" else 1,
        "heads": 4,
        "kv_heads": 2,
        "tied": False,
        "max_length": T,
    }
    batch["tokens"] = random.integers(0, VOCABULARY, (B, T)).astype(np.int32)
    return decoder.make(TEXTS, **options, scan=kind == "scanned"), language.causal(TEXTS), batch


def train(kind: str, strategy: Strategy) -> dict[str, Any]:
    """Take steps and return the state before and after, what the window holds, and the compiled program."""
    model, objective, batch = parts(kind)
    optimizer = optax.adam(1e-2, eps=1e-2)  # a small one would make noise of nearly nothing as large as a step

    def begin() -> Any:
        return init_state(model, objective, optimizer, {n: x[:2] for n, x in batch.items()}, 0, ema=True)

    step = make_train_step(model, objective, {}, optimizer, seed=0, ema=0.9)
    state = strategy.init(begin)
    statistics = jax.eval_shape(step, jax.eval_shape(begin), batch)[1]
    window = strategy.init(lambda: open_window(statistics))
    advance = strategy.compile(single(step, None), donate=True)
    chunk = strategy.put_chunk({name: x[None] for name, x in batch.items()})
    text = advance.lower(state, window, chunk).compile().as_text()
    placed = where(state)
    for _ in range(STEPS):
        state, window = advance(state, window, chunk)
    return {
        "state": state, "begin": begin, "statistics": statistics, "window": strategy.fetch(window), "text": text,
        "placed": placed, "stays": placed == where(state),
    }  # fmt: skip


def where(state: Any) -> dict[str, tuple[str, str]]:
    """Return by name how each array is split, and in which memory it is."""
    return {n: (str(x.sharding), x.sharding.memory_kind) for n, x in named_leaves(state).items()}


def collectives(text: str) -> dict[str, list[list[int]]]:
    """Return by kind the bytes of each array that every collective of a program results in."""
    found: dict[str, list[list[int]]] = {}
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    for shapes, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text):
        arrays = re.findall(r"(f32|s32|u32|pred)\[([\d,]*)\]", shapes)
        found.setdefault(kind, []).append(
            [BYTES[t] * int(np.prod([int(n) for n in d.split(",") if n])) for t, d in arrays]
        )
    return found


def distance(one: Any, other: Any) -> float:
    """Return how far two trees are apart at most, relative to each leaf's largest number."""
    pairs = zip(jax.tree.leaves(jax.device_get(one)), jax.tree.leaves(jax.device_get(other)), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-9)) for a, b in pairs)


def restored(found: dict[str, Any], folder: Path, strategy: Strategy) -> float:
    """Return how far a state that was saved from one mesh and restored to another is from itself; 0 for equal bits."""
    like = {"state": jax.eval_shape(found["begin"]), "window": window_shapes(found["statistics"])}
    with Checkpoints(folder, keep=1, best=None, mode="min") as checkpoints:
        checkpoints.save(1, {"state": found["state"], "window": found["window"]}, {})
        checkpoints.wait()
        tree = checkpoints.restore(1, strategy.saved_shapes(like))
    placed = jax.tree.map(lambda x: x.sharding, tree["state"].params)
    assert placed == jax.tree.map(lambda x: x.sharding, strategy.saved_shapes(like)["state"].params)
    return distance(tree["state"], found["state"])


def measured(name: str, make: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return what a case gives beside one device."""
    kind, mesh, offload = CASES[name]
    strategy = make_strategy("jit", mesh, jax.devices(), RULES, offload)
    found, plain = train(kind, strategy), make(kind)
    described = {p.name: p for p in strategy.placement.describe(found["state"])}
    return {
        "found": found,
        "result": {
            "distance": distance(found["state"], plain["state"]),
            "loss": distance(found["window"].sums, plain["window"].sums),
            "ids": bool(found["window"].ids == plain["window"].ids),
            "collectives": collectives(found["text"]),
            "stays": found["stays"],
            "placed": found["placed"],
            "bytes": {n: p.bytes for n, p in described.items()},
            "on a device": {n: x.addressable_shards[0].data.nbytes for n, x in named_leaves(found["state"]).items()},
            "parameters": {n: int(x.nbytes) for n, x in named_leaves(found["state"].params).items()},
        },
    }


def main() -> None:
    """Print each case's findings."""
    one = make_strategy("jit", {"data": 1}, jax.devices())
    plain = {kind: train(kind, one) for kind in ("mlp", "decoder", "scanned")}
    cases = {name: measured(name, plain.__getitem__) for name in CASES}
    source = cases["decoder, data 2, fsdp 2, tensor 2"]["found"]
    other = make_strategy("jit", {"fsdp": 4}, jax.devices(), RULES)
    with tempfile.TemporaryDirectory() as folder:
        moved = {
            "one device": restored(source, Path(folder) / "one", one),
            "fsdp 4": restored(source, Path(folder) / "four", other),
            "from the host's memory": restored(
                cases["decoder, fsdp 8, offloaded"]["found"], Path(folder) / "host", one
            ),
        }
    results = {name: case["result"] for name, case in cases.items()}
    print(json.dumps({"devices": jax.device_count(), "cases": results, "restored": moved}))


if __name__ == "__main__":
    main()
