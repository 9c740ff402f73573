"""LibreOffice Help 7.4: English–German pairs of paragraphs and headings, aligned by their ids in the HTML pages.

Knows where its pages are found, how paragraphs are read and which are left out; pairs keep the order of files' names,
then of paragraphs. Split by file: pages repeat themselves with small changes, so a random split would leak.
Usage: ``python scripts/prepare_data.py lohelp_en_de``.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation.hash_split import SPLITS, split_of

ARCHIVE = "https://snapshot.debian.org/file"  # keeps every version of every package, by the file's SHA-1
HELP = "usr/share/libreoffice/help"


class Pages(NamedTuple):
    """The pages of one language: their folder in the help, and the package of version 7.4.7-1+deb12u14 with them."""

    folder: str
    package: str
    package_sha1: str
    sha256: str  # of all pages, by `pages_hash`


PAGES = {
    "en": Pages(
        "en-US",
        "libreoffice-help-en-us",
        "d4ccd840972b4de88129de9268cfdde5fa039296",
        "c3facd77137dfddeff50740842104cdc173ce399bb9b22e273806ddf2b8bf964",
    ),
    "de": Pages(
        "de",
        "libreoffice-help-de",
        "6a62f9640b0a2745fbcebeb2c1a9e448d3388138",
        "24572dea0595f4c195cf5452306d3692f392ce339efce8b7fbe2e0fb1fcd40da",
    ),
}
# The pages are generated, so tags are written in one way; a parser of all HTML takes eight times as long.
_PARAGRAPH = re.compile(r'<(p|h[1-6])\b[^>]*\bid="((?:par|hd)_[^"]*)"[^>]*>(.*?)</\1>', re.DOTALL)


class Pair(NamedTuple):
    """A paragraph in both languages and the file that it stands in."""

    en: str
    de: str
    file: str


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the pairs in the order of files and paragraphs."""

    name = "lohelp_en_de"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folders en and de with the HTML pages; `fetch` gets them."

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Paragraphs of LibreOffice's help in English and German; whole files are held out.",
            features=tfds.features.FeaturesDict({name: tfds.features.Text() for name in Pair._fields}),
            supervised_keys=("en", "de"),
            homepage="https://help.libreoffice.org",
            license="MPL-2.0",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = Path(dl_manager.manual_dir)
        splits = divided(read_pairs(folder / "en", folder / "de"))
        return {split: self._generate_examples(found) for split, found in splits.items()}

    def _generate_examples(self, found: list[Pair]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, pair in enumerate(found):
            yield i, pair._asdict()


def fetch(folder: Path) -> str:
    """Put the pages, verified, into the folders ``en`` and ``de`` of `folder`; return where from.

    Raises:
      DataError: no place has them in this version; says for each why not.
    """
    routes = {
        "the folder libreoffice-help in $JAXLAB_DATA": _from_environment,
        f"the internet ({ARCHIVE})": _unpacked(
            lambda pages, stage: fetching.download(f"{ARCHIVE}/{pages.package_sha1}", stage / f"{pages.package}.deb")
        ),
        f"the Debian packages {' and '.join(pages.package for pages in PAGES.values())}": _unpacked(
            lambda pages, stage: fetching.debian_package(pages.package, stage)
        ),
    }
    return fetching.first_that_works("lohelp_en_de", folder, routes)


def read_pairs(english: Path, german: Path) -> list[Pair]:
    """Return the pairs of paragraphs with the same id on the same page of both folders, each pair once.

    Left out: ids with several texts on a page, and paragraphs that are alike in both languages: code, numbers, names.

    Raises:
      DataError: no pages, one that German lacks, or one that is not complete.
    """
    found: dict[tuple[str, str], str] = {}
    files = sorted(path.relative_to(english).as_posix() for path in english.rglob("*.html"))
    if not files:
        raise DataError(f"{english}: holds no HTML pages")
    for file in files:
        others = _paragraphs(german / file)
        for key, text in _paragraphs(english / file).items():
            other = others.get(key)
            if text and other and text != other:
                found.setdefault((text, other), file)
    return [Pair(text, other, file) for (text, other), file in found.items()]


def divided(found: list[Pair]) -> dict[str, list[Pair]]:
    """Return the pairs by split: 90, 5 and 5 % of the files; what is held out repeats no text of ``train``."""
    splits: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for pair in found:
        splits[split_of(pair.file, valid=5, test=5)].append(pair)
    known = {text for pair in splits["train"] for text in pair[:2]}
    for split in ("valid", "test"):
        splits[split] = [pair for pair in splits[split] if not known.intersection(pair[:2])]
    return splits


def pages_hash(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of the pages below `folder`."""
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html")):
        content = (folder / name).read_bytes()
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _paragraphs(path: Path) -> dict[str, str]:
    """Return the text of each paragraph and heading by its id, empty where the id has several texts."""
    try:
        page = path.read_bytes().decode()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    if not page.rstrip().endswith("</html>"):
        raise DataError(f"{path}: the page ends early, after {len(page)} characters")
    texts: dict[str, str] = {}
    for _, key, content in _PARAGRAPH.findall(page):
        spaced = re.sub(r"<br\b[^>]*>", " ", content)
        text = " ".join(html.unescape(re.sub(r"<[^>]*>", "", spaced)).split())
        texts[key] = text if texts.get(key, text) == text else ""
    return texts


def _verified(folder: Path, pages: Pages) -> None:
    found = pages_hash(folder)
    if found != pages.sha256:
        raise fetching.FetchError(f"the pages of {pages.package} are of another version: their hash is {found}")


def _from_environment(folder: Path) -> None:
    root = os.environ.get("JAXLAB_DATA")
    if not root:
        raise fetching.FetchError("the environment variable JAXLAB_DATA is not set")
    for language, pages in PAGES.items():
        source = Path(root, "libreoffice-help", pages.folder, "text")
        if not source.is_dir():
            raise fetching.FetchError(f"{source} does not exist")
        _verified(Path(shutil.copytree(source, folder / language)), pages)


def _unpacked(package: Callable[[Pages, Path], Path]) -> fetching.Route:
    def route(folder: Path) -> None:
        for language, pages in PAGES.items():
            with tempfile.TemporaryDirectory(dir=folder) as stage:
                inside = f"{HELP}/{pages.folder}/text"
                fetching.unpack_deb(package(pages, Path(stage)), Path(stage), inside)
                Path(stage, inside).rename(folder / language)
            _verified(folder / language, pages)

    return route
