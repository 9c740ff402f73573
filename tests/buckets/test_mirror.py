"""What is in a bucket is whole at every moment: rows, and checkpoints that restore to the bits that were saved."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core import record
from jaxlab.run.bucket import Bucket
from jaxlab.run.mirror import Mirror
from jaxlab.train.checkpoint import Checkpoints


class Failing(Bucket):
    """A bucket that cannot be reached any more after some operations."""

    left = 10**9

    def _count(self):
        if self.left == 0:
            raise ConnectionError("no network")
        self.left -= 1

    def put(self, file, name):
        self._count()
        super().put(file, name)

    def remove(self, name):
        self._count()
        super().remove(name)

    def get(self, name, folder):
        self._count()
        super().get(name, folder)


def tree(step):
    return {"state": {"kernel": jnp.full((3, 2), step, jnp.float32), "bias": jnp.arange(4) + step}}


def save(folder: Path, step: int, keep: int = 2) -> None:
    """Do what a run does: a row, then the checkpoint of its step."""
    with (folder / record.METRICS).open("a") as file:
        file.write(f'{{"step": {step}}}\n')
    with Checkpoints(folder / record.CHECKPOINTS, keep=keep, best=None, mode="min") as checkpoints:
        checkpoints.save(step, tree(step), {})


def whole_steps(url: str, folder: Path) -> list[int]:
    """Return the steps that a machine which begins with nothing finds; each restores, and its row is there."""
    shutil.rmtree(folder, ignore_errors=True)
    Mirror(Bucket(url), folder, folder.with_name("notes-of-a-reader.json")).pull()
    shutil.move(folder.with_name("notes-of-a-reader.json"), folder / "notes")
    last = max((row["step"] for row in record.read_metrics(folder)), default=0)
    with Checkpoints(folder / record.CHECKPOINTS, keep=9, best=None, mode="min", writable=False) as checkpoints:
        for step in checkpoints.steps():
            restored = checkpoints.restore(step, tree(step))
            np.testing.assert_array_equal(restored["state"]["kernel"], tree(step)["state"]["kernel"])
            assert step <= last
        return checkpoints.steps()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_machine_reads_what_was_written(folder_url, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    mirror = Mirror(Bucket(folder_url), here, tmp_path / "notes")
    for step in (1, 2, 3):
        save(here, step)
        assert mirror.push(removing=True) == []
    assert whole_steps(folder_url, there) == [2, 3]
    (there / "notes").unlink()
    assert files(there) == files(here)


def test_at_whatever_moment_the_network_ends_what_is_there_is_whole(s3_url, tmp_path):
    here, seen = tmp_path / "here", set()
    for operations in itertools.count(0, 7):
        url = f"{s3_url}/{operations}"
        shutil.rmtree(here, ignore_errors=True)
        bucket = Failing(url)
        mirror = Mirror(bucket, here, tmp_path / f"notes-{operations}")
        save(here, 1, keep=1)
        mirror.push(removing=True)
        save(here, 2, keep=1)
        bucket.left = operations
        try:
            mirror.push(removing=True)
        except ConnectionError:
            seen.add(tuple(whole_steps(url, tmp_path / "there")))
            bucket.left = 10**9
            mirror.push(removing=True)
        else:
            break
        finally:
            assert whole_steps(url, tmp_path / "there")
        assert whole_steps(url, tmp_path / "there") == [2]
    assert {(1,), (2,)} <= seen <= {(1,), (1, 2), (2,)}


def test_nothing_travels_that_has_not_changed(s3_url, tmp_path):
    here = tmp_path / "here"
    mirror = Mirror(bucket := Failing(s3_url), here, tmp_path / "notes")
    save(here, 1)
    mirror.push(removing=True)
    bucket.left = 1
    (here / record.METRICS).write_text('{"step": 1}\n{"step": 2}\n')
    mirror.push(removing=True)
    mirror.push(removing=True)
    again = Mirror(bucket, here, tmp_path / "notes")  # as a later process
    again.pull()
    again.push(removing=True)
    assert bucket.left == 0
    assert bucket.read(record.METRICS) == b'{"step": 1}\n{"step": 2}\n'


def test_locks_and_what_is_half_written_stay(s3_url, tmp_path):
    here = tmp_path / "here"
    mirror = Mirror(Bucket(s3_url), here, tmp_path / "notes")
    for name in (
        record.LOCK,
        ".config.json.x1",
        "checkpoints/.saving-3/default/x",
        "a/.hidden/b",
        "study.db-wal",
        "kept",
    ):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    (here / "link").symlink_to("/etc/hostname")
    mirror.push(removing=True)
    assert set(Bucket(s3_url).list()) == {"kept"}


def test_what_was_removed_elsewhere_is_removed_here_and_what_is_new_here_is_not(s3_url, tmp_path):
    one = Mirror(Bucket(s3_url), tmp_path / "one", tmp_path / "notes-1")
    save(tmp_path / "one", 1, keep=1)
    one.push(removing=True)
    two = Mirror(Bucket(s3_url), tmp_path / "two", tmp_path / "notes-2")
    two.pull()
    (tmp_path / "two/mine").write_text("an evaluation's")
    save(tmp_path / "one", 2, keep=1)
    one.push(removing=True)
    two.pull()
    assert {path.name for path in (tmp_path / "two/checkpoints").iterdir() if any(path.rglob("manifest.json"))} == {"2"}
    assert (tmp_path / "two/mine").read_text() == "an evaluation's"
    two.push(removing=False)
    assert "mine" in Bucket(s3_url).list()
    two.pull(exactly=True)
    assert (tmp_path / "two/mine").exists()  # as it is there now
    (tmp_path / "two/unknown").write_text("")
    two.pull(exactly=True)
    assert not (tmp_path / "two/unknown").exists()


def test_without_arrays_a_report_reads_little(s3_url, tmp_path):
    (tmp_path / "one").mkdir()
    save(tmp_path / "one", 1)
    Mirror(Bucket(s3_url), tmp_path / "one", tmp_path / "notes-1").push(removing=True)
    reader = Mirror(Bucket(s3_url), tmp_path / "two", tmp_path / "notes-2")
    reader.pull(arrays=False)
    assert set(files(tmp_path / "two")) == {record.METRICS, "checkpoints/1/manifest.json"}
    reader.pull()
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_files_of_a_checkpoint_without_a_manifest_are_swept(s3_url, tmp_path):
    bucket = Bucket(s3_url)
    for name in ("checkpoints/1/default/x", "checkpoints/2/default/x", "checkpoints/2/manifest.json", "other"):
        bucket.write(name, b"x")
    Mirror(bucket, tmp_path / "here", tmp_path / "notes").sweep()
    assert set(bucket.list()) == {"checkpoints/2/default/x", "checkpoints/2/manifest.json", "other"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_processes_the_manifest_waits_for_both(s3_url, tmp_path, order):
    """Each process has the manifest of all files, and some of these."""
    whole = tmp_path / "whole"
    whole.mkdir()
    save(whole, 1)
    names = sorted(name for name in files(whole) if "/default/" in name)
    mirrors = []
    for process in range(2):
        folder = tmp_path / f"process-{process}"
        shutil.copytree(whole, folder)
        for name in names[1 - process :: 2]:
            (folder / name).unlink()
        mirrors.append(Mirror(Bucket(s3_url), folder, tmp_path / f"notes-{process}", first=process == 0))
    waiting = [mirrors[process].push(removing=True) for process in order]
    assert waiting == ([["checkpoints/1/manifest.json"], []] if order == (0, 1) else [[], []])
    assert ("checkpoints/1/manifest.json" in Bucket(s3_url).list()) == (order == (1, 0))
    assert mirrors[0].push(removing=True) == []
    assert whole_steps(s3_url, tmp_path / "there") == [1]
    mirrors[1].fetch(tmp_path / "process-1/checkpoints/1")
    assert {name for name in files(tmp_path / "process-1") if "/default/" in name} == set(names)
