"""English–Spanish verse pairs: the King James Bible and Reina-Valera 1909.

Knows where both are found and how pairs are written: verses of the same number, in the order of the Bible, split by
book as `kjv` is. Left out are verses that the Spanish edition joins to another, and the chapters in which it counts
verses otherwise. Usage: ``python scripts/prepare_data.py bible_en_es``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.builders import kjv
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import sword

SPANISH = kjv.Edition(
    "spaRV1909eb",
    "sword-text-sparv",
    "ed6bfcbf1e7e296b7db0109a85332ed6bb6d143d",
    {
        "ot.bzs": "0e39106ae15a29cef56feac683f8482be380536a1c456e006867f9fa94c0338e",
        "ot.bzv": "0f23b1ebff5ecdd352a64feda5bb047cba27ce3624fa7b00717f763835d96e20",
        "ot.bzz": "daae868e179e6cc884ad2c9429a9dfaf9745d61caa6dbb9da2a8b24ec3c01337",
        "nt.bzs": "b88dda1e9ab50d158262ab141af7823269acb19c581621683298be5b6e154d58",
        "nt.bzv": "a9583ba1b4c66dfdd8bfb6a0b1833bdaa02f9e2cc3465c5a802cf19cbc2f2533",
        "nt.bzz": "7baf6b1e798b193315fed89d0e84e8e1a033d035316f66c78d456f5fb8c87e20",
    },
)
EDITIONS = {"en": kjv.KJV, "es": SPANISH}
# Both editions mark words with the Hebrew or Greek word (Strong's numbers) that they translate. These are the chapters
# in which successive pairs share next to none, because verses are divided or counted otherwise.
COUNTED_OTHERWISE = {
    ("Num", 13),
    ("Num", 30),
    ("Judg", 14),
    ("1Sam", 24),
    ("1Kgs", 22),
    ("1Chr", 1),
    ("1Chr", 21),
    ("2Chr", 33),
    ("Job", 39),
    ("Job", 40),
    ("Hos", 12),
    ("Jonah", 2),
    ("2Cor", 13),
}


class Pair(NamedTuple):
    """A verse in both languages; `place` is the English one."""

    place: sword.Verse
    en: str
    es: str


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes a pair of verses an example, in the order of the Bible."""

    name = "bible_en_es"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folders en and es with the six files of each SWORD module; `fetch` gets them."

    def _info(self) -> tfds.core.DatasetInfo:
        texts = {language: tfds.features.Text() for language in EDITIONS}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Verses of the King James Bible with those of Reina-Valera 1909; whole books are held out.",
            features=tfds.features.FeaturesDict({**texts, **kjv.place_features()}),
            supervised_keys=tuple(EDITIONS),
            homepage="https://ebible.org/details.php?id=spaRV1909",
            license="public domain (in the United Kingdom printing the English is under the Crown's letters patent)",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        found = pairs(*(sword.read(Path(dl_manager.manual_dir) / language) for language in EDITIONS))
        return {
            split: self._generate_examples([pair for pair in found if kjv.split_of_book(pair.place.book) == split])
            for split in ("train", *kjv.HELD_OUT)
        }

    def _generate_examples(self, found: list[Pair]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, pair in enumerate(found):
            yield i, {"en": pair.en, "es": pair.es, **kjv.place_of(pair.place)}


def fetch(folder: Path) -> str:
    """Put both modules' files, verified, into the folders ``en`` and ``es`` of `folder`; return where from.

    Raises:
      DataError: no place has one of them; says for each why not.
    """
    sources = []
    for language, edition in EDITIONS.items():
        (folder / language).mkdir()
        sources.append(fetching.first_that_works("bible_en_es", folder / language, kjv.routes(edition)))
    return " and ".join(dict.fromkeys(sources))


def pairs(english: list[sword.Verse], spanish: list[sword.Verse]) -> list[Pair]:
    """Return the verses that both editions have and count alike.

    Raises:
      DataError: the editions are not divided into the same books, chapters and verses.
    """
    if [verse[:3] for verse in english] != [verse[:3] for verse in spanish]:
        raise DataError(f"the English and the Spanish module differ in their verses: {len(english)}, {len(spanish)}")
    return [
        Pair(verse, verse.text, other.text)
        for verse, other in zip(english, spanish, strict=True)
        if verse.text and other.text and verse[:2] not in COUNTED_OTHERWISE
    ]
