"""MovieLens-100K: 100,000 ratings, 1 to 5, of 1,682 films by 943 users, 1997–98 (Harper, Konstan 2015).

Splits leave one out by time, as the literature on ranking does: ``test`` is each user's last rating (943 rows),
``valid`` the one before (943), ``train`` the rest (98,114); equal times are ordered as in the file. Rows lie in the
order of time, so a user's rows do too. For research only; never redistribute.
Usage: ``python scripts/prepare_data.py ml100k``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages

PACKAGE, PACKAGE_VERSION, PACKAGE_FOLDER = "recbole", "1.2.1", "recbole/dataset_example/ml-100k"
SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
SPLITS = {"train": slice(None, -2), "valid": slice(-2, -1), "test": slice(-1, None)}  # of each user's ratings
GENDERS = ("F", "M")
GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
OCCUPATIONS = (
    "administrator",
    "artist",
    "doctor",
    "educator",
    "engineer",
    "entertainment",
    "executive",
    "healthcare",
    "homemaker",
    "lawyer",
    "librarian",
    "marketing",
    "none",
    "other",
    "programmer",
    "retired",
    "salesman",
    "scientist",
    "student",
    "technician",
    "writer",
)

Row = dict[str, str]


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes user, item (both from 0), rating and time, with the user's and the film's own facts in each row."""

    name = "ml100k"
    VERSION = tfds.core.Version("1.0.0")
    CATEGORIES: ClassVar = {
        field: tuple(str(number) for number in range(1, count + 1))
        for field, count in {"user": 943, "item": 1682}.items()
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = "ml-100k.inter, .item and .user; `fetch` gets them."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "user": tfds.features.Scalar(np.int32),
            "item": tfds.features.Scalar(np.int32),
            "rating": tfds.features.Scalar(np.float32),
            "time": tfds.features.Scalar(np.int64),
            "user_age": tfds.features.Scalar(np.int32),
            "user_gender": tfds.features.ClassLabel(names=list(GENDERS)),
            "user_occupation": tfds.features.ClassLabel(names=list(OCCUPATIONS)),
            "item_genres": tfds.features.Tensor(shape=(len(GENRES),), dtype=np.uint8),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Ratings of films, with times (Unix seconds), users' facts and films' genres (several each).",
            features=tfds.features.FeaturesDict(features),
            homepage="https://grouplens.org/datasets/movielens/100k",
            license="GroupLens: research only, no redistribution",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = Path(dl_manager.manual_dir)
        users = {row["user_id"]: row for row in read_atomic(folder / "ml-100k.user")}
        items = {row["item_id"]: row for row in read_atomic(folder / "ml-100k.item")}
        by_user: dict[str, list[Row]] = {}
        for row in sorted(read_atomic(folder / "ml-100k.inter"), key=_time):  # stable
            by_user.setdefault(row["user_id"], []).append(row)
        kept = {split: [row for rows in by_user.values() for row in rows[part]] for split, part in SPLITS.items()}
        return {split: self._generate_examples(sorted(rows, key=_time), users, items) for split, rows in kept.items()}

    def _generate_examples(
        self, rows: Sequence[Row], users: Mapping[str, Row], items: Mapping[str, Row]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, row in enumerate(rows):
            user, genres = users[row["user_id"]], items[row["item_id"]]["class"].split()
            yield (
                i,
                {
                    "user": int(row["user_id"]) - 1,
                    "item": int(row["item_id"]) - 1,
                    "rating": float(row["rating"]),
                    "time": _time(row),
                    "user_age": int(user["age"]),
                    "user_gender": user["gender"],
                    "user_occupation": user["occupation"],
                    "item_genres": np.array([genre in genres for genre in GENRES], np.uint8),
                },
            )


def read_atomic(path: Path) -> list[Row]:
    """Return the rows of a table whose columns are separated by tabs and named ``NAME:TYPE``."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = [column.partition(":")[0] for column in next(rows)]
        return [dict(zip(names, row, strict=True)) for row in rows]


def _time(row: Row) -> int:
    return int(row["timestamp"])


def fetch(folder: Path) -> str:
    """Put the three files, verified, into `folder`, from the first place that has them; return which.

    Raises:
      DataError: no place has them; says for each why not.
    """
    inside = {f"{PACKAGE_FOLDER}/{name}": sha256 for name, sha256 in SHA256.items()}
    routes = {
        "the folder ml-100k in $JAXLAB_DATA": packages.local({f"ml-100k/{n}": sha256 for n, sha256 in SHA256.items()}),
        f"the Python package {PACKAGE}": packages.pypi(PACKAGE, PACKAGE_VERSION, inside),
    }
    return fetching.first_that_works("ml100k", folder, routes)
