"""What several processes need to hold one array and to write and read one checkpoint; one alone, next to nothing.

Knows arrays and checkpoints' files, and no run. Barriers work on any thread; the rest uses the devices of all.
Processes share their folders, but while `apart` lasts: then each has its own, and what it says is exchanged.
Usage: ``wait_at(new_barrier("swept"))``; ``damage(folder, contents)`` is None or says what is wrong.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding
from orbax.checkpoint import multihost

from jaxlab.core.paths import inside
from jaxlab.core.types import PyTree
from jaxlab.train import manifest
from jaxlab.train.board import Board, number
from jaxlab.train.manifest import Damage, Manifest

_PATIENCE = 3600.0  # seconds for process 0 to read all that was written
_numbers = itertools.count()  # of barriers, which are met in the same order by every process
_exchanges: list[Exchange] = []  # the one that is in use, if any


class Exchange(Protocol):
    """What brings files from one process's folder to another's."""

    def publish(self) -> None:
        """Let the others have what this process has written."""

    def follow(self) -> None:
        """Take what process 0 has published, but for checkpoints' arrays."""

    def fetch(self, step: Path) -> None:
        """Take the files of a checkpoint that others wrote."""


@contextlib.contextmanager
def apart(exchange: Exchange) -> Iterator[None]:
    """Say that each process has folders of its own, between which `exchange` brings files."""
    _exchanges.append(exchange)
    try:
        yield
    finally:
        _exchanges.remove(exchange)


def are_apart() -> bool:
    """Say whether each process has folders of its own."""
    return bool(_exchanges)


def share() -> None:
    """Wait until what process 0 has written is there for all."""
    if writes():
        for exchange in _exchanges:
            exchange.publish()
    wait_at(new_barrier("shared"))
    if not writes():
        for exchange in _exchanges:
            exchange.follow()


def fetch(step: Path) -> None:
    """See that all files of a checkpoint are there for this process."""
    for exchange in _exchanges:
        exchange.fetch(step)


def united(folder: Path, name: str) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of every file of a checkpoint that is being written, on every process.

    Where processes are apart, a file that process 0 has as well is removed from the others' `folder`. On any thread.

    Args:
      folder: of the checkpoint, or of this process's part.
      name: as of `new_barrier`.
    """
    found = manifest.digests(folder)
    if not are_apart():
        return found
    board = Board(name)
    board.put(f"files/{board.process}", json.dumps(found))
    board.barrier("files")
    parts = {int(process): json.loads(files) for process, files in board.under("files").items()}
    for double in found.keys() & parts[0].keys() if board.process else ():
        (folder / double).unlink()
    return {file: facts for process in sorted(parts, reverse=True) for file, facts in parts[process].items()}


def writes() -> bool:
    """Say whether this process does what only one may do, as writing the run's directory."""
    return number() == 0


def writes_here() -> bool:
    """Say whether this process does what only one may do in a folder."""
    return writes() or are_apart()


def new_barrier(name: str) -> str:
    """Return the name of a barrier to come; to be called on the main thread, in the same order on every process."""
    return f"jaxlab-{name}-{next(_numbers)}"


def wait_at(barrier: str) -> None:
    """Wait until every process has come to a barrier."""
    multihost.get_barrier_sync_fn()(key=barrier, timeout_ms=int(_PATIENCE * 1000))


def damage(folder: Path, contents: Manifest) -> Damage | None:
    """Return the first file of a step's folder that is not as it was saved, on every process; each reads its share."""
    if jax.process_count() == 1:
        return manifest.damage(folder, contents)
    names = sorted(contents.files)
    mine = range(jax.process_index(), len(names), jax.process_count())
    seen = next((place for place in mine if _one(folder, contents, names[place])), len(names))
    first = int(np.min(multihost_utils.process_allgather(np.int32(seen))))
    if first == len(names):
        return None
    elsewhere = Damage(inside(folder, names[first]), None, "is not what was saved, as another process reads it")
    return _one(folder, contents, names[first]) or elsewhere


def _one(folder: Path, contents: Manifest, name: str) -> Damage | None:
    return manifest.damage(folder, contents, (name,))


def spread(tree: PyTree, places: PyTree) -> PyTree:
    """Return arrays placed so, by one sharding or one a leaf; every process has each value, or it is spread already."""
    if jax.process_count() == 1:
        return jax.device_put(tree, places)

    def one(x: Any, place: Sharding) -> jax.Array:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, place)
        value = np.asarray(x)  # `device_put` would compare it with the other processes' and wait for them
        return jax.make_array_from_callback(value.shape, place, lambda index: value[index])

    each = jax.tree.map(lambda _: places, tree) if isinstance(places, Sharding) else places
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(one, tree, each)


def spread_rows(tree: PyTree, place: Sharding) -> PyTree:
    """Return arrays of whose rows each process has its own."""
    if jax.process_count() == 1:
        return jax.device_put(tree, place)
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), tree)


def whole(tree: PyTree) -> PyTree:
    """Return arrays of which every process has all."""

    def one(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            return x
        return multihost_utils.process_allgather(x, tiled=True)

    return tree if jax.process_count() == 1 else jax.tree.map(one, tree)
