"""Real servers of both kinds of buckets on loopback, and a folder for what stands for them on a machine."""

from __future__ import annotations

import logging
import os
import sys
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

for folder in ("train", "processes"):
    sys.path.append(str(Path(__file__).parents[1] / folder))
os.environ["JAXLAB_ALLOW"] += ",process_plugins"


@pytest.fixture(scope="session")
def s3_server():
    """An S3 server whose objects outlive its being stopped; its bucket is ``runs``."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "name", "AWS_SECRET_ACCESS_KEY": "word",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        import boto3

        boto3.client("s3").create_bucket(Bucket="runs")
        yield server
        server.stop()


@pytest.fixture(scope="session")
def gs_server():
    """A Cloud Storage server; its bucket is ``runs``."""
    from gcp_storage_emulator.handlers import buckets
    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    storage = Storage(use_memory_fs=True)
    buckets.create_bucket("runs", storage)
    # the emulator's own server answers one at a time, so that a client that connects and waits stops the others
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RequestHandler, storage))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("FSSPEC_GS_TOKEN", "anon")
        # gcsfs asks for a bucket's kind by gRPC, which the emulator does not speak, and asks again for a minute
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["s3", "gs"])
def folder_url(request, tmp_path):
    """The URL of an empty folder in a bucket of each kind."""
    request.getfixturevalue(f"{request.param}_server")
    return f"{request.param}://runs/{tmp_path.parent.name}/{tmp_path.name}"


@pytest.fixture
def s3_url(s3_server, tmp_path):
    """The URL of an empty folder in a bucket."""
    return f"s3://runs/{tmp_path.parent.name}/{tmp_path.name}"


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """A place of the test's own for what stands for buckets."""
    from jaxlab.run import mirrored

    monkeypatch.setenv(mirrored.SCRATCH, str(tmp_path / "machine"))
    return tmp_path / "machine"
