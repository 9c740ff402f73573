"""Reads Bibles from SWORD modules of the kind zText: zlib blocks of OSIS markup, found through two index files.

Knows no edition and where none comes from. A module is six files: ``{ot,nt}.bz{s,v,z}``, the table of blocks, the table
of entries and the blocks of either testament. Usage: ``read(Path("engKJV2006eb"))[0].text``.
"""

from __future__ import annotations

import html
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxlab.core.errors import DataError

TESTAMENTS = ("ot", "nt")
FILES = tuple(f"{testament}.bz{kind}" for testament in TESTAMENTS for kind in "svz")
BOOKS = {  # OSIS's name of a book to its English one, in the order of the King James Bible
    "Gen": "Genesis",
    "Exod": "Exodus",
    "Lev": "Leviticus",
    "Num": "Numbers",
    "Deut": "Deuteronomy",
    "Josh": "Joshua",
    "Judg": "Judges",
    "Ruth": "Ruth",
    "1Sam": "1 Samuel",
    "2Sam": "2 Samuel",
    "1Kgs": "1 Kings",
    "2Kgs": "2 Kings",
    "1Chr": "1 Chronicles",
    "2Chr": "2 Chronicles",
    "Ezra": "Ezra",
    "Neh": "Nehemiah",
    "Esth": "Esther",
    "Job": "Job",
    "Ps": "Psalms",
    "Prov": "Proverbs",
    "Eccl": "Ecclesiastes",
    "Song": "Song of Solomon",
    "Isa": "Isaiah",
    "Jer": "Jeremiah",
    "Lam": "Lamentations",
    "Ezek": "Ezekiel",
    "Dan": "Daniel",
    "Hos": "Hosea",
    "Joel": "Joel",
    "Amos": "Amos",
    "Obad": "Obadiah",
    "Jonah": "Jonah",
    "Mic": "Micah",
    "Nah": "Nahum",
    "Hab": "Habakkuk",
    "Zeph": "Zephaniah",
    "Hag": "Haggai",
    "Zech": "Zechariah",
    "Mal": "Malachi",
    "Matt": "Matthew",
    "Mark": "Mark",
    "Luke": "Luke",
    "John": "John",
    "Acts": "Acts",
    "Rom": "Romans",
    "1Cor": "1 Corinthians",
    "2Cor": "2 Corinthians",
    "Gal": "Galatians",
    "Eph": "Ephesians",
    "Phil": "Philippians",
    "Col": "Colossians",
    "1Thess": "1 Thessalonians",
    "2Thess": "2 Thessalonians",
    "1Tim": "1 Timothy",
    "2Tim": "2 Timothy",
    "Titus": "Titus",
    "Phlm": "Philemon",
    "Heb": "Hebrews",
    "Jas": "James",
    "1Pet": "1 Peter",
    "2Pet": "2 Peter",
    "1John": "1 John",
    "2John": "2 John",
    "3John": "3 John",
    "Jude": "Jude",
    "Rev": "Revelation",
}

_BLOCK_BYTES = 2**26  # decompressed, at most; editions have some 100 kB
_BLOCK = struct.Struct("<III")  # offset in .bzz, size there, size when decompressed
_ENTRY = struct.Struct("<IIH")  # block, offset in the decompressed block, size
_BOOK_BEGINS = re.compile(r'<div [^>]*osisID="([^"]+)" sID=[^>]*type="book"')
_CHAPTER_BEGINS = re.compile(r'<chapter [^>]*osisID="([^"]+)\.(\d+)" sID=')
# Footnotes and the editors' headings go; titles of psalms are canonical, belong to verse 1, and stay.
_NOT_TEXT = re.compile(r'<note\b.*?</note>|<title\b(?![^>]*canonical="true").*?</title>|\\\+?[a-z]+[* ]', re.DOTALL)
_BREAKS = re.compile(r"</title>|<l[bg]?\b[^>]*>|¶")


class Verse(NamedTuple):
    """A verse, its book by OSIS's name; `text` is empty where the edition has none."""

    book: str
    chapter: int
    verse: int
    text: str


def read(folder: Path) -> list[Verse]:
    """Return the verses of the module in `folder`, in order, as plain text with single spaces.

    Raises:
      DataError: a file is absent or damaged, or the markup doesn't say where books and chapters begin.
    """
    return [verse for testament in TESTAMENTS for verse in _verses(folder, testament)]


def plain(markup: str) -> str:
    """Return the words of a piece of OSIS: no notes, headings, tags or paragraph signs, entities resolved."""
    spaced = _BREAKS.sub(" ", _NOT_TEXT.sub("", markup))
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", spaced)).split())


def _verses(folder: Path, testament: str) -> Iterator[Verse]:
    """Yield a testament's verses. Entries: two of the module, then each book's, each chapter's and its verses'."""
    path, book, chapter, number = folder / f"{testament}.bzv", "", 0, 0
    for i, markup in enumerate(_entries(folder, testament)):
        if i < 2:
            continue
        if begins := _BOOK_BEGINS.search(markup):
            book, chapter = begins[1], 0
            if book not in BOOKS:
                raise DataError(f"{path}: entry {i} begins the book {book!r}, which the King James Bible has not")
        elif begins := _CHAPTER_BEGINS.search(markup):
            if (begins[1], int(begins[2])) != (book, chapter + 1):
                raise DataError(f"{path}: entry {i} begins {begins[1]} {begins[2]} after {book or 'nothing'} {chapter}")
            chapter, number = chapter + 1, 0
        elif not chapter:
            raise DataError(f"{path}: entry {i} is a verse before any chapter")
        else:
            number += 1
            yield Verse(book, chapter, number, plain(markup))


def _entries(folder: Path, testament: str) -> Iterator[str]:
    """Yield the markup of each entry of a testament."""
    blocks = _blocks(folder, testament)
    path = folder / f"{testament}.bzv"
    for i, (block, offset, size) in enumerate(_ENTRY.iter_unpack(_table(path, _ENTRY.size))):
        if not size:
            yield ""
            continue
        if block >= len(blocks) or offset + size > len(blocks[block]):
            raise DataError(f"{path}: entry {i} lies outside its block {block}")
        try:
            yield blocks[block][offset : offset + size].decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{folder / testament}.bzz: entry {i} is not UTF-8 at its byte {error.start}") from error


def _blocks(folder: Path, testament: str) -> list[bytes]:
    path, blocks = folder / f"{testament}.bzz", []
    content = _content(path)
    for i, (offset, size, whole) in enumerate(_BLOCK.iter_unpack(_table(path.with_suffix(".bzs"), _BLOCK.size))):
        if offset + size > len(content):
            raise DataError(f"{path}: ends at byte {len(content)}, inside block {i}")
        try:
            blocks.append(
                zlib.decompressobj().decompress(content[offset : offset + size], min(whole, _BLOCK_BYTES) + 1)
            )
        except zlib.error as error:
            raise DataError(f"{path}: block {i} at byte {offset} is damaged: {error}") from error
        if len(blocks[-1]) != whole:
            raise DataError(f"{path}: block {i} holds {len(blocks[-1])} bytes; its table says {whole}")
    return blocks


def _table(path: Path, row: int) -> bytes:
    content = _content(path)
    if not content or len(content) % row:
        raise DataError(f"{path}: {len(content)} bytes; expected rows of {row}")
    return content


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
