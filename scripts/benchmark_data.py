"""The ``data`` of ``scripts/benchmark.py``: how fast batches are made, and what a step waits for them.

Against PyTorch's DataLoader with the same transforms in NumPy and as many workers, where PyTorch is installed; against
NumPy's own indexing; and beside the training of the Fashion-MNIST CNN. Needs Fashion-MNIST to be prepared.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_loop import CASES, Turn, interleaved, jaxlab_loop

from jaxlab.core import record
from jaxlab.data import images, packed, tfds_source
from jaxlab.data.arrays import ArraySource
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.feeding import feed
from jaxlab.data.pipeline import Batches
from jaxlab.data.tokenize import train_tokenizer

BATCH = 256
STEPS = 234  # one epoch of Fashion-MNIST
PIXELS = 1
TEXT_BYTES = 10_000_000


def run(only: str, repeats: int) -> dict[str, Any]:
    """Return the rows of the cases whose name contains `only`, and what the table has to say about them."""
    cases = (augmented(0), augmented(2), gathered(), tokenised(), waiting())
    rows = [row for name, variants in cases if only in name for row in interleaved(name, variants(), repeats)]
    about = (
        f"Examples (tokens, for texts) a second; ratio to the first variant of each case, medians of {repeats} turns,"
        " lowest and highest paired ratio in brackets; the last case is a share in per cent"
    )
    return {"about": about, "unit": "per second", "rows": rows}


def fashion() -> ArraySource:
    """Return the training images."""
    return tfds_source.make("fashion_mnist", "train")


def augmented(workers: int) -> tuple[str, Callable[[], dict[str, Turn]]]:
    """Return the case of padded crop and flip."""

    def variants() -> dict[str, Turn]:
        source = fashion()
        transforms = (images.random_flip(), images.random_shift(pixels=PIXELS))
        batches = Batches(source, transforms, BATCH, 0, training=True)

        def ours() -> float:
            chunks = feed(batches, first=0, last=STEPS, chunk=1, put=lambda host: host, workers=workers)
            next(chunks)  # workers take seconds to start, on both sides
            return rate(chunks)

        turns: dict[str, Turn] = {}
        if importlib.util.find_spec("torch"):
            turns["PyTorch DataLoader"] = torch_loader(source, workers)
        return {**turns, "jaxlab": ours}

    return f"Fashion-MNIST, crop and flip, batch {BATCH}, {workers} workers", variants


def torch_loader(source: ArraySource, workers: int) -> Turn:
    """Return a turn of PyTorch's loader over a per-example data set with the same transforms."""
    import torch.utils.data

    loader = torch.utils.data.DataLoader(
        Augmented(source.__getitems__(np.arange(len(source)))), BATCH, shuffle=True, num_workers=workers,
        drop_last=True,
    )  # fmt: skip

    def turn() -> float:
        batches = iter(loader)
        next(batches)
        return rate(batches)

    return turn


class Augmented:
    """Examples one by one, as PyTorch's loader asks for them."""

    def __init__(self, fields: dict[str, np.ndarray]) -> None:
        """Hold the arrays."""
        self._images, self._labels = fields["image"], fields["label"]
        self._generator = np.random.default_rng(0)

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._labels)

    def __getitem__(self, place: int) -> tuple[np.ndarray, int]:
        """Return one augmented image [H, W, C] and its label."""
        image_HWC = self._images[place]
        if self._generator.uniform() < 0.5:
            image_HWC = image_HWC[:, ::-1]
        padded = np.pad(image_HWC, ((PIXELS, PIXELS), (PIXELS, PIXELS), (0, 0)))
        down, right = self._generator.integers(0, 2 * PIXELS + 1, 2)
        height, width, _ = image_HWC.shape
        return np.ascontiguousarray(padded[down : down + height, right : right + width]), int(self._labels[place])


def gathered() -> tuple[str, Callable[[], dict[str, Turn]]]:
    """Return the case of arrays in memory without transforms."""

    def variants() -> dict[str, Turn]:
        source = fashion()
        fields = source.__getitems__(np.arange(len(source)))
        batches = Batches(source, (), BATCH, 0, training=True)

        def by_hand() -> float:
            order = np.random.default_rng(0).permutation(len(source))
            pieces = (order[i * BATCH : (i + 1) * BATCH] for i in range(STEPS))
            return rate({name: value[piece] for name, value in fields.items()} for piece in pieces)

        return {"NumPy fancy indexing": by_hand, "jaxlab": lambda: rate(batches[step] for step in range(STEPS))}

    return f"Fashion-MNIST in memory, no transforms, batch {BATCH}", variants


def tokenised() -> tuple[str, Callable[[], dict[str, Turn]]]:
    """Return the case of a text that is split into tokens and packed, the first time and from the cache."""

    def variants() -> dict[str, Turn]:
        source = standard_library()
        folder = Path(tempfile.mkdtemp())
        bpe = folder / "bpe.json"
        train_tokenizer(source, "bpe", 8192, str(bpe))
        turns: dict[str, Turn] = {}
        for name, tokenizer in (("bytes", "byte"), ("BPE of 8,192", str(bpe))):
            cache = str(folder / name)
            turns[name] = functools.partial(pack_anew, source, tokenizer, cache)
            turns[f"{name}, again"] = functools.partial(pack, source, tokenizer, cache)
        return turns

    return f"{TEXT_BYTES // 10**6} MB of text, to packed rows", variants


def standard_library() -> ColumnSource:
    """Return the source files of Python's standard library, some 10 MB of text that every machine has."""
    texts, size = [], 0
    for path in sorted(Path(os.__file__).parent.rglob("*.py")):
        with contextlib.suppress(UnicodeDecodeError):
            texts.append(path.read_text(encoding="utf-8"))
            size += len(texts[-1])
        if size >= TEXT_BYTES:
            break
    return ColumnSource({"text": np.array(texts, object)}, {"name": "standard library"})


def pack_anew(source: ColumnSource, tokenizer: str, cache: str) -> float:
    """Pack with an empty cache."""
    shutil.rmtree(cache, ignore_errors=True)
    return pack(source, tokenizer, cache)


def pack(source: ColumnSource, tokenizer: str, cache: str) -> float:
    """Return tokens a second."""
    began = time.perf_counter()
    rows = packed.make(source, tokenizer, length=1024, cache=cache)
    return rows.spec.meta["tokens"] / (time.perf_counter() - began)


def waiting() -> tuple[str, Callable[[], dict[str, Turn]]]:
    """Return the case of a training step that waits for its data."""

    def variants() -> dict[str, Turn]:
        case = next(case for case in CASES if "Fashion-MNIST CNN" in case.name)._replace(steps=100)

        def share() -> float:
            with tempfile.TemporaryDirectory() as folder:
                jaxlab_loop(case, 1, Path(folder))()
                return 100 * record.read_metrics(Path(folder))[-1]["data_wait"]

        return {"share of time, %": share}

    return "Fashion-MNIST CNN, waiting for data", variants


def rate(batches: Iterator[Any]) -> float:
    """Return examples a second over the rest of an iterator of batches."""
    began, count = time.perf_counter(), 0
    for _ in batches:
        count += 1
    return count * BATCH / (time.perf_counter() - began)
