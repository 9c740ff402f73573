"""Gets files from where they are published: downloads and Debian packages, without root, verified by SHA-256.

Knows no data set. A route is a function that fills an empty folder or raises `FetchError`; `first_that_works`
tries routes in order. Usage: ``first_that_works("name", folder, {"the internet": route, "Debian": other})``.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from jaxlab.core.errors import DataError

Route = Callable[[Path], None]

_log = logging.getLogger(__name__)
_MOST_BYTES = 2**31  # of one file of a package, unpacked
_PACKAGE_SECONDS = 900  # for one apt-get call; its connections time out on their own, much earlier


class FetchError(Exception):
    """One route to a data set's files fails; the next may work, so it is no `JaxlabError`."""


class Member(NamedTuple):
    """Where a file lies inside an ar archive, in bytes."""

    offset: int
    size: int


def first_that_works(dataset: str, folder: Path, routes: Mapping[str, Route]) -> str:
    """Fill `folder` by the first route that doesn't fail; return that route's name.

    Args:
      dataset: named in the error.
      folder: must exist and be empty; each route finds it empty.
      routes: by name, in the order in which they are tried.

    Raises:
      DataError: all routes fail; says for each why.
    """
    reasons = []
    for name, route in routes.items():
        _log.info("%s: trying %s", dataset, name)
        try:
            route(folder)
        except (FetchError, OSError) as error:
            _log.info("%s: %s: %s", dataset, name, error)
            reasons.append(f"  {name}: {error}")
            for path in list(folder.iterdir()):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            return name
    raise DataError("\n".join([f"{dataset}: its files could not be fetched; tried", *reasons]))


def download(url: str, target: Path, timeout: float = 10.0) -> Path:
    """Download `url` to the file `target` and return it; a failed download leaves no such file.

    Args:
      url: http or https.
      target: the file to write.
      timeout: seconds to wait for a connection, and for more bytes on it.

    Raises:
      FetchError: the server can't be reached, refuses, or stops before the end.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response, part.open("wb") as file:
            shutil.copyfileobj(response, file)
            expected = response.headers.get("Content-Length")
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        part.unlink(missing_ok=True)
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise FetchError(f"{url}: {reason}") from error
    if expected is not None and part.stat().st_size != int(expected):
        part.unlink()
        raise FetchError(f"{url}: the connection ended before {expected} bytes had come")
    return part.replace(target)


def verify(path: Path, sha256: str, decompress: bool = False) -> Path:
    """Return `path` if its content has the hash `sha256`, in hexadecimal.

    Args:
      path: a file.
      sha256: of the bytes of the file or, with `decompress`, of what gzip has compressed there.
      decompress: whether to look through gzip; its header holds times and names that differ between carriers.

    Raises:
      FetchError: another hash, or not a gzip file.
    """
    try:
        with gzip.open(path) if decompress else path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FetchError(f"{path.name} is not a complete gzip file: {error}") from error
    if found != sha256:
        raise FetchError(f"{path.name} has the SHA-256 {found}, expected {sha256}")
    return path


def debian_package(package: str, folder: Path) -> Path:
    """Download a package, of the newest version that the machine's apt sources offer, and return the .deb file.

    Needs no root: where the machine's package lists lack the package, own lists are fetched.

    Raises:
      FetchError: there is no apt-get, or it can't get the package; ends with what apt-get said.
    """
    program = shutil.which("apt-get")
    if program is None:
        raise FetchError("this machine has no apt-get")
    with tempfile.TemporaryDirectory() as state:
        lists, cache = Path(state, "lists"), Path(state, "cache")
        (lists / "partial").mkdir(parents=True)
        (cache / "archives" / "partial").mkdir(parents=True)
        # The sandbox user could not write to our folders; the signatures are checked with or without it.
        options = {"Dir::Cache": cache, "APT::Sandbox::User": "root", "Acquire::Retries": 1}
        options |= {"Acquire::http::Timeout": 10, "Acquire::https::Timeout": 10}
        said = _apt_get(program, options, ["download", package], folder)
        if not list(folder.glob("*.deb")):
            options |= {"Dir::State::Lists": lists, "Acquire::Languages": "none"}
            # One unreachable source fails the update; the package may come from another, so the download decides.
            said += _apt_get(program, options, ["update"], folder)
            said += _apt_get(program, options, ["download", package], folder)
    found = list(folder.glob("*.deb"))
    if not found:
        raise FetchError(
            f"apt-get download {package} failed: {' | '.join(dict.fromkeys(said[-6:])) or 'it said nothing'}"
        )
    return found[0]


def ar_members(content: IO[bytes]) -> dict[str, Member]:
    """Return where each file lies in an ar archive, the format of .deb files (`man 5 ar`, `man 5 deb`).

    Raises:
      FetchError: not an ar archive, or one that ends early.
    """
    size = content.seek(0, os.SEEK_END)
    content.seek(0)
    if content.read(8) != b"!<arch>\n":
        raise FetchError("not an ar archive")
    members, offset = {}, 8
    while offset < size:
        content.seek(offset)
        header = content.read(60)  # name 16, time 12, owner 6, group 6, mode 8, size 10, two bytes that end it
        if len(header) < 60 or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise FetchError(f"the ar archive is damaged at byte {offset}")
        member = Member(offset + 60, int(header[48:58]))
        if member.offset + member.size > size:
            raise FetchError("the ar archive ends early")
        members[header[:16].decode("ascii", "replace").strip().rstrip("/")] = member
        offset = member.offset + member.size + member.size % 2  # members begin at even bytes
    return members


def unpack_deb(package: Path, folder: Path, inside: str) -> None:
    """Extract the files of a .deb that lie below the path `inside`, keeping their paths, into `folder`.

    Raises:
      FetchError: not a .deb, a compression that cannot be read here, an unsafe path, or nothing below `inside`.
    """
    try:
        with package.open("rb") as file:
            members = ar_members(file)
            name = next((name for name in members if name.startswith("data.tar")), None)
            if name is None:
                raise FetchError(f"no data.tar in it; it holds {', '.join(members) or 'nothing'}")
            file.seek(members[name].offset)
            content = file.read(members[name].size)
        if name.endswith(".zst"):  # tarfile reads this from Python 3.14 on
            content = _dpkg_tar(package)
        _extract(content, folder, inside)
    except (FetchError, tarfile.TarError, EOFError, KeyError) as error:
        raise FetchError(f"{package.name}: {error}") from error


def _extract(content: bytes, folder: Path, inside: str) -> None:
    """Write the regular files below `inside`. By hand: tarfile's safe filter came with Python 3.11.4."""
    prefix = f"{inside.strip('/')}/"
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        wanted = {m.name.removeprefix("./"): m for m in tar if m.isfile() or m.islnk()}
        wanted = {name: member for name, member in wanted.items() if name.startswith(prefix)}
        if not wanted:
            raise FetchError(f"no file below {inside}")
        for name, member in wanted.items():
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise FetchError(f"{name} leads outside")
            if member.size > _MOST_BYTES:
                raise FetchError(f"{name} declares {member.size:,} bytes; at most {_MOST_BYTES:,} are unpacked")
            source = tar.extractfile(member)
            if source is None:
                raise FetchError(f"{name} is a link to no file")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(source.read())


def _dpkg_tar(package: Path) -> bytes:
    program = shutil.which("dpkg-deb")
    if program is None:
        raise FetchError("it is compressed with zstd, and this machine has no dpkg-deb to read it")
    done = subprocess.run([program, "--fsys-tarfile", str(package.resolve())], capture_output=True, check=False)
    if done.returncode:
        raise FetchError(f"dpkg-deb: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _apt_get(program: str, options: Mapping[str, object], arguments: list[str], folder: Path) -> list[str]:
    """Run apt-get in `folder` and return its warnings and errors; none of them is fatal by itself."""
    command = [program, "-qq", *(f"-o{name}={value}" for name, value in options.items()), *arguments]
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PACKAGE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"apt-get {arguments[0]} took longer than {_PACKAGE_SECONDS} s"]
    return [line for line in done.stderr.splitlines() if line.strip()]
