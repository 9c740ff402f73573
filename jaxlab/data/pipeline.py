"""From a source to batches on devices: gathered and transformed as whole arrays, fetched ahead of the step.

`Batches` maps a step to a host batch and holds no position; who reads it (a thread, or Grain's worker processes)
changes nothing but speed. Knows no device: putting a batch there is a function that the caller passes.
Usage: ``feed(Batches(source, (), 128, seed, training=True), first=0, last=1000, chunk=8, put=jax.device_put)``.
"""

from __future__ import annotations

import dataclasses
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from jaxlab.core import rng
from jaxlab.core.types import DataSpec, HostBatch, Source, Transform
from jaxlab.data import order
from jaxlab.data.arrays import ArraySource
from jaxlab.data.bucketing import Buckets

T = TypeVar("T")
CHUNK_BYTES = 2**18  # one transfer carries about this much: small batches travel together, large ones alone
CHUNK_STEPS = 32
WORKER_BYTES = 2**21  # what a worker process hands over at once
CHEAP_BYTES = 2**20  # rows of arrays in memory: up to here a gather and a transfer take well under a millisecond


@dataclasses.dataclass(frozen=True)
class RowRandomness:
    """The random numbers of one transform on one batch: drawn for the global batch, of which `rows` are kept."""

    generator: np.random.Generator
    batch_size: int
    rows: slice

    def uniform(self, low: float, high: float, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return float32 numbers [rows, *shape] in [low, high)."""
        return self.generator.uniform(low, high, (self.batch_size, *shape)).astype(np.float32)[self.rows]

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return integers [rows, *shape] in [low, high)."""
        return self.generator.integers(low, high, (self.batch_size, *shape))[self.rows]

    def normal(self, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return standard normal float32 numbers [rows, *shape]."""
        return self.generator.standard_normal((self.batch_size, *shape), np.float32)[self.rows]


@dataclasses.dataclass(frozen=True)
class Batches:
    """Host batches by number. `rows` are those of each global batch that this process reads.

    With `training` the order is a permutation an epoch, or draws by `weights`, and any number is valid; without, the
    source's own order, the last batch padded.
    """

    source: Source
    transforms: tuple[Transform, ...]
    batch_size: int
    seed: int
    training: bool
    rows: slice = dataclasses.field(default_factory=lambda: slice(None))
    weights: order.Weights | None = None
    buckets: Buckets | None = None

    def __len__(self) -> int:
        """Return the number of batches that cover the source once."""
        return order.eval_batch_count(len(self.source), self.batch_size)

    def indices(self, first: int, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return the global indices and mask, each [count, batch_size], of consecutive batches."""
        shape = (count, self.batch_size)
        if self.training and self.buckets is not None:
            return np.stack([self.buckets.batch(first + i)[0] for i in range(count)]), np.ones(shape, np.float32)
        if self.training:
            ids = order.train_indices(len(self.source), self.batch_size, self.seed, first, count, self.weights)
            return ids.reshape(shape), np.ones(shape, np.float32)
        ids, mask = order.eval_indices(len(self.source), self.batch_size, first, count)
        return ids.reshape(shape), mask.reshape(shape)

    def __getitem__(self, number: int) -> HostBatch:
        """Return this process's rows of the batch numbered `number`."""
        return {name: value[0] for name, value in self.chunk(number, 1).items()}

    def chunk(self, first: int, count: int) -> HostBatch:
        """Return `count` consecutive batches stacked, each field [count, rows, ...]; gathered in one go."""
        ids, mask = (whole[:, self.rows] for whole in self.indices(first, count))
        gathered = self.source.__getitems__(ids.reshape(-1))
        fields = {name: value.reshape(*ids.shape, *value.shape[1:]) for name, value in gathered.items()}
        if self.transforms or self.buckets is not None:
            batches = [self._transform({n: v[i] for n, v in fields.items()}, first + i) for i in range(count)]
            fields = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        return {**fields, "id": ids, "mask": mask}

    def _transform(self, fields: Mapping[str, np.ndarray], number: int) -> Mapping[str, np.ndarray]:
        stream = "transform" if self.training else "transform-eval"
        counters = (self.seed, stream, number)
        fields = transformed(fields, self.transforms, counters, self.batch_size, self.rows)
        if self.training and self.buckets is not None:
            return self.buckets.trim(fields, number)
        return fields


def transformed(
    fields: Mapping[str, np.ndarray],
    transforms: Sequence[Transform],
    counters: tuple[int | str, ...],
    batch_size: int,
    rows: slice,
) -> Mapping[str, np.ndarray]:
    """Return the `rows` of a batch as `transforms` leave them; `counters` (seed, stream, ...) and place seed each."""
    for place, transform in enumerate(transforms):
        fields = transform(fields, RowRandomness(rng.host(*counters, place), batch_size, rows))
    return fields


def transformed_spec(source: Source, transforms: Sequence[Transform]) -> DataSpec:
    """Return the source's spec as the transforms leave it, found by transforming its first row."""
    if not transforms:
        return source.spec
    row = Batches(source, tuple(transforms), 1, 0, training=False)[0]
    example = {n: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for n, v in row.items() if n not in ("id", "mask")}
    return source.spec._replace(example=example)


def batch_bytes(batches: Batches) -> int:
    """Return the bytes of one batch of this process."""
    return sum(value.nbytes for value in batches[0].values())


def chunk_steps(batches: Batches) -> int:
    """Return how many batches travel to the devices in one transfer: small ones together, if of one length."""
    if batches.buckets is not None:
        return 1
    return int(np.clip(CHUNK_BYTES // max(batch_bytes(batches), 1), 1, CHUNK_STEPS))


def feed(
    batches: Batches, *, first: int, last: int, chunk: int, put: Callable[[HostBatch], T], workers: int = 0
) -> Iterator[tuple[int, T]]:
    """Yield ``(step, chunk)`` for chunks of `chunk` batches aligned to multiples of it, fetched ahead by a thread
    unless that is too cheap to be worth one.

    Args:
      batches: the training batches.
      first: the step to begin at; its chunk may begin earlier.
      last: the step to end before; its chunk may end later.
      chunk: batches in a chunk.
      put: moves a host chunk to the devices; may be called on the fetching thread.
      workers: Grain worker processes that gather and transform; 0 does both on the fetching thread.
    """
    starts = range(first // chunk * chunk, last, chunk)
    produced = _from_workers(batches, starts, chunk, workers) if workers else (batches.chunk(s, chunk) for s in starts)
    placed = ((start, put(host)) for start, host in zip(starts, produced, strict=True))
    return placed if not workers and _is_cheap(batches, chunk) else prefetch(placed)


def _is_cheap(batches: Batches, chunk: int) -> bool:
    """Return whether a chunk takes so little time that a thread would cost the loop more than it hides."""
    in_memory = isinstance(batches.source, ArraySource) and not batches.transforms
    return in_memory and chunk * batch_bytes(batches) <= CHEAP_BYTES


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield `items` in order, produced by a thread that runs up to `depth` ahead; an exception there is raised here."""
    ready: queue.Queue[tuple[T] | BaseException] = queue.Queue(depth)
    stopped = threading.Event()

    def offer(item: tuple[T] | BaseException) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                offer((item,))
                if stopped.is_set():
                    return
            offer(StopIteration())
        except BaseException as error:  # raised again on the consumer's thread, which is the one that can handle it
            offer(error)

    thread = threading.Thread(target=produce, name="jaxlab-prefetch", daemon=True)
    thread.start()
    try:
        while isinstance(item := ready.get(), tuple):
            yield item[0]
        if not isinstance(item, StopIteration):
            raise item
    finally:
        stopped.set()
        thread.join(timeout=5)


class _Chunks:
    """The chunks as Grain's random-access source."""

    def __init__(self, batches: Batches, starts: range, length: int) -> None:
        self._batches, self._starts, self._length = batches, starts, length

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, place: Any) -> HostBatch:
        return self._batches.chunk(self._starts[int(place)], self._length)


def _from_workers(batches: Batches, starts: range, chunk: int, workers: int) -> Iterator[HostBatch]:
    """Yield the chunks; several come from a worker at once, since Grain takes milliseconds an element."""
    import grain  # 1.5 s, and only larger-than-memory data needs it
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which only absl's own app.run would have parsed
        flags.FLAGS.mark_as_parsed()
    group = 1 if batches.buckets is not None else max(1, WORKER_BYTES // (chunk * batch_bytes(batches)))
    source = _Chunks(batches, starts[::group], chunk * group)
    few = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)  # Grain's default holds 500 elements a worker
    dataset = grain.MapDataset.source(source).to_iter_dataset(few)
    groups = iter(dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)))
    pieces = (
        {name: x[i * chunk : (i + 1) * chunk] for name, x in whole.items()} for whole in groups for i in range(group)
    )
    return itertools.islice(pieces, len(starts))
