"""A stand-in for Fashion-MNIST: its own builder, its own file format, a few rows."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

ROWS = {"train": 320, "t10k": 40}


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture(scope="session")
def fashion_mnist_folder(tmp_path_factory) -> Path:
    """Prepare a few rows of noise by the real builder and return the root of the data sets."""
    import tensorflow_datasets as tfds

    from jaxlab.data.builders import fashion_mnist
    from jaxlab.data.prepare import FILE_FORMAT

    root, files = tmp_path_factory.mktemp("tfds"), tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    for prefix, rows in ROWS.items():
        images = generator.integers(0, 256, (rows, 28, 28)).astype(np.uint8)
        write_idx(files / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(files / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(rows) % 10).astype(np.uint8))
    tfds.disable_progress_bar()
    builder = fashion_mnist.Builder(data_dir=str(root), file_format=FILE_FORMAT)
    builder.download_and_prepare(
        download_dir=str(files / "downloads"), download_config=tfds.download.DownloadConfig(manual_dir=str(files))
    )
    return root


@pytest.fixture
def stand_in_fashion_mnist(fashion_mnist_folder, monkeypatch) -> Path:
    """Let data sets be looked for where only the stand-in is."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(fashion_mnist_folder))
    return fashion_mnist_folder
