"""SKAB, the Skoltech Anomaly Benchmark (Katser, Kozitsin 2020): 8 sensors of a water pump, a row a second.

35 recordings: one without anomalies, 34 in which something is done to the pump. Splits are by recording: of each five
of the 34, the fourth is in ``valid`` (7,617 rows of 7), the fifth in ``test`` (7,079 of 6); ``train`` (32,110 rows of
22) has the others and the one without anomalies. The benchmark's own protocol fits on the first 400 rows of each of
the 34, which `step` counts.
Usage: ``python scripts/prepare_data.py skab``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages

SERIES = (
    "Accelerometer1RMS",
    "Accelerometer2RMS",
    "Current",
    "Pressure",
    "Temperature",
    "Thermocouple",
    "Voltage",
    "Volume Flow RateRMS",
)
NORMAL = "anomaly-free/anomaly-free.csv"
RECORDINGS = (
    NORMAL,
    *(f"other/{number}.csv" for number in range(1, 15)),
    *(f"valve1/{number}.csv" for number in range(16)),
    *(f"valve2/{number}.csv" for number in range(4)),
)
PATTERN = r"(anomaly-free|other|valve1|valve2)/[a-z0-9-]+\.csv$"  # of the paths in the archive
ARCHIVE = "skab.tar.xz"
ARCHIVE_SHA256 = "fd01847795b124b55c73e2cde98a846e056ab3cd3c46ca45df95194c437e00b9"
HOME = "https://github.com/waico/SKAB/archive"
REVISIONS = ("1801b97459937a872c789add44e64511b586b1f2", "HEAD")
FILES_SHA256 = "f0ae6c1409bf2876838dc16d5ecca0c50bf82f0cf50bb038f5c3293f22b68294"  # see packages.files_sha256


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the sensors as `series` [8] float32, `time`, the recording as `group`, its row, and what was marked."""

    name = "skab"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "One archive of CSV files; `fetch` gets it."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "series": tfds.features.Tensor(shape=(len(SERIES),), dtype=np.float32),
            "time": tfds.features.Scalar(np.int64),
            "group": tfds.features.Scalar(np.int32),
            "step": tfds.features.Scalar(np.int32),
            "label": tfds.features.ClassLabel(names=["normal", "anomaly"]),
            "changepoint": tfds.features.Scalar(np.uint8),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Sensors of a water pump; times are Unix seconds, as if the clock showed UTC.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("series", "label"),
            homepage="https://github.com/waico/SKAB",
            license="GPL-3.0",
            disable_shuffling=True,  # rows of a recording lie side by side, in the order of time
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        (archive,) = Path(dl_manager.manual_dir).iterdir()
        files = packages.read_archive(archive, PATTERN)
        kept: dict[str, dict[str, bytes]] = {"train": {}, "valid": {}, "test": {}}
        for name in RECORDINGS:
            if name not in files:
                raise DataError(f"skab: {archive.name} lacks {name}")
            kept[split_of(name)][name] = files[name]
        return {split: self._generate_examples(found) for split, found in kept.items()}

    def _generate_examples(self, files: Mapping[str, bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
        i = 0
        for name, content in files.items():
            for step, row in enumerate(read_recording(content, name)):
                yield i, {**row, "group": RECORDINGS.index(name), "step": step}
                i += 1


def split_of(name: str) -> str:
    """Return the split of a recording."""
    if name == NORMAL:
        return "train"
    return {3: "valid", 4: "test"}.get((RECORDINGS.index(name) - 1) % 5, "train")


def read_recording(content: bytes, name: str) -> list[dict[str, Any]]:
    """Return the rows of a CSV file; the one without anomalies has no columns for them.

    Raises:
      DataError: it has other columns.
    """
    header, *lines = content.decode("ascii").splitlines()
    marks = [] if name == NORMAL else ["anomaly", "changepoint"]
    if header.split(";") != ["datetime", *SERIES, *marks]:
        raise DataError(f"skab: {name} has the columns {header}")
    rows = []
    for line in lines:
        time, *values = line.split(";")
        anomaly, changepoint = map(float, values[len(SERIES) :] or ("0", "0"))
        rows.append(
            {
                "series": np.array(values[: len(SERIES)], np.float32),
                "time": int(np.datetime64(time, "s").astype(np.int64)),
                "label": int(anomaly),
                "changepoint": int(changepoint),
            }
        )
    return rows


def fetch(folder: Path) -> str:
    """Put the archive, verified, into `folder`, from the first place that has it; return which.

    Raises:
      DataError: no place has it; says for each why not.
    """
    routes = {f"the file {ARCHIVE} in $JAXLAB_DATA": packages.local({ARCHIVE: ARCHIVE_SHA256})}
    for revision in REVISIONS:
        url = f"{HOME}/{revision}.zip"
        routes[f"the internet ({url})"] = packages.internet_archive(url, PATTERN, FILES_SHA256)
    return fetching.first_that_works("skab", folder, routes)
