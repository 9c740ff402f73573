"""A folder in a bucket: list, read, write and remove its objects, by fsspec. Knows no run.

``gs://`` needs ``gcsfs``, ``s3://`` needs ``s3fs``; both find credentials and addresses as their own pages say.
Usage: ``bucket = Bucket("gs://b/runs/one"); bucket.put(file, "log.txt"); bucket.list()["log.txt"].bytes``.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from jaxlab.core.errors import UsageError
from jaxlab.core.paths import inside

_PACKAGES = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}  # jaxlab's extras by kind of bucket
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "mtime", "created", "LastModified")
ARRIVING = ".arriving-"  # how the name of a file begins that is being read


class Object(NamedTuple):
    """What stands under a name; `version` changes whenever it is written."""

    bytes: int
    version: str


class Bucket:
    """The objects below a URL, by the names that follow it."""

    def __init__(self, url: str) -> None:
        """Open the folder `url`, of which nothing need be there yet.

        Raises:
          UsageError: there is no such kind of bucket, its package is not installed, or it cannot be listed.
        """
        self.url = url.rstrip("/")
        kind, _, place = self.url.partition("://")
        if not place:
            raise UsageError(f"{url}: expected a bucket and a place in it, such as {kind}://bucket/runs/one")
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            extra = _PACKAGES.get(kind)
            way = f"pip install 'jaxlab[{extra}]' brings it" if extra else "install that"
            raise UsageError(f"{url}: {kind}:// needs a package that is not installed ({error}); {way}") from error
        except ValueError as error:
            raise UsageError(f"{url}: {error}; expected a folder, gs://… or s3://…") from error
        try:
            self.list()
        except Exception as error:  # each kind of bucket has errors of its own
            said = f"{type(error).__name__}: {error}"
            raise UsageError(f"{url} cannot be listed: {said}; are the bucket and the credentials there?") from error

    def list(self, below: str = "") -> dict[str, Object]:
        """Return every object whose name begins with the folder `below`."""
        start = f"{self._root}/{below}".rstrip("/")
        try:
            found: dict[str, dict[str, Any]] = self._files.find(start, detail=True)
        except FileNotFoundError:
            if not self._files.exists(self._root.partition("/")[0]):
                raise
            return {}
        # an object may bear the folder's own name, which is no name within it
        names = {name: facts for name, facts in found.items() if name.startswith(f"{self._root}/")}
        return {name[len(self._root) + 1 :]: _object(facts) for name, facts in names.items()}

    def get(self, name: str, folder: Path) -> None:
        """Write an object to the file of its name below `folder`, whole or not at all.

        Raises:
          DataError: the name leads out of `folder`.
        """
        place = inside(folder, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        arriving = place.with_name(f"{ARRIVING}{os.getpid()}-{place.name}")
        try:
            self._files.get_file(f"{self._root}/{name}", str(arriving))
            os.replace(arriving, place)
        finally:
            arriving.unlink(missing_ok=True)

    def put(self, file: Path, name: str) -> None:
        """Write a file as the object of a name; whoever reads it meanwhile sees what was there before."""
        self._files.put_file(str(file), f"{self._root}/{name}")

    def read(self, name: str) -> bytes | None:
        """Return what stands under a name; None where nothing does."""
        try:
            return self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes, *, new: bool = False) -> bool:
        """Write an object, with `new` only where there is none of that name; return whether it was written."""
        try:
            self._files.pipe_file(f"{self._root}/{name}", content, mode="create" if new else "overwrite")
        except Exception as error:
            if new and _is_there(error):
                return False
            raise
        return True

    def remove(self, name: str) -> None:
        """Remove an object, or let none be."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")


def is_url(place: object) -> bool:
    """Say whether a directory is given as a bucket's."""
    return isinstance(place, str) and "://" in place


def _object(facts: dict[str, Any]) -> Object:
    version = next((str(facts[key]) for key in _VERSIONS if facts.get(key)), "")
    return Object(int(facts["size"] or 0), version)


def _is_there(error: BaseException) -> bool:
    """Say whether an object could not be made because there is one: S3 and Cloud Storage say so in their own ways."""
    said = f"{type(error).__name__}: {error}"
    return isinstance(error, FileExistsError) or any(word in said for word in ("PreconditionFailed", "412", "pre-cond"))
