"""The King James Bible: 31,102 verses, 4.1 million characters, in the spelling of 1769.

Knows where its module is found, which books are held out and how verses are written: in the order of the Bible. Whole
books are held out, few of whose passages stand elsewhere. Usage: ``python scripts/prepare_data.py kjv``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages, sword

ARCHIVE = "https://snapshot.debian.org/file"  # keeps every version of every package, by the file's SHA-1
HELD_OUT = {
    "valid": ("Ruth", "Esth", "Eccl", "Dan", "Rom", "Jas"),
    "test": ("Song", "Lam", "Joel", "Amos", "Jonah", "1Cor", "Heb", "1John"),
}


class Edition(NamedTuple):
    """A Bible as a Debian package carries it: `files` are the six of its module, to their SHA-256."""

    module: str
    package: str
    package_sha1: str
    files: dict[str, str]


KJV = Edition(
    "engKJV2006eb",
    "sword-text-kjv",
    "f1243f951811f073842b0d67fec8cddd90b40f2f",
    {
        "ot.bzs": "0d518856e8c6ceae0ca58bef944ba9a2809b5d4489cf81900853ad4af227510b",
        "ot.bzv": "b4fae54cb0b979b7f3f78fe6eaa94bad1f1d408eccb4a40410402b794b5c2f0f",
        "ot.bzz": "69f7e4e9b42ecef2e212ea957a388fccbeed1e3e333a38cf52e1b4064c6ce373",
        "nt.bzs": "e7f9bc653743217cdcdf95890a708f997a03af056161d84bb540efef79e4e638",
        "nt.bzv": "9d1daab8fb6ef43b53642cdd3276c1fa95ecfde08901bbb349be6378d1e1b972",
        "nt.bzz": "135b6e70af49372f3a82c5d9cc3c00278f38dbb2c12af74ea8d4b54c18d0cd56",
    },
)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes a verse an example, in the order of the Bible."""

    name = "kjv"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The six files of the SWORD module; `fetch` gets them."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"text": tfds.features.Text(), **place_features()}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Verses of the King James Bible; whole books are held out.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://ebible.org/details.php?id=eng-kjv2006",
            license="public domain (in the United Kingdom printing is under the Crown's letters patent)",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        verses = sword.read(Path(dl_manager.manual_dir))
        return {
            split: self._generate_examples([verse for verse in verses if split_of_book(verse.book) == split])
            for split in ("train", *HELD_OUT)
        }

    def _generate_examples(self, verses: list[sword.Verse]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, verse in enumerate(verses):
            yield i, {"text": verse.text, **place_of(verse)}


def fetch(folder: Path) -> str:
    """Put the module's files, verified, into `folder`, from the first place that has them; return which.

    Raises:
      DataError: no place has them; says for each why not.
    """
    return fetching.first_that_works("kjv", folder, routes(KJV))


def routes(edition: Edition) -> dict[str, fetching.Route]:
    """Return the routes to the six files of `edition`, which they put flat into the folder."""
    inside = f"usr/share/sword/modules/texts/ztext/{edition.module}"
    files = {f"{inside}/{name}": sha256 for name, sha256 in edition.files.items()}

    def from_archive(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as stage:
            package = fetching.download(f"{ARCHIVE}/{edition.package_sha1}", Path(stage, f"{edition.package}.deb"))
            fetching.unpack_deb(package, folder, inside)
        for path, sha256 in files.items():
            fetching.verify((folder / path).rename(folder / Path(path).name), sha256)

    local = {f"{edition.module}/{name}": sha256 for name, sha256 in edition.files.items()}
    return {
        f"the folder {edition.module} in $JAXLAB_DATA": packages.local(local),
        f"the internet ({ARCHIVE})": from_archive,
        f"the Debian package {edition.package}": packages.debian(edition.package, files),
    }


def split_of_book(book: str) -> str:
    """Return the split of a book, by OSIS's name."""
    return next((split for split, books in HELD_OUT.items() if book in books), "train")


def place_features() -> dict[str, Any]:
    """Return the features that say where in the Bible an example stands."""
    number = tfds.features.Scalar(np.int32)
    return {"book": tfds.features.ClassLabel(names=list(sword.BOOKS.values())), "chapter": number, "verse": number}


def place_of(verse: sword.Verse) -> dict[str, Any]:
    """Return the values of `place_features` for a verse."""
    return {"book": sword.BOOKS[verse.book], "chapter": verse.chapter, "verse": verse.verse}
