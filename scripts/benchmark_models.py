"""The ``models`` of ``scripts/benchmark.py``: training steps against PyTorch's, and what depth costs to compile.

Both sides take the same numbers, AdamW and as many threads. PyTorch is eager, where it is installed (``pip install -e
.[benchmark]``); Flax's own `nn.RNN` beside the LSTM is compiled as ours. Each variant has a process of its own, which
waits while the others have their turns (threads of one framework that spin slow the other's), with its memory as
`jaxlab train` sets it, or as PyTorch leaves it. Ratios are of times: below 1 is faster than the first variant. Wanted:
LSTM at most 1.2, CNN and decoder at most 1, 24 layers at most 1.5.
"""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
from benchmark_loop import Turn, interleaved
from flax import linen as nn

import jaxlab
from jaxlab.core import config as configs
from jaxlab.core.types import Apply, Batch, DataSpec, Loss, Objective, TrainState
from jaxlab.models import decoder
from jaxlab.models.recurrent import Stack
from jaxlab.objectives import classify, language
from jaxlab.run.environment import available_cpus
from jaxlab.run.host_memory import keep_freed_memory
from jaxlab.train.step import init_state, make_train_step

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent
RATE = 1e-3
HIDDEN, STEPS, SEQUENCES = 256, 96, 128  # the LSTM's
IMAGES = 256
WIDTH, DEPTH, HEADS, LENGTH, TEXTS, VOCABULARY = 256, 4, 8, 256, 16, 256  # the decoder's
SHALLOW, DEEP = 2, 24
TORCH = importlib.util.find_spec("torch") is not None


Maker = Callable[[], Turn]


def run(only: str, repeats: int) -> dict[str, Any]:
    """Return the rows of the cases whose name contains `only`, and what the table has to say about them."""
    rows = []
    for name, variants in cases().items():
        if only in name:
            children = {variant: Child(name, variant) for variant in variants()}
            rows += interleaved(name, {variant: child.turn for variant, child in children.items()}, repeats)
            for child in children.values():
                child.end()
    about = (
        f"Milliseconds a training step, or a compilation; ratio of times to the first variant, medians of {repeats}"
        " interleaved turns, lowest and highest paired ratio in brackets"
    )
    return {"about": about, "unit": "ms", "rows": rows}


def cases() -> dict[str, Callable[[], dict[str, Maker]]]:
    """Return by the name of each case the function that returns by name what makes its variants."""
    return {
        f"LSTM step, {HIDDEN} features, {STEPS} steps, batch {SEQUENCES}": lstm,
        f"Fashion-MNIST CNN step, batch {IMAGES}": cnn,
        f"decoder step, {DEPTH} layers of {WIDTH}, {LENGTH} tokens, batch {TEXTS}": transformer,
        "compile a decoder's step, blocks scanned": compilation,
    }


class Child:
    """One variant in a process of its own."""

    def __init__(self, case: str, variant: str) -> None:
        """Start it."""
        spawning = multiprocessing.get_context("spawn")
        self._connection, theirs = spawning.Pipe()
        self._process = spawning.Process(target=serve, args=(theirs, case, variant), daemon=True)
        self._process.start()
        theirs.close()  # else a child that fails would be waited for without end

    def turn(self) -> float:
        """Let it take a turn and return what that took."""
        self._connection.send(True)
        return self._connection.recv()

    def end(self) -> None:
        """Let it end."""
        self._connection.send(False)
        self._process.join()


def serve(connection: Connection, case: str, variant: str) -> None:
    """Take a turn for each true that comes."""
    if variant.startswith("PyTorch"):
        import torch

        torch.set_num_threads(available_cpus())
    else:
        keep_freed_memory()
        jax.config.update("jax_enable_compilation_cache", False)
    turn = cases()[case]()[variant]()
    while connection.recv():
        connection.send(turn())


def timed(step: Callable[[], Any], count: int) -> Turn:
    """Return a turn of `count` steps, each of which ends before it returns, after one that is not timed."""

    def turn() -> float:
        step()
        began = time.perf_counter()
        for _ in range(count):
            step()
        return 1000 * (time.perf_counter() - began) / count

    return turn


def ours(model: nn.Module, objective: Objective, batch: dict[str, np.ndarray], count: int) -> Turn:
    """Return a turn of jaxlab's training step."""
    batch = {**batch, "mask": np.ones(len(next(iter(batch.values()))), np.float32)}
    step, state = training(model, objective, batch)
    compiled = jax.jit(step, donate_argnums=0)
    held = [jax.jit(state)()]
    placed = jax.device_put(batch)

    def once() -> None:
        held[0] = jax.block_until_ready(compiled(held[0], placed)[0])

    return timed(once, count)


def training(
    model: nn.Module, objective: Objective, batch: dict[str, np.ndarray]
) -> tuple[Callable[..., Any], Callable[[], TrainState]]:
    """Return the training step and the function that makes its first state."""
    optimizer = optax.adamw(RATE)
    step = make_train_step(model, objective, {}, optimizer, seed=0)
    return step, lambda: init_state(model, objective, optimizer, batch, 0, False)


def theirs(module: torch.nn.Module, loss: Callable[[], torch.Tensor], count: int) -> Turn:
    """Return a turn of PyTorch's training step."""
    import torch

    optimizer = torch.optim.AdamW(module.parameters(), RATE)

    def once() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return timed(once, count)


class Sequence(nn.Module):
    """Our layer or Flax's, with the result that an objective wants."""

    layer: Stack | None

    @nn.compact
    def __call__(self, x_BTD: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Return ``states``."""
        if self.layer is None:
            return {"states": nn.RNN(nn.OptimizedLSTMCell(HIDDEN))(x_BTD)}
        return {"states": self.layer(x_BTD, train=train)[0]}


def lstm() -> dict[str, Maker]:
    """Return the variants of one LSTM layer, as wide inside as its inputs, and the mean square of its states."""
    x_BTD = np.random.default_rng(0).standard_normal((SEQUENCES, STEPS, HIDDEN), np.float32)

    def squares(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(batch["x"])
        square_BTH = jax.numpy.square(outputs["states"])
        return Loss(square_BTH.sum(), jax.numpy.asarray(square_BTH.size, np.float32), {}, model_state)

    def in_torch() -> Turn:
        import torch

        module, x = torch.nn.LSTM(HIDDEN, HIDDEN, batch_first=True), torch.tensor(x_BTD)
        return theirs(module, lambda: module(x)[0].square().mean(), 4)

    layer = Sequence(Stack.of("lstm", HIDDEN, 1, False, 0.0, 1.0))
    return beside("PyTorch nn.LSTM", in_torch) | {
        "jaxlab": functools.partial(ours, layer, squares, {"x": x_BTD}, 4),
        "Flax nn.RNN": functools.partial(ours, Sequence(None), squares, {"x": x_BTD}, 4),
    }


def beside(name: str, maker: Maker) -> dict[str, Maker]:
    """Return PyTorch's variant where it is installed."""
    return {name: maker} if TORCH else {}


def cnn() -> dict[str, Maker]:
    """Return the variants of the model of ``configs/fashion_mnist_cnn.py``."""
    generator = np.random.default_rng(0)
    image_BHWC = generator.standard_normal((IMAGES, 28, 28, 1), np.float32)
    batch = {"image": image_BHWC, "label": generator.integers(0, 10, IMAGES).astype(np.int32)}
    data = spec_of(batch, classes=tuple("0123456789"))
    config = jaxlab.load_config(ROOT / "configs/fashion_mnist_cnn.py")
    model, smoothing = configs.build(config.model, data=data, batch_axis=None), config.objective.label_smoothing

    def in_torch() -> Turn:
        import torch

        layers: list[torch.nn.Module] = []
        before = 1
        for width in config.model.channels:
            layers += [torch.nn.Conv2d(before, width, 3, padding=1, bias=False), torch.nn.BatchNorm2d(width)]
            layers += [torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
            before = width
        dropout = torch.nn.Dropout(config.model.dropout)
        module = torch.nn.Sequential(*layers, torch.nn.Flatten(), dropout, torch.nn.Linear(9 * before, 10))
        image = torch.tensor(np.ascontiguousarray(image_BHWC.transpose(0, 3, 1, 2)))
        label = torch.tensor(batch["label"]).long()
        entropy = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
        return theirs(module, lambda: entropy(module(image), label), 8)

    objective = classify.make(data, label_smoothing=smoothing)
    return beside("PyTorch eager", in_torch) | {"jaxlab": functools.partial(ours, model, objective, batch, 8)}


def transformer() -> dict[str, Maker]:
    """Return the variants of a decoder of GPT-2's kind without dropout."""
    batch = texts(TEXTS, LENGTH)

    def in_torch() -> Turn:
        import torch

        module, tokens_BT = torch_decoder(), torch.tensor(batch["tokens"]).long()
        entropy = torch.nn.functional.cross_entropy
        return theirs(module, lambda: entropy(module(tokens_BT)[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten()), 2)

    data = spec_of(batch, vocabulary_size=VOCABULARY)
    jaxlabs = functools.partial(ours, our_decoder(data, DEPTH, False), language.causal(data), batch, 2)
    return beside("PyTorch eager", in_torch) | {"jaxlab": jaxlabs}


def our_decoder(data: DataSpec, depth: int, scan: bool) -> nn.Module:
    """Return jaxlab's decoder."""
    return decoder.gpt2(
        data, max_length=LENGTH, width=WIDTH, depth=depth, heads=HEADS, dropout=0.0, attention_dropout=0.0, scan=scan
    )


def torch_decoder() -> torch.nn.Module:
    """Return the same decoder in PyTorch, with its fused attention."""
    import torch

    class Block(torch.nn.Module):
        """Attention and feed-forward, each after a normalisation and beside a shortcut."""

        def __init__(self) -> None:
            """Make the layers."""
            super().__init__()
            self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH) for _ in range(2))
            self.project, self.out = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
            self.up, self.down = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
            """Return the new `x`."""
            rows, steps, _ = x_BTD.shape
            qkv_BTD = self.project(self.norms[0](x_BTD)).split(WIDTH, dim=2)
            q, k, v = (part.view(rows, steps, HEADS, -1).transpose(1, 2) for part in qkv_BTD)
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x_BTD = x_BTD + self.out(y.transpose(1, 2).reshape(rows, steps, WIDTH))
            gelu = torch.nn.functional.gelu
            return x_BTD + self.down(gelu(self.up(self.norms[1](x_BTD)), approximate="tanh"))

    class Decoder(torch.nn.Module):
        """Embeddings, blocks, and logits by the table of the embedding."""

        def __init__(self) -> None:
            """Make the layers."""
            super().__init__()
            self.tokens, self.places = torch.nn.Embedding(VOCABULARY, WIDTH), torch.nn.Embedding(LENGTH, WIDTH)
            self.blocks, self.norm = torch.nn.Sequential(*(Block() for _ in range(DEPTH))), torch.nn.LayerNorm(WIDTH)

        def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
            """Return the logits."""
            x_BTD = self.tokens(tokens_BT) + self.places(torch.arange(tokens_BT.shape[1]))
            return self.norm(self.blocks(x_BTD)) @ self.tokens.weight.T

    return Decoder()


def compilation() -> dict[str, Maker]:
    """Return what it takes to trace and compile the training step of a flat decoder and of a deep one, anew each turn.

    Few and short texts: their number changes the work of a step, not the program.
    """
    batch = {**texts(2, 32), "mask": np.ones(2, np.float32)}
    data = spec_of(batch, vocabulary_size=VOCABULARY)

    def turn_of(depth: int) -> Turn:
        def turn() -> float:
            step, state = training(our_decoder(data, depth, True), language.causal(data), batch)
            abstract = jax.eval_shape(state)
            jax.clear_caches()
            began = time.perf_counter()
            jax.jit(step, donate_argnums=0).lower(abstract, batch).compile()
            return 1000 * (time.perf_counter() - began)

        return turn

    return {f"{depth} layers": functools.partial(turn_of, depth) for depth in (SHALLOW, DEEP)}


def texts(rows: int, length: int) -> dict[str, np.ndarray]:
    """Return rows of random token ids."""
    return {"tokens": np.random.default_rng(0).integers(0, VOCABULARY, (rows, length)).astype(np.int32)}


def spec_of(batch: dict[str, np.ndarray], **facts: Any) -> DataSpec:
    """Return the spec of a batch's rows."""
    example = {name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in batch.items()}
    return DataSpec(example, len(next(iter(batch.values()))), facts)
