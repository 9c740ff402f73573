"""Tiny Shakespeare: 1,115,394 characters of Shakespeare's plays (Karpathy 2015), in nanoGPT's split.

Knows where its file is found and how it is written: a speech an example, with the blank line that ends it, so that the
texts of a split, joined in order, are that split's characters exactly: the first nine tenths, and the rest.
Usage: ``python scripts/prepare_data.py tinyshakespeare``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation import packages

FILE = "input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
HOME = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare"


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the speeches in the order of the file."""

    name = "tinyshakespeare"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{FILE}; `fetch` gets it."

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Speeches from Shakespeare's plays; joined in order they are the split's characters.",
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            homepage="https://github.com/karpathy/char-rnn",
            license="the text is in the public domain",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        train, valid = split(read(Path(dl_manager.manual_dir) / FILE))
        return {"train": self._generate_examples(train), "valid": self._generate_examples(valid)}

    def _generate_examples(self, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, speech in enumerate(speeches(text)):
            yield i, {"text": speech}


def fetch(folder: Path) -> str:
    """Put the file, verified, into `folder`, from the first place that has it; return which.

    Raises:
      DataError: no place has it; says for each why not.
    """
    routes = {
        "the folder tinyshakespeare in $JAXLAB_DATA": packages.local({f"tinyshakespeare/{FILE}": SHA256}),
        f"the internet ({HOME})": packages.internet({f"{HOME}/{FILE}": SHA256}),
    }
    return fetching.first_that_works("tinyshakespeare", folder, routes)


def read(path: Path) -> str:
    """Return the text of a file, its line ends as they are.

    Raises:
      DataError: not there, empty, or not UTF-8.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    if not text:
        raise DataError(f"{path}: is empty")
    return text


def split(text: str) -> tuple[str, str]:
    """Return the first nine tenths of the characters, rounded down, and the rest; as nanoGPT, mid-speech."""
    boundary = len(text) * 9 // 10
    return text[:boundary], text[boundary:]


def speeches(text: str) -> list[str]:
    """Return `text` cut after each blank line; joined, it is `text` again."""
    return [speech for speech in re.split(r"(?<=\n\n)(?!\n)", text) if speech]
