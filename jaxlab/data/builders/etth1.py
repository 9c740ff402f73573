"""ETTh1: 7 hourly series of an electricity transformer in China, 2016–18 (Zhou et al. 2021, Informer).

The literature's splits: 12, 4 and 4 months of 30 days, so train 8,640 rows, valid 2,880, test 2,880; the 3,020 hours
after them are left out, as there. Windows there reach back over a split's start: ``train[-96:]+valid`` gives that.
Inputs and errors are standardised there with the mean and deviation of train; here values are as published.
Usage: ``python scripts/prepare_data.py etth1``.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages

SERIES = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")  # six loads and the oil's temperature
SHA256 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"  # of the CSV file, not compressed
HOME = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv"
LOCAL = "ett/ETTh1.csv.gz"
MONTH = 30 * 24
SPLITS = {"train": (0, 12), "valid": (12, 16), "test": (16, 20)}  # in months


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes a row an hour: `series` [7] float32 and `time`."""

    name = "etth1"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "ETTh1.csv or ETTh1.csv.gz; `fetch` gets it."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "series": tfds.features.Tensor(shape=(len(SERIES),), dtype=np.float32),
            "time": tfds.features.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Loads and oil temperature of a transformer; times are Unix seconds, as if in UTC.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://github.com/zhouhaoyi/ETDataset",
            license="CC-BY-ND-4.0",
            disable_shuffling=True,  # rows are in the order of time
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        (path,) = Path(dl_manager.manual_dir).iterdir()
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        header, *lines = content.decode("ascii").splitlines()
        if header.split(",") != ["date", *SERIES]:
            raise DataError(f"etth1: {path} has the columns {header}")
        return {
            split: self._generate_examples(lines[start * MONTH : end * MONTH]) for split, (start, end) in SPLITS.items()
        }

    def _generate_examples(self, lines: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, line in enumerate(lines):
            time, *values = line.split(",")
            seconds = int(np.datetime64(time, "s").astype(np.int64))
            yield i, {"series": np.array(values, np.float32), "time": seconds}


def fetch(folder: Path) -> str:
    """Put the file, verified, into `folder`, from the first place that has it; return which.

    Raises:
      DataError: no place has it; says for each why not.
    """
    routes = {
        f"the file {LOCAL} in $JAXLAB_DATA": packages.local({LOCAL: SHA256}, decompress=True),
        f"the internet ({HOME})": packages.internet({HOME: SHA256}),
    }
    return fetching.first_that_works("etth1", folder, routes)
