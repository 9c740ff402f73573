"""A bucket's folder, on real servers: what is written is read, once and whole, and nothing leads out of a folder."""

from __future__ import annotations

import os

import pytest

from jaxlab.core.errors import DataError, UsageError
from jaxlab.run.bucket import Bucket, Object

NAMES = ["a.txt", "deep/er/.zarray", "with space/ü+&=[1]*?#%.json", "state.params.kernel/0.0"]


def test_what_was_written_is_listed_and_read_again(folder_url, tmp_path):
    bucket = Bucket(folder_url)
    assert bucket.list() == {}
    contents = {name: os.urandom(i * 1000) for i, name in enumerate(NAMES)}
    for name, content in contents.items():
        (tmp_path / "file").write_bytes(content)
        bucket.put(tmp_path / "file", name)
    assert {name: found.bytes for name, found in bucket.list().items()} == {n: len(c) for n, c in contents.items()}
    for name, content in contents.items():
        bucket.get(name, tmp_path / "here")
        assert (tmp_path / "here" / name).read_bytes() == content == bucket.read(name)
    assert set(bucket.list("deep")) == {"deep/er/.zarray"}
    assert list((tmp_path / "here").rglob(".arriving-*")) == []
    bucket.remove(NAMES[0])
    bucket.remove(NAMES[0])
    assert set(bucket.list()) == set(NAMES[1:])
    assert bucket.read(NAMES[0]) is None


def test_an_object_that_is_written_again_has_another_version(folder_url):
    bucket, seen = Bucket(folder_url), set()
    for content in (b"one", b"two", b"three"):
        assert bucket.write("name", content)
        seen.add(bucket.list()["name"])
    assert len(seen) == 3
    assert all(isinstance(found, Object) and found.version for found in seen)


def test_of_two_who_make_an_object_one_succeeds(s3_url):
    """On S3: Cloud Storage's emulator knows no conditions; the real one is sent ``ifGenerationMatch=0`` by gcsfs."""
    first, second = Bucket(s3_url), Bucket(s3_url)
    assert [first.write("lock", b"1", new=True), second.write("lock", b"2", new=True)] == [True, False]
    assert second.read("lock") == b"1"


def test_a_folder_whose_name_begins_another_is_not_that_one(folder_url):
    Bucket(f"{folder_url}/run-10").write("x", b"")
    assert Bucket(f"{folder_url}/run-1").list() == {}
    assert set(Bucket(f"{folder_url}/").list()) == {"run-10/x"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://no-such-bucket/run", "cannot be listed"),
        ("s3://", "expected a bucket and a place in it"),
        ("s4://runs/run", "expected a folder, gs://… or s3://…"),
    ],
)
def test_what_is_no_bucket_is_a_sentence(s3_server, url, said):
    with pytest.raises(UsageError, match=said):
        Bucket(url)


def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(monkeypatch):
    import fsspec.core

    def missing(*arguments, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UsageError, match=r"Install s3fs.*pip install 'jaxlab\[s3\]'"):
        Bucket("s3://runs/one")


def test_a_strangers_name_does_not_lead_out_of_the_folder(s3_url, tmp_path):
    bucket = Bucket(s3_url)
    with pytest.raises(DataError, match="leads out of it"):
        bucket.get("../escaped", tmp_path / "here")
    with pytest.raises(DataError, match="leads out of it"):
        bucket.get("/escaped", tmp_path / "here")
