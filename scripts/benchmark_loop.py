"""The ``loop`` of ``scripts/benchmark.py``: jaxlab's whole training loop against one written by hand.

Compares jaxlab's whole loop (data pipeline, augmentation, metrics, rows to metrics.jsonl and TensorBoard)
with a jitted loop written by hand for the same model, batches and optimizer, and with Keras on JAX where that is
installed (``pip install -e .[benchmark]``). Evaluation and checkpoints are left out on all sides. Every variant is
compiled and warmed up first; then all take turns, and a ratio is the median over the turns of paired ratios.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import jaxlab
from jaxlab.core import record
from jaxlab.core.override import override
from jaxlab.run.assemble import Experiment, assemble, make_sinks, strategy_of
from jaxlab.run.host_memory import keep_freed_memory
from jaxlab.run.incident import Position
from jaxlab.run.journal import Journal
from jaxlab.run.plan import make_plan, run_loop
from jaxlab.run.spikes import SpikeAlarm
from jaxlab.train.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parent.parent
LOG_EVERY = 100


class Case(NamedTuple):
    """One line of the table: a config, its overrides and how many steps a turn takes."""

    name: str
    config: str
    overrides: dict[str, str]
    steps: int
    keras: bool = False
    slow: int = 1  # divides the turns


CASES = (
    Case("digits MLP 64-128-128-10, batch 128", "configs/digits_cnn.py:mlp", {"train.batch_size": "128"}, 3200, True),
    Case("digits MLP 64-128-128-10, batch 32", "configs/digits_cnn.py:mlp", {"train.batch_size": "32"}, 6400, True),
    Case("digits CNN, batch 128", "configs/digits_cnn.py", {}, 320),
    Case("Fashion-MNIST CNN, batch 256", "configs/fashion_mnist_cnn.py", {}, 32, slow=2),
    Case("Fashion-MNIST ResNet, batch 256", "configs/fashion_mnist_cnn.py:resnet", {}, 32, slow=2),
)

Turn = Callable[[], float]  # trains and returns steps a second


def run(only: str, repeats: int) -> dict[str, Any]:
    """Return the rows of the cases whose name contains `only`, and what the table has to say about them."""
    keep_freed_memory()  # before devices are found, as `jaxlab train` does; both sides have it
    cases = [case for case in CASES if only in case.name]
    rows = [row for case in cases for row in measure_case(case, max(3, repeats // case.slow))]
    about = (
        f"Steps a second against a hand-written jitted loop, a row logged every {LOG_EVERY} steps; medians of {repeats}"
        " interleaved turns (fewer for Fashion-MNIST), lowest and highest paired ratio in brackets"
    )
    return {"about": about, "unit": "steps/s", "rows": rows}


def measure_case(case: Case, repeats: int) -> list[dict[str, Any]]:
    """Return a row a variant, each with its ratio to the hand-written loop."""
    with tempfile.TemporaryDirectory() as folder:
        turns: dict[str, Turn] = {"hand-written": hand_written(case), "jaxlab": jaxlab_loop(case, 1, Path(folder, "1"))}
        turns["jaxlab, steps_per_call=32"] = jaxlab_loop(case, 32, Path(folder, "32"))
        if case.keras and importlib.util.find_spec("keras"):
            turns["Keras on JAX"] = keras_loop(case)
        for turn in turns.values():
            turn()
        return interleaved(case.name, turns, repeats)


def interleaved(case: str, turns: dict[str, Turn], repeats: int) -> list[dict[str, Any]]:
    """Return a row a variant after all have taken turns, each with its paired ratio to the first."""
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for repeat in range(repeats):
        for name in list(turns) if repeat % 2 == 0 else list(reversed(turns)):  # nobody always goes first
            rates[name].append(turns[name]())
        print(f"{case}: {repeat + 1} of {repeats}", file=sys.stderr)
    base = np.array(next(iter(rates.values())))
    return [
        {
            "case": case, "variant": name, "rate": float(np.median(values)),
            "ratio": float(np.median(np.array(values) / base)), "ratio_low": float(np.min(np.array(values) / base)),
            "ratio_high": float(np.max(np.array(values) / base)),
        }
        for name, values in rates.items()
    ]  # fmt: skip


def load(case: Case, steps_per_call: int) -> ConfigDict:
    """Return the case's config, told to log like the hand-written loop and to save and evaluate at the end only."""
    config = jaxlab.load_config(ROOT / case.config)
    flags = {"train.steps": str(case.steps), "train.log_every": str(LOG_EVERY), "train.eval_every": str(case.steps)}
    flags |= {"train.checkpoint_every": str(case.steps), "train.steps_per_call": str(steps_per_call)}
    return override(config, {**flags, **case.overrides})


def jaxlab_loop(case: Case, steps_per_call: int, folder: Path) -> Turn:
    """Return a turn of jaxlab's loop; only saving is replaced, by nothing."""
    config = load(case, steps_per_call)
    experiment = assemble(config, ("train",))
    strategy = strategy_of(config)
    record.open_run(folder, config, {})
    with contextlib.redirect_stderr(io.StringIO()):
        journal = Journal(folder, 0, make_sinks(config, folder, 0))
    statistics = experiment.abstract_step()[1]
    with Checkpoints(folder / "checkpoints", keep=1, best=None, mode="min") as checkpoints:
        plan = make_plan(experiment, statistics, strategy, journal, checkpoints, SpikeAlarm(config.train.spike))
    plan = dataclasses.replace(plan, save=lambda *_: None, write=journal.write)

    batches = experiment.batches("train", training=True)

    def turn() -> float:
        state = jax.block_until_ready(strategy.init(experiment.init))
        began = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            state = jax.block_until_ready(
                run_loop(experiment, batches, strategy, plan, Position(state, plan.zeros, 0), lambda *_: None)
            )
        return case.steps / (time.perf_counter() - began)

    return turn


def hand_written(case: Case) -> Turn:
    """Return a turn of the loop that one writes for one model: NumPy slices into a jitted, donating update."""
    config = load(case, 1)
    experiment = assemble(config, ("train",))
    model, optimizer, size = experiment.make_model(None), experiment.optimizer, config.train.batch_size
    smoothing, ema = config.objective.label_smoothing, config.train.ema
    source = experiment.sources["train"]
    data = source.__getitems__(np.arange(len(source)))
    classes = len(experiment.data.meta["classes"])

    @jax.jit
    def init(key: jax.Array) -> tuple[Any, ...]:
        image = jnp.zeros((2, *experiment.data.example["image"].shape), experiment.data.example["image"].dtype)
        variables = model.init(key, image, train=False)
        params = variables.pop("params")
        return params, variables, optimizer.init(params), jax.tree.map(jnp.array, params) if ema else None

    def update(state: tuple[Any, ...], batch: dict[str, Any], key: jax.Array) -> tuple[Any, ...]:
        params, model_state, opt_state, average = state

        def loss(params: Any) -> tuple[jax.Array, Any]:
            outputs, new = model.apply(
                {"params": params, **model_state}, batch["image"], train=True, mutable=list(model_state),
                rngs={"dropout": key},
            )  # fmt: skip
            labels = optax.smooth_labels(jax.nn.one_hot(batch["label"], classes), smoothing)
            value = optax.softmax_cross_entropy(outputs["logits"], labels).mean()
            accuracy = (outputs["logits"].argmax(-1) == batch["label"]).mean()
            entropy = optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], batch["label"]).mean()
            return value, (new, {"accuracy": accuracy, "cross_entropy": entropy})

        (value, (model_state, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, 1 - ema) if ema else None
        return (params, model_state, opt_state, average), {"loss": value, **metrics}

    step = jax.jit(lambda state, batch, key, n: update(state, batch, jax.random.fold_in(key, n)), donate_argnums=0)

    def turn() -> float:
        key = jax.random.key(0)
        state = jax.block_until_ready(init(key))
        began = time.perf_counter()
        for n, batch in zip(range(case.steps), batches(experiment, data, size), strict=False):
            state, metrics = step(state, batch, key, n)
            if (n + 1) % LOG_EVERY == 0:
                print(n + 1, {name: float(value) for name, value in metrics.items()}, file=io.StringIO())
        jax.block_until_ready(state)
        return case.steps / (time.perf_counter() - began)

    return turn


def batches(experiment: Experiment, data: dict[str, np.ndarray], size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield shuffled batches for ever, through the experiment's own transforms."""
    generator = np.random.default_rng(0)
    randomness = FreeRandomness(generator, size)
    while True:
        order = generator.permutation(len(data["label"]))
        for start in range(0, len(order) - size + 1, size):
            batch = {name: value[order[start : start + size]] for name, value in data.items()}
            for transform in (*experiment.transforms, *experiment.augment):
                batch = transform(batch, randomness)
            yield batch


class FreeRandomness(NamedTuple):
    """Random numbers as a hand-written loop draws them, from one generator."""

    generator: np.random.Generator
    rows: int

    def uniform(self, low: float, high: float, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return float32 numbers [rows, *shape]."""
        return self.generator.uniform(low, high, (self.rows, *shape)).astype(np.float32)

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return integers [rows, *shape]."""
        return self.generator.integers(low, high, (self.rows, *shape))


def keras_loop(case: Case) -> Turn:
    """Return a turn of Keras's fit on the MLP, its metrics on."""
    import keras

    config = load(case, 1)
    source = assemble(config, ("train",)).sources["train"]
    data = source.__getitems__(np.arange(len(source)))
    size = config.train.batch_size
    steps = len(source) // size
    image, label = data["image"][: steps * size].reshape(steps * size, -1), data["label"][: steps * size]
    layers = [keras.layers.Input((image.shape[1],))]
    layers += [keras.layers.Dense(width, activation="relu") for width in config.model.hidden]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    epochs = max(1, round(case.steps / steps))

    def turn() -> float:
        began = time.perf_counter()
        model.fit(image, label, batch_size=size, epochs=epochs, verbose=0)
        return epochs * steps / (time.perf_counter() - began)

    return turn
