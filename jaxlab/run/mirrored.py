"""A run's directory in a bucket, by way of a folder on this machine that is kept the same while a command lasts.

Training, evaluating and reporting know folders alone: renames that happen at once, rows that are appended, locks. A
bucket has none of these. So all of it is done in a folder, `Mirror` brings it to the bucket within seconds, and a
machine that begins with nothing reads it from there. A machine that is lost takes with it what was not there yet.
Usage: ``with mirrored("gs://b/runs/one") as folder: jaxlab.train(config, folder)``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from jaxlab.core import record
from jaxlab.core.errors import JaxlabError, UsageError
from jaxlab.data.cache import home
from jaxlab.run import processes
from jaxlab.run.bucket import Bucket
from jaxlab.run.lease import NAME as LEASE
from jaxlab.run.lease import Lease
from jaxlab.run.lock import described, this_process
from jaxlab.run.mirror import Mirror
from jaxlab.train import across
from jaxlab.train.board import Board, number

SCRATCH = "JAXLAB_SCRATCH"  # where the folders are (default: buckets in the user's cache)
EVERY = 5.0  # seconds between two looks at what has changed
_READING = 600.0  # seconds to wait for commands that read on this machine
_WAITING = 600.0  # seconds in which the other processes' files of the last checkpoint may reach the bucket
_FAILING = 60.0  # seconds in which a bucket that cannot be reached in the end may come back
_WRITER = ".jaxlab-writer"  # the object that says whose folder was written last
_log = logging.getLogger("jaxlab")


@contextlib.contextmanager
def mirrored(url: str, *, writes: bool = True, arrays: bool = True) -> Iterator[Path]:
    """Give the folder of this machine that stands for `url`; when the block is left, all of it has been brought there.

    Args:
      url: of a folder in a bucket, of which nothing need be there yet.
      writes: whether the run is written, which one process, or those of one training, may do; else files may be added.
      arrays: whether checkpoints' arrays are to be read.

    Raises:
      UsageError: it cannot be reached, or another process writes it.
      JaxlabError: what was written could not be brought there; it is whole in the folder.
    """
    bucket = Bucket(url)
    place = _place(bucket.url)
    mirror = Mirror(bucket, place / "folder", place / "notes.json", first=across.writes())
    with _writing(bucket, mirror, place) if writes else _reading(mirror, place, arrays):
        yield place / "folder"


def _place(url: str) -> Path:
    """Return where the folder, its lock and its notes are; processes that may share a machine have one each."""
    name = f"{url.rpartition('/')[2]}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    if processes.joined():
        name += f"-{number()}"
    return Path(os.environ.get(SCRATCH) or home() / "buckets") / name


@contextlib.contextmanager
def _reading(mirror: Mirror, place: Path, arrays: bool) -> Iterator[None]:
    """Read the run, and add what the block wrote; where it is written here, its writer does that."""
    with _locked(place, fcntl.LOCK_SH) as free:
        if free:
            mirror.pull(arrays=arrays)
    yield
    with _locked(place, fcntl.LOCK_SH) as still_free:
        if free and still_free:
            _bring(mirror, removing=False)


@contextlib.contextmanager
def _writing(bucket: Bucket, mirror: Mirror, place: Path) -> Iterator[None]:
    """Be the only one to write the run, and bring it to the bucket while the block lasts."""
    first, several = across.writes(), processes.joined()
    with contextlib.ExitStack() as stack:
        with _all_well("leased"):
            owner = stack.enter_context(_one_writer(place, bucket.url))
            lease = stack.enter_context(Lease(bucket, owner)) if first else None
            if first:
                mirror.sweep()
        with _all_well("pulled"):
            if several or bucket.read(_WRITER) != owner.encode():  # another machine may have gone on
                _check_not_emptied(bucket, place / "folder")
                mirror.pull(exactly=True)
        if first:
            bucket.write(_WRITER, owner.encode())
        _log.info("%s stands in %s", bucket.url, place / "folder")
        stack.enter_context(_brought(mirror, lease))
        if several:
            stack.enter_context(across.apart(mirror))
        yield


def _check_not_emptied(bucket: Bucket, folder: Path) -> None:
    """Keep what may be the only copy: an empty bucket may be another one, at another address."""
    if any(folder.iterdir()) and all(name in (_WRITER, LEASE) for name in bucket.list()):
        raise UsageError(
            f"{bucket.url} is empty, and {folder} has files that were there; to begin anew, remove that folder"
        )


@contextlib.contextmanager
def _all_well(name: str) -> Iterator[None]:
    """Wait for what every process does in the block, and raise in all what is wrong in one."""
    try:
        yield
    except Exception as error:
        _told(name, f"{error}")
        raise
    problem = _told(name, "")
    if problem:
        raise UsageError(f"another process: {problem}")


def _told(name: str, problem: str) -> str:
    """Return the first problem of all processes; does not look at devices, which the config may still set up."""
    if not processes.joined():
        return problem
    board = Board(across.new_barrier(name))
    board.put(f"all/{board.process}", f"-{problem}")
    board.barrier("all")
    return next((text[1:] for text in board.under("all").values() if text[1:]), "")


@contextlib.contextmanager
def _brought(mirror: Mirror, lease: Lease | None) -> Iterator[None]:
    """Bring what changes to the bucket, now and then and in the end, however that comes."""
    left = threading.Event()
    thread = threading.Thread(target=_now_and_then, args=(mirror, lease, left), name="jaxlab-mirror", daemon=True)
    thread.start()
    try:
        try:
            yield
        finally:
            left.set()
            thread.join()
    except BaseException:
        try:
            _bring(mirror, removing=True, lease=lease)
        except JaxlabError as problem:  # the block's own error says more
            _log.error("%s", problem)
        raise
    _bring(mirror, removing=True, lease=lease)


def _now_and_then(mirror: Mirror, lease: Lease | None, left: threading.Event) -> None:
    reached = True
    while not left.wait(EVERY):
        if lease is not None and not lease.held:
            return
        try:
            mirror.push(removing=True)
            reached = True
        except Exception as error:  # whatever a bucket raises: training goes on, and the next time may do better
            if reached:
                _log.warning("%s cannot be written: %s: %s", mirror.url, type(error).__name__, error)
            reached = False


def _bring(mirror: Mirror, *, removing: bool, lease: Lease | None = None) -> None:
    """Bring all that has changed, with some patience.

    Raises:
      JaxlabError: that was not possible.
    """
    began, said = time.monotonic(), "other processes' files of a checkpoint are missing"
    failing = False
    while time.monotonic() - began < (_FAILING if failing else _WAITING):
        if lease is not None and not lease.held:
            raise JaxlabError(f"{mirror.url} has been taken over by another process, which goes on from what was there")
        try:
            if not mirror.push(removing=removing):
                return
        except Exception as error:  # whatever a bucket raises
            failing, said = True, f"{type(error).__name__}: {error}"
        time.sleep(1.0)
    raise JaxlabError(
        f"{mirror.url} could not be written: {said}; all is whole in {mirror.folder}, and the same command on this "
        "machine goes on from there"
    )


@contextlib.contextmanager
def _one_writer(place: Path, url: str) -> Iterator[str]:
    """Hold a place's lock, and return the id of the folder there, which stays the same from process to process."""
    until = time.monotonic() + _READING
    while True:
        with _locked(place, fcntl.LOCK_EX) as free:
            if free:
                holder = place / "writer.json"
                owner = record.read_json(holder).get("owner") or uuid.uuid4().hex
                record.write_json(holder, {"owner": owner, **this_process()})
                yield owner
                return
        with _locked(place, fcntl.LOCK_SH) as read:
            if not read:
                writer = described((place / "writer.json").read_bytes())
                raise UsageError(f"{url} is being written by {writer}; wait for it or stop it")
        if time.monotonic() > until:
            raise UsageError(f"{url} has been read on this machine for {_READING:.0f} s; wait for that or stop it")
        time.sleep(0.2)


@contextlib.contextmanager
def _locked(place: Path, how: int) -> Iterator[bool]:
    """Hold the lock of a place, shared or alone, and say so; False at once where another process is in the way."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("a") as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
