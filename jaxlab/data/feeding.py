"""From batches on the host to batches on devices, made ahead of the step by threads or by Grain's worker processes.

Knows no device: putting a batch there is a function that the caller passes.
Usage: ``feed(Batches(source, (), 128, seed, training=True), first=0, last=1000, chunk=8, put=jax.device_put)``.
"""

from __future__ import annotations

import collections
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, TypeVar

import numpy as np

from jaxlab.core.types import HostBatch
from jaxlab.data.arrays import ArraySource, in_memory
from jaxlab.data.pipeline import Batches

T = TypeVar("T")
CHUNK_BYTES = 2**18  # one transfer carries about this much: small batches travel together, large ones alone
CHUNK_STEPS = 32
WORKER_BYTES = 2**21  # what a worker process hands over at once
CHEAP_BYTES = 2**20  # rows of arrays in memory: up to here a gather and a transfer take well under a millisecond


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
      workers: how many gather and transform at once: threads for data in memory, where a process would spend more on
        handing batches over than on making them, else Grain's worker processes. 0 leaves it to the fetching thread.
    """
    starts = range(first // chunk * chunk, last, chunk)
    if not workers:
        produced: Iterator[HostBatch] = (batches.chunk(start, chunk) for start in starts)
    elif in_memory(batches.source):
        produced = _from_threads(batches, starts, chunk, workers)
    else:
        produced = _from_processes(batches, starts, chunk, workers)
    placed = ((start, put(host)) for start, host in zip(starts, produced, strict=True))
    return placed if not workers and _is_cheap(batches, chunk) else prefetch(placed)


def _is_cheap(batches: Batches, chunk: int) -> bool:
    """Return whether a chunk takes so little time that a thread would cost the loop more than it hides."""
    bare = isinstance(batches.source, ArraySource) and not batches.transforms
    return bare and chunk * batch_bytes(batches) <= CHEAP_BYTES


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


def _from_threads(batches: Batches, starts: range, chunk: int, workers: int) -> Iterator[HostBatch]:
    """Yield the chunks in order, `workers` of them being made at once: NumPy and tokenizers let go of Python's lock."""
    waiting: collections.deque[futures.Future[HostBatch]] = collections.deque()
    pool = futures.ThreadPoolExecutor(workers, thread_name_prefix="jaxlab-worker")
    try:
        for start in starts:
            waiting.append(pool.submit(batches.chunk, start, chunk))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Chunks:
    """The chunks as Grain's random-access source."""

    def __init__(self, batches: Batches, starts: range, length: int) -> None:
        self._batches, self._starts, self._length = batches, starts, length

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, place: Any) -> HostBatch:
        return self._batches.chunk(self._starts[int(place)], self._length)


def _from_processes(batches: Batches, starts: range, chunk: int, workers: int) -> Iterator[HostBatch]:
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
