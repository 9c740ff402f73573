"""One writer a bucket's folder: whoever comes second is refused, unless the first has given no sign of life."""

from __future__ import annotations

import signal
import time

import pytest

from jaxlab.core.errors import UsageError
from jaxlab.run import lease
from jaxlab.run.bucket import Bucket
from jaxlab.run.lease import NAME, Lease


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in {"BEAT": 0.1, "GONE": 1.0, "_SETTLED": 0.2}.items():
        monkeypatch.setattr(lease, name, seconds)


def test_a_second_writer_is_refused_with_the_first_ones_name(s3_url):
    refused = pytest.raises(UsageError, match=r"is being written by process \d+ on .*choose another --workdir")
    with Lease(Bucket(s3_url), "first"), refused, Lease(Bucket(s3_url), "second"):
        pass
    with Lease(Bucket(s3_url), "second") as taken:
        assert taken.held
    assert Bucket(s3_url).read(NAME) is None


def test_what_a_dead_writer_left_is_taken_over_after_a_while(s3_url):
    Bucket(s3_url).write(NAME, b'{"owner": "dead", "host": "h", "pid": 1, "beat": 7}')
    began = time.monotonic()
    with Lease(Bucket(s3_url), "second") as taken:
        assert taken.held
    assert time.monotonic() - began >= 1.0


def test_the_same_folder_goes_on_at_once(s3_url, monkeypatch):
    monkeypatch.setattr(lease, "GONE", 1e6)
    Bucket(s3_url).write(NAME, b'{"owner": "mine", "host": "h", "pid": 1, "beat": 7}')
    with Lease(Bucket(s3_url), "mine") as taken:
        assert taken.held


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[]", b'{"owner": 3}'])
def test_what_is_no_lease_is_taken_over(s3_url, content):
    Bucket(s3_url).write(NAME, content)
    with Lease(Bucket(s3_url), "mine") as taken:
        assert taken.held


def test_a_writer_that_was_taken_for_dead_stops_and_leaves_the_others_lease(s3_url, monkeypatch):
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    try:
        with Lease(Bucket(s3_url), "suspended") as mine:
            until = time.monotonic() + 10
            while mine.held and time.monotonic() < until:  # again and again: a beat under way may write over one
                Bucket(s3_url).write(NAME, b'{"owner": "other", "host": "h", "pid": 2, "beat": 1}')
                time.sleep(0.02)
            assert not mine.held
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [True]
    assert b"other" in Bucket(s3_url).read(NAME)
