"""A folder here and one in a bucket kept the same: what changes here is written there, in an order safe to lose.

A checkpoint's manifest goes last, when all that it lists is there, and is removed first; so a step in a bucket is whole
or not there, as on a disk. Rows go before the manifests of their steps. What begins with a dot, elsewhere, stays.
Of several processes each writes its own files of a checkpoint, and the first one everything else.
Usage: ``mirror.pull(); mirror.push()``.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from jaxlab.core import record
from jaxlab.core.errors import JaxlabError
from jaxlab.core.paths import inside
from jaxlab.run.bucket import ARRIVING, Bucket, Object
from jaxlab.train import manifest

_AT_ONCE = 8  # objects that travel
_PATIENCE = 1800.0  # seconds for other processes to write their part of a checkpoint
_LOCAL = ("-journal", "-wal", "-shm")  # how SQLite's own notes end, which are nothing without their process


class Known(NamedTuple):
    """A file as it was when it was the same here and there."""

    bytes: int
    changed: int  # nanoseconds, by this machine's clock
    version: str  # of the object


class Mirror:
    """The two folders, and what is known to be the same."""

    def __init__(self, bucket: Bucket, folder: Path, notes: Path, *, first: bool = True) -> None:
        """Read from the file `notes` what was the same when an earlier process ended.

        Args:
          bucket: there.
          folder: here; made if need be.
          notes: a file beside it.
          first: whether this process writes more than its part of checkpoints.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.url, self.folder = bucket.url, folder
        self._bucket, self._notes, self._first = bucket, notes, first
        found = record.read_json(notes).items()
        self._known = {name: Known(*facts) for name, facts in found}
        self._lock = threading.Lock()  # one pull or push at a time

    def pull(self, below: str = "", *, arrays: bool = True, exactly: bool = False) -> None:
        """Read what is there and not here.

        Args:
          below: the folder to look at.
          arrays: whether checkpoints' arrays are wanted.
          exactly: whether what is not there is removed here; else only what was there once.
        """
        with self._lock:
            there = {name: object for name, object in self._bucket.list(below).items() if _travels(name, arrays)}
            here = {name for name in self._here() if PurePosixPath(name).is_relative_to(below)}
            gone = {name for name in here - there.keys() if exactly or (name in self._known and _travels(name, arrays))}
            self._each(reversed(_manifests_last(gone)), self._drop)
            fresh = {name for name, object in there.items() if not self._is_same(name, object)}
            self._each(_manifests_last(fresh), lambda name: self._get(name, there[name]))
            self._remember()

    def push(self, *, removing: bool) -> list[str]:
        """Write what is here and not there; return the manifests that have to wait for other processes' files.

        Args:
          removing: whether what was removed here is removed there, once what is newer stands there.
        """
        with self._lock:
            here = self._here()
            waiting = self._write([name for name in here if self._mine(name) and self._has_changed(name)])
            if removing and not waiting:
                self._remove(self._known.keys() - here)
            return waiting

    def _write(self, changed: list[str]) -> list[str]:
        if not changed:
            return []
        written = self._put([name for name in changed if not _is_manifest(name)])
        there = self._bucket.list()
        steps = [name for name in changed if _is_manifest(name)]
        whole = [name for name in steps if self._is_whole(name, there)]
        written |= self._put(whole)
        there |= self._bucket.list() if whole else {}
        for name, (size, when) in written.items():
            if name in there:  # and not removed meanwhile
                self._known[name] = Known(size, when, there[name].version)
        self._remember()
        return [name for name in steps if name not in whole and (self.folder / name).exists()]

    def publish(self) -> None:
        """Write what has changed here now."""
        self.push(removing=True)

    def follow(self) -> None:
        """Read what the first process has written, but for arrays."""
        self.pull(arrays=False)

    def fetch(self, step: Path) -> None:
        """Read the files of a checkpoint that other processes wrote, once they are there."""
        if not step.is_relative_to(self.folder):  # of another run
            return
        name, until = str(step.relative_to(self.folder)), time.monotonic() + _PATIENCE
        while not self._is_whole(f"{name}/{manifest.NAME}", self._bucket.list(name)):
            if time.monotonic() > until:
                raise JaxlabError(f"{self._bucket.url}/{name} lacks files of other processes for {_PATIENCE:.0f} s")
            time.sleep(1.0)
        self.pull(name)

    def sweep(self) -> None:
        """Remove what a killed writer left there: files of a checkpoint without a manifest."""
        there = self._bucket.list()
        left = [name for name in there if (step := _step(name)) and f"{step}/{manifest.NAME}" not in there]
        self._each([left], self._bucket.remove)

    def _here(self) -> set[str]:
        paths = (path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())
        return {name for path in paths if _travels(name := path.relative_to(self.folder).as_posix())}

    def _mine(self, name: str) -> bool:
        return self._first or (_step(name) is not None and not _is_manifest(name))

    def _now(self, name: str) -> tuple[int, int] | None:
        try:
            found = inside(self.folder, name).stat()
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns

    def _has_changed(self, name: str) -> bool:
        known = self._known.get(name)
        return known is None or known[:2] != self._now(name)

    def _is_same(self, name: str, there: Object) -> bool:
        known = self._known.get(name)
        return known is not None and known.version == there.version and known[:2] == self._now(name)

    def _is_whole(self, name: str, there: dict[str, Object]) -> bool:
        """Say whether all that a manifest lists is in the bucket; one that is gone here has no need to be."""
        step = PurePosixPath(name).parent
        contents = manifest.read(self.folder / step)
        return contents is not None and all(
            (found := there.get(str(step / file))) is not None and found.bytes == size
            for file, (size, _) in contents.files.items()
        )

    def _get(self, name: str, there: Object) -> None:
        try:
            self._bucket.get(name, self.folder)
        except FileNotFoundError:  # removed since it was listed, as its writer keeps the latest checkpoints alone
            return
        if (now := self._now(name)) is not None:
            self._known[name] = Known(*now, there.version)

    def _put(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Write files; return how each was before, so that what grew meanwhile is written again."""
        written: dict[str, tuple[int, int]] = {}

        def one(name: str) -> None:
            now = self._now(name)
            if now is None:
                return
            try:
                self._bucket.put(self.folder / name, name)
            except FileNotFoundError:  # removed since it was listed here
                return
            written[name] = now

        self._each([list(names)], one)
        return written

    def _drop(self, name: str) -> None:
        inside(self.folder, name).unlink(missing_ok=True)
        self._known.pop(name, None)

    def _remove(self, gone: set[str]) -> None:
        """Remove there what has been removed here, or leave that to the first process."""
        for name in itertools.chain.from_iterable(reversed(_manifests_last(gone))):
            if self._first:
                self._bucket.remove(name)
            if self._first and _is_manifest(name):  # the other processes' files as well
                self._each([list(self._bucket.list(str(_step(name))))], self._bucket.remove)
            del self._known[name]
        if gone:
            self._remember()

    def _each(self, groups: Iterable[Iterable[str]], do: Callable[[str], Any]) -> None:
        """Do something with each name, several of a group at once."""
        for names in groups:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(do, names))

    def _remember(self) -> None:
        record.write_json(self._notes, self._known)


def _travels(name: str, arrays: bool = True) -> bool:
    """Say whether a file is brought there: not what is half written, nor locks."""
    parts = PurePosixPath(name).parts
    if parts[-1].startswith(ARRIVING):
        return False
    if _step(name) is not None:  # Zarr's own files begin with a dot
        return arrays or _is_manifest(name)
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and parts[-1] != record.LOCK and not name.endswith(_LOCAL)


def _step(name: str) -> str | None:
    """Return the checkpoint's folder that a name is in."""
    parts = PurePosixPath(name).parts
    for place, (part, number) in enumerate(itertools.pairwise(parts[:-1])):
        if part == record.CHECKPOINTS and number.isdigit():
            return str(PurePosixPath(*parts[: place + 2]))
    return None


def _is_manifest(name: str) -> bool:
    step = _step(name)
    return step is not None and name == f"{step}/{manifest.NAME}"


def _manifests_last(names: Iterable[str]) -> list[list[str]]:
    found = sorted(names)
    return [[name for name in found if not _is_manifest(name)], [name for name in found if _is_manifest(name)]]
