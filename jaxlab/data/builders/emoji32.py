"""emoji32: 3,781 emoji of Twitter's set as colour images, 32×32, of nine classes, one of which has 60 % of them.

Variants of one emoji (skin colours, man/woman/person) are near-duplicates and share a `group`. Splits are by a hash of
the group, about 80/10/10: no group is in two, and no image. Sizes: train 2,953 rows (1,380 groups), valid 382 (157),
test 446 (165). Rows lie in the order of a second hash, so classes are mixed.
Usage: ``python scripts/prepare_data.py emoji32``.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages
from jaxlab.data.preparation.hash_split import SPLITS, split_of

CLASSES = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)
PACKAGE, PACKAGE_VERSION = "emoji-datasource-twitter", "16.0.0"
SHEET = "img/twitter/sheets/32.png"  # all images as one, in cells of 34 pixels with a border of one
SHA256 = {
    "emoji.json": "1d602e65be88772bf8cc368ce16b855d719eeddbafe128d471b80203f494d29f",
    SHEET: "2767ef2e87cbfb6cc12ac46596c339549afaf0ae8771cf51100c8853f6bde632",
}
# What is drawn like another: a family, a blond person, and the flags of UM, HM, MF, CP, EA, DG and SJ.
ALIKE = {
    "1F46A": "1F9D1-200D-1F9D1-200D-1F9D2",
    "1F471": "1F9D1",
    "1F1FA-1F1F2": "1F1FA-1F1F8",
    "1F1ED-1F1F2": "1F1E6-1F1FA",
    "1F1F2-1F1EB": "1F1EB-1F1F7",
    "1F1E8-1F1F5": "1F1EB-1F1F7",
    "1F1EA-1F1E6": "1F1EA-1F1F8",
    "1F1E9-1F1EC": "1F1EE-1F1F4",
    "1F1F8-1F1EF": "1F1F3-1F1F4",
}
_CELL, _BORDER, _SIDE = 34, 1, 32


class Emoji(NamedTuple):
    """One image: the hash of its group, its group and its own code points, where it lies in the sheet, its class."""

    hashed: int
    group: str
    code: str
    column: int
    row: int
    label: str


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the images [32, 32, 3] uint8 on white, their classes, and a number for each group of variants."""

    name = "emoji32"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "emoji.json and 32.png; `fetch` gets them."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Tensor(shape=(_SIDE, _SIDE, 3), dtype=np.uint8),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
            "group": tfds.features.Scalar(np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Colour images of emoji and the categories that Unicode gives them.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://github.com/iamcal/emoji-data",
            license="CC-BY-4.0 (the images)",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        from PIL import Image

        folder = Path(dl_manager.manual_dir)
        with Image.open(folder / Path(SHEET).name) as file:
            sheet = file.convert("RGBA")
        white = Image.new("RGBA", sheet.size, "white")
        sheet_HWC = np.asarray(Image.alpha_composite(white, sheet).convert("RGB"))
        emoji = read_emoji(folder / "emoji.json")
        numbers = {group: i for i, group in enumerate(sorted({one.group for one in emoji}))}
        return {
            split: self._generate_examples([one for one in emoji if split_of(one.group) == split], sheet_HWC, numbers)
            for split in SPLITS
        }

    def _generate_examples(
        self, emoji: Sequence[Emoji], sheet_HWC: np.ndarray, numbers: dict[str, int]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, one in enumerate(emoji):
            y, x = one.row * _CELL + _BORDER, one.column * _CELL + _BORDER
            image_HWC = sheet_HWC[y : y + _SIDE, x : x + _SIDE]
            yield i, {"image": image_HWC, "label": one.label, "group": numbers[one.group]}


def read_emoji(path: Path) -> list[Emoji]:
    """Return the emoji that have an image and a class, by the hash of their group; variants lie side by side."""
    emoji = []
    for base in json.loads(path.read_text("utf-8")):
        group = group_of(base["unified"])
        hashed = zlib.crc32(group.encode())
        for one in (base, *base.get("skin_variations", {}).values()):
            if one["has_img_twitter"] and base["category"] in CLASSES:
                place = one["sheet_x"], one["sheet_y"]
                emoji.append(Emoji(hashed, group, one["unified"], *place, base["category"]))
    return sorted(emoji)


def group_of(code: str) -> str:
    """Return the code points of an emoji without sex: man and woman become person, boy and girl child, signs go."""
    neutral = re.sub(r"\b1F46[89]\b", "1F9D1", re.sub(r"\b1F46[67]\b", "1F9D2", code))
    neutral = re.sub(r"-200D-264[02](-FE0F)?", "", neutral)
    return ALIKE.get(neutral, neutral)


def fetch(folder: Path) -> str:
    """Put the two files, verified, into `folder`, from the first place that has them; return which.

    Raises:
      DataError: no place has them; says for each why not.
    """
    local = {f"emoji32/{Path(name).name}": sha256 for name, sha256 in SHA256.items()}
    routes = {
        "the folder emoji32 in $JAXLAB_DATA": packages.local(local),
        f"the npm package {PACKAGE}": packages.npm(PACKAGE, PACKAGE_VERSION, SHA256),
    }
    return fetching.first_that_works("emoji32", folder, routes)
