"""Routes take the named files and no others out of real carriers, flat, and refuse what isn't there or differs."""

import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from test_prepare import make_deb

from jaxlab.data.preparation import packages
from jaxlab.data.preparation.fetch import FetchError

CONTENT = b"seven\n\n"
NOTHING = "00" * 32


def sha256_of(content):
    return hashlib.sha256(content).hexdigest()


def into(tmp_path):
    folder = tmp_path / "into"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A wheel that fails if it is imported, where pip looks for packages; pip looks nowhere else."""
    files = {
        "tiny_carrier/__init__.py": b"raise ImportError('a carrier must not be imported')\n",
        "tiny_carrier/data/seven.txt": CONTENT,
        "tiny_carrier/data/other/seven.txt": b"another",
        "tiny_carrier-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-carrier\nVersion: 1.0\n"
        b"Requires-Dist: absent-dependency\n",
        "tiny_carrier-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_carrier-1.0.dist-info/RECORD": b"",
    }
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "tiny_carrier-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))


def test_pypi_takes_one_file_and_no_dependency(tmp_path, wheels):
    packages.pypi("tiny-carrier", "1.0", {"tiny_carrier/data/seven.txt": sha256_of(CONTENT)})(into(tmp_path))
    assert [path.name for path in into(tmp_path).iterdir()] == ["seven.txt"]
    assert (into(tmp_path) / "seven.txt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("version", "files", "message"),
    [
        (
            "1.0",
            {"tiny_carrier/data/seven.txt": NOTHING},
            rf"tiny_carrier.*seven\.txt has the SHA-256 .*expected {NOTHING}",
        ),
        ("1.0", {"tiny_carrier/eight.txt": NOTHING}, r"tiny_carrier/eight\.txt is not in it"),
        (
            "2.0",
            {"tiny_carrier/data/seven.txt": NOTHING},
            r"pip download tiny-carrier failed: .*No matching distribution",
        ),
    ],
)
def test_pypi_refuses(tmp_path, wheels, version, files, message):
    with pytest.raises(FetchError, match=message):
        packages.pypi("tiny-carrier", version, files)(into(tmp_path))


def tar_of(files, mode="w:gz"):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as tar:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return content.getvalue()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of npm's kind with the one package ``tiny-carrier`` 1.0.0."""
    if shutil.which("npm") is None:
        pytest.skip("this machine has no npm")
    tarball = tar_of(
        {"package/package.json": b'{"name":"tiny-carrier","version":"1.0.0"}', "package/a/seven.txt": CONTENT}
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            root = f"http://127.0.0.1:{self.server.server_port}"
            dist = {"tarball": f"{root}/tiny.tgz", "shasum": hashlib.sha1(tarball).hexdigest()}
            version = {"name": "tiny-carrier", "version": "1.0.0", "dist": dist}
            about = {"name": "tiny-carrier", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
            found = {"/tiny.tgz": tarball, "/tiny-carrier": json.dumps(about).encode()}.get(self.path)
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(found or b"{}")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
        for variable in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        yield
        server.shutdown()


@pytest.mark.slow
def test_npm_takes_one_file_and_explains_failures(tmp_path, registry):
    packages.npm("tiny-carrier", "1.0.0", {"a/seven.txt": sha256_of(CONTENT)})(into(tmp_path))
    assert [path.name for path in into(tmp_path).iterdir()] == ["seven.txt"]
    with pytest.raises(FetchError, match=r"tiny-carrier.*a/eight\.txt is not in it"):
        packages.npm("tiny-carrier", "1.0.0", {"a/eight.txt": NOTHING})(into(tmp_path))
    with pytest.raises(FetchError, match=r"npm pack tiny-carrier failed: .*tiny-carrier@2\.0\.0"):
        packages.npm("tiny-carrier", "2.0.0", {"a/seven.txt": NOTHING})(into(tmp_path))


def test_npm_is_missed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="no npm"):
        packages.npm("tiny-carrier", "1.0.0", {"a": NOTHING})(into(tmp_path))
    with pytest.raises(FetchError, match="no apt-get"):
        packages.debian("tiny-carrier", {"usr/share/x/a": NOTHING})(into(tmp_path))


def test_debian_takes_one_file(tmp_path, monkeypatch):
    if shutil.which("apt-get") is None:
        pytest.skip("this machine has no apt-get")
    repository = tmp_path / "repository"
    repository.mkdir()
    deb = make_deb(repository / "tiny-carrier_1.0_all.deb").read_bytes()
    fields = {
        "Package": "tiny-carrier",
        "Version": "1.0",
        "Architecture": "all",
        "Filename": "./tiny-carrier_1.0_all.deb",
    }
    fields |= {"Size": len(deb), "SHA256": sha256_of(deb)}
    (repository / "Packages").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] copy:{repository} ./\n")
    lines = [f'Dir::Etc::sourcelist "{tmp_path / "sources.list"}";', f'Dir::Etc::sourceparts "{tmp_path / "none"}";']
    (tmp_path / "apt.conf").write_text("\n".join(lines))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    packages.debian("tiny-carrier", {"usr/share/x/seven.txt": sha256_of(CONTENT)})(into(tmp_path))
    assert [path.name for path in into(tmp_path).iterdir()] == ["seven.txt"]


def test_local_copies_from_the_folder_that_the_environment_names(tmp_path, monkeypatch):
    route = packages.local({"a/seven.txt": sha256_of(CONTENT)})
    monkeypatch.delenv("JAXLAB_DATA", raising=False)
    with pytest.raises(FetchError, match="JAXLAB_DATA is not set"):
        route(into(tmp_path))
    monkeypatch.setenv("JAXLAB_DATA", str(tmp_path))
    with pytest.raises(FetchError, match=r"a/seven\.txt: No such file"):
        route(into(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "seven.txt").write_bytes(CONTENT)
    route(into(tmp_path))
    assert (into(tmp_path) / "seven.txt").read_bytes() == CONTENT


def test_two_files_of_one_name_do_not_overwrite_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLAB_DATA", str(tmp_path))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "seven.txt").write_bytes(CONTENT)
    with pytest.raises(OSError, match="exists"):
        packages.local({f"{folder}/seven.txt": sha256_of(CONTENT) for folder in ("a", "b")})(into(tmp_path))


def test_hashes_can_be_of_what_gzip_has_compressed(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLAB_DATA", str(tmp_path))
    (tmp_path / "seven.gz").write_bytes(gzip.compress(CONTENT, mtime=7))
    packages.local({"seven.gz": sha256_of(CONTENT)}, decompress=True)(into(tmp_path))
    packages.internet({(tmp_path / "seven.gz").as_uri(): sha256_of(CONTENT)}, decompress=True)(into(tmp_path))
    with pytest.raises(FetchError, match="expected"):
        packages.internet({(tmp_path / "seven.gz").as_uri(): sha256_of(CONTENT)})(into(tmp_path))


def test_an_archive_is_known_by_its_files_however_it_is_packed(tmp_path):
    files = {"data/b/1.csv": b"1", "data/a/2.csv": b"2", "data/readme.md": b""}
    (tmp_path / "x.tar.xz").write_bytes(tar_of({f"./{name}": content for name, content in files.items()}, "w:xz"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in reversed(files.items()):
            archive.writestr(f"repository-7f/{name}", content)
    pattern = r"[ab]/\d\.csv$"
    found = {path.suffix: packages.read_archive(path, pattern) for path in tmp_path.iterdir() if path.suffix != ".d"}
    assert list(found[".xz"].items()) == list(found[".zip"].items()) == [("a/2.csv", b"2"), ("b/1.csv", b"1")]
    sha256 = packages.files_sha256(found[".zip"])
    assert sha256 != packages.files_sha256({"a/2.csv": b"1", "b/1.csv": b"2"})
    packages.internet_archive((tmp_path / "x.zip").as_uri(), pattern, sha256)(into(tmp_path))
    assert os.listdir(into(tmp_path)) == ["x.zip"]
    with pytest.raises(FetchError, match=r"x\.zip have the SHA-256"):
        packages.internet_archive((tmp_path / "x.zip").as_uri(), r"a/\d\.csv$", sha256)(into(tmp_path))


def test_damaged_archives_are_refused(tmp_path):
    whole = tar_of({"a.csv": os.urandom(5000)}, "w:xz")
    for content in (whole[:3000], b"no archive", b"", whole[:2000] + b"?" * 50 + whole[2050:]):
        (tmp_path / "x.tar.xz").write_bytes(content)
        with pytest.raises(FetchError, match=r"x\.tar\.xz"):
            packages.read_archive(tmp_path / "x.tar.xz", r"\.csv$")
    (tmp_path / "x.tar.xz").write_bytes(whole)
    with pytest.raises(FetchError, match=r"holds no file like"):
        packages.read_archive(Path(tmp_path, "x.tar.xz"), r"\.txt$")
