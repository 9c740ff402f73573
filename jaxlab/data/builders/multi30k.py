"""Multi30k: 31,014 captions of photos in English, translated to German (Elliott et al. 2016), task 1, raw.

Knows where its six files are found and how they are written; rows keep the files' lines as they are, in order. The test
split is ``test_2016_flickr``, which published BLEU figures are of. Usage: ``python scripts/prepare_data.py multi30k``.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages

SPLITS = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
LANGUAGES = ("en", "de")
SHA256 = {  # of the decompressed content
    "train.en.gz": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de.gz": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "val.en.gz": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.de.gz": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "test_2016_flickr.en.gz": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.de.gz": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
}
HOME = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the pairs in the order of the original files."""

    name = "multi30k"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The six files, compressed with gzip; `fetch` gets them."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {language: tfds.features.Text() for language in LANGUAGES}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Captions of photos, in English and translated to German.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=LANGUAGES,
            homepage="https://github.com/multi30k/dataset",
            license="the captions derive from Flickr30k: research use",
            disable_shuffling=True,  # the example's index is then its line in the original files
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = Path(dl_manager.manual_dir)
        return {split: self._generate_examples(folder, prefix) for split, prefix in SPLITS.items()}

    def _generate_examples(self, folder: Path, prefix: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (english, german) in enumerate(read_pairs(*(folder / f"{prefix}.{x}.gz" for x in LANGUAGES))):
            yield i, {"en": english, "de": german}


def fetch(folder: Path) -> str:
    """Put the six files, verified, into `folder`, from the first place that has them; return which.

    Raises:
      DataError: no place has them; says for each why not.
    """
    local = {f"multi30k/{name}": sha256 for name, sha256 in SHA256.items()}
    remote = {f"{HOME}/{name}": sha256 for name, sha256 in SHA256.items()}
    routes = {
        "the folder multi30k in $JAXLAB_DATA": packages.local(local, decompress=True),
        f"the internet ({HOME})": packages.internet(remote, decompress=True),
    }
    return fetching.first_that_works("multi30k", folder, routes)


def read_pairs(first: Path, second: Path) -> list[tuple[str, str]]:
    """Return the lines of two gzipped files, side by side.

    Raises:
      DataError: a file is absent or damaged, or they have different numbers of lines; names the file.
    """
    lines, others = _lines(first), _lines(second)
    if len(lines) != len(others):
        raise DataError(f"{second}: {len(others)} lines; {first.name} has {len(lines)}")
    return list(zip(lines, others, strict=True))


def _lines(path: Path) -> list[str]:
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a complete gzip file: {error}") from error
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start} of its content") from error
    # Not splitlines: captions hold characters that it takes for line ends too.
    return text.removesuffix("\n").split("\n")
