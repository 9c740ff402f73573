"""Takes the same steps in many ways on 8 virtual devices and prints their relative differences as JSON.

Run by test_equality.py in a process of its own, as the number of devices is fixed when JAX starts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlab.core.tree import named_leaves, unpack
from jaxlab.core.types import DataSpec
from jaxlab.metrics import classify as metrics
from jaxlab.models import cnn, mlp
from jaxlab.objectives import classify
from jaxlab.train.parallel import make_strategy
from jaxlab.train.step import init_state, make_train_step
from jaxlab.train.window import open_window, single

BATCH, CLASSES, STEPS = 64, 5, 4
DATA = DataSpec(
    {"image": jax.ShapeDtypeStruct((8, 8, 1), np.float32), "label": jax.ShapeDtypeStruct((), np.int32)},
    BATCH,
    {"classes": tuple("abcde")},
)
METRICS = {"accuracy": metrics.accuracy(), "cross_entropy": metrics.cross_entropy()}
WAYS = {
    "one device": ("jit", 1, 1),
    "jit x 8": ("jit", 8, 1),
    "pmap x 8": ("pmap", 8, 1),
    "4 microbatches": ("jit", 1, 4),
    "jit x 8, 4 microbatches": ("jit", 8, 4),
    "pmap x 8, 4 microbatches": ("pmap", 8, 4),
}
MODELS = {
    "mlp": lambda axis: mlp.make(DATA, axis, hidden=(16,)),
    "cnn": lambda axis: cnn.make(DATA, axis, channels=(4,), depth=(1,), hidden=(8,), batch_norm=False),
    "batch norm": lambda axis: cnn.make(DATA, axis, channels=(4,), depth=(1,), hidden=(8,)),
}


def make_chunks() -> list[dict[str, np.ndarray]]:
    """Return chunks of one batch whose padding is spread unevenly over devices and microbatches; one device has none.

    Padded rows hold numbers far from the real ones.
    """
    random = np.random.default_rng(0)
    chunks = []
    for _ in range(STEPS):
        mask = (random.random(BATCH) < np.linspace(0.1, 1.0, BATCH)).astype(np.float32)
        mask[:8], mask[-8:] = 0, 1  # the first of 8 devices holds padding only, the last none
        image = (random.normal(1.0, 1.0, (BATCH, 8, 8, 1)) + 100 * (1 - mask[:, None, None, None])).astype(np.float32)
        label = random.integers(0, CLASSES, BATCH).astype(np.int32)
        chunks.append({"image": image, "label": label, "mask": mask, "id": np.arange(BATCH, dtype=np.int32)})
    return [{name: value[None] for name, value in chunk.items()} for chunk in chunks]


def run(model: str, way: str, *, weights: tuple[float, ...] = (), ema: float | None = None) -> list[dict]:
    """Return parameters, average, model state and statistics after each step, by name, on the host."""
    kind, devices, microbatches = WAYS[way]
    strategy = make_strategy(kind, {"data": devices}, jax.devices())
    inputs = ("image", "mask") if model == "batch norm" else ("image",)
    objective = classify.make(DATA, inputs=inputs, label_smoothing=0.1, class_weights=weights)
    optimizer = optax.sgd(0.1)
    chunks = make_chunks()
    first = {name: jnp.asarray(value[0]) for name, value in chunks[0].items()}
    step = make_train_step(
        MODELS[model](strategy.batch_axis), objective, METRICS, optimizer, seed=0,
        grad_accumulation=microbatches, ema=ema, grad_norm=True,
        batch_axis=strategy.batch_axis,
    )  # fmt: skip
    state = strategy.init(lambda: init_state(MODELS[model](None), objective, optimizer, first, 0, ema is not None))
    sums = dict.fromkeys(("sum", "weight"), jax.ShapeDtypeStruct((), "float32"))
    shapes = dict.fromkeys((*METRICS, "loss", "grad_norm"), sums)
    zeros = strategy.init(lambda: open_window(shapes))
    advance = strategy.compile(single(step, strategy.batch_axis), donate=True)
    results = []
    for chunk in chunks:
        state, window = advance(state, zeros, strategy.put_chunk(chunk))
        statistics = unpack(strategy.fetch(window).sums, shapes)
        parts = {"params": state.params, "ema": state.ema, "model_state": state.model_state}
        results.append(named_leaves({**strategy.fetch(parts), "statistics": statistics}))
    return results


def differences(model: str, ways: Sequence[str], **options) -> dict[str, list[dict[str, float]]]:
    """Return for each way and step the leaves that differ most from one device's, relative to the leaf's largest."""
    expected = run(model, "one device", **options)
    found = {}
    for way in ways:
        pairs = zip(expected, run(model, way, **options), strict=True)
        found[f"{model}, {way}"] = [{name: relative(a[name], b[name]) for name in a} for a, b in pairs]
    return found


def relative(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the largest difference relative to the largest expected number."""
    return float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-30))


def main() -> None:
    """Print a mapping from case to a list of steps' relative differences by leaf."""
    ways = [way for way in WAYS if way != "one device"]
    found = {
        **differences("mlp", ways, weights=(0.5, 3.0, 1.0, 0.0, 2.0), ema=0.7),
        **differences("cnn", ["jit x 8", "pmap x 8, 4 microbatches"]),
        **differences("batch norm", ["jit x 8", "pmap x 8"]),
    }
    print(json.dumps({"differences": found, "devices": jax.device_count()}))


if __name__ == "__main__":
    main()
