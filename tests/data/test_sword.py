"""A module of the true format is read back as it was written; the markup leaves only the words; damage is named."""

import struct
import zlib

import pytest

from jaxlab.core.errors import DataError
from jaxlab.data.preparation import sword

GENESIS = ("Gen", [["In the beginning. ", "And the earth. "], ["Thus the heavens. "]])
EXODUS = ("Exod", [["Now these are the names. "]])
MATTHEW = ("Matt", [["The book. ", "", "And Jacob. "]])


def write_module(folder, old=(GENESIS, EXODUS), new=(MATTHEW,)):
    """Write books, each a name and its chapters' verses, as osis2mod does: a block a book, an empty first entry."""
    folder.mkdir(parents=True, exist_ok=True)
    for testament, books in (("ot", old), ("nt", new)):
        blocks, entries = [b'<milestone type="x-importer"/>'], [(0, 0, 0), (0, 0, 30)]
        for name, chapters in books:
            pieces = [f'<div canonical="true" osisID="{name}" sID="g1" type="book"/> <title>{name}</title>']
            for number, verses in enumerate(chapters, 1):
                pieces.append(f'<chapter n="{number}" osisID="{name}.{number}" sID="{name}.{number}"/> ')
                pieces += [*verses[:-1], verses[-1] + f'<chapter eID="{name}.{number}"/>']
            pieces[-1] += f'<div canonical="true" eID="g1" osisID="{name}" type="book"/>'
            content = b""
            for piece in pieces:
                entries.append((len(blocks), len(content), len(piece.encode())) if piece else (0, 0, 0))
                content += piece.encode()
            blocks.append(content)
        table, packed = b"", b""
        for block in blocks:
            small = zlib.compress(block)
            table += struct.pack("<III", len(packed), len(small), len(block))
            packed += small
        (folder / f"{testament}.bzs").write_bytes(table)
        (folder / f"{testament}.bzz").write_bytes(packed)
        (folder / f"{testament}.bzv").write_bytes(b"".join(struct.pack("<IIH", *entry) for entry in entries))
    return folder


def test_verses_come_in_order_with_their_places_and_empty_ones_keep_theirs(tmp_path):
    assert sword.read(write_module(tmp_path)) == [
        ("Gen", 1, 1, "In the beginning."),
        ("Gen", 1, 2, "And the earth."),
        ("Gen", 2, 1, "Thus the heavens."),
        ("Exod", 1, 1, "Now these are the names."),
        ("Matt", 1, 1, "The book."),
        ("Matt", 1, 2, ""),
        ("Matt", 1, 3, "And Jacob."),
    ]


def test_long_verses_and_other_scripts_survive(tmp_path):
    text = " ".join(f"{i} ¿cazarás Ωλ" for i in range(3000))
    assert sword.read(write_module(tmp_path, [("Gen", [[text]])]))[0].text == text


@pytest.mark.parametrize(
    ("markup", "words"),
    [
        ('In the <w lemma="strong:H7225">beginning</w> <w lemma="H1">God</w>. ', "In the beginning God."),
        ("it was good:<note placement='foot'><reference>1.4 </reference>Heb. x</note> and", "it was good: and"),
        ('<title canonical="true" type="psalm">A <w>Psalm</w>.</title><l/>LORD, how', "A Psalm. LORD, how"),
        ("<title><foreign>BETH.</foreign></title> Wherewithal", "Wherewithal"),
        ('<div type="x-p"/> ¶ And <divineName><w>God</w></divineName> said', "And God said"),
        ("my name \\nd <w>JEHOVAH</w></divineName> was I", "my name JEHOVAH was I"),
        ('one<lb type="x-p"/>two <l level="1" eID="g"/>three', "one two three"),
        ("wife&apos;s &amp; <q>\n child</q>", "wife's & child"),
        ("", ""),
    ],
)
def test_markup_leaves_only_the_words(markup, words):
    assert sword.plain(markup) == words


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("ot.bzz", lambda b: b[:-4], r"ot\.bzz: ends at byte \d+, inside block 2"),
        ("nt.bzz", lambda b: b[:50] + b"\0\0\0\0" + b[54:], r"nt\.bzz: block 1 at byte \d+ is damaged"),
        ("ot.bzs", lambda b: b[:-1], r"ot\.bzs: 35 bytes; expected rows of 12"),
        ("ot.bzs", lambda b: b[:-4] + b"\1\0\0\0", r"ot\.bzz: block 2 holds \d+ bytes; its table says 1"),
        ("nt.bzv", lambda b: b[:-3], r"nt\.bzv: \d+ bytes; expected rows of 10"),
        ("nt.bzv", lambda b: b"", r"nt\.bzv: 0 bytes"),
        ("nt.bzv", lambda b: b[:-2] + b"\xff\xff", r"nt\.bzv: entry 6 lies outside its block 1"),
        ("ot.bzv", lambda b: b[:-10] + b"\x09" + b[-9:], r"ot\.bzv: entry 10 lies outside its block 9"),
        ("ot.bzv", lambda b: b[:20] + b[30:], r"ot\.bzv: entry 2 begins Gen 1 after nothing 0"),
        ("ot.bzv", lambda b: b[:30] + b[40:], r"ot\.bzv: entry 3 is a verse before any chapter"),
        ("ot.bzv", lambda b: b[:60] + b[70:90] + b[60:70] + b[90:], r"ot\.bzv: entry 8 begins Gen 2 after Exod 0"),
    ],
)
def test_damage_is_named(tmp_path, file, damage, message):
    path = write_module(tmp_path) / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        sword.read(tmp_path)


def test_missing_file_unknown_book_and_other_encodings_are_named(tmp_path):
    write_module(tmp_path, old=[("Tob", [["x"]])])
    with pytest.raises(DataError, match=r"ot\.bzv: entry 2 begins the book 'Tob'"):
        sword.read(tmp_path)
    write_module(tmp_path, old=[("Gen", [["caf\u00e9 noir"]])])
    path = tmp_path / "ot.bzv"
    path.write_bytes(path.read_bytes()[:-10] + struct.pack("<IIH", 1, content_offset(tmp_path, "é"), 5))
    with pytest.raises(DataError, match=r"ot\.bzz: entry 4 is not UTF-8 at its byte 0"):
        sword.read(tmp_path)
    (tmp_path / "nt.bzs").unlink()
    write_module(tmp_path / "whole")
    (tmp_path / "whole" / "nt.bzs").unlink()
    with pytest.raises(DataError, match=r"nt\.bzs: cannot be read: No such file"):
        sword.read(tmp_path / "whole")


def content_offset(folder, letter):
    """Return where the second byte of `letter` lies in the first book's block, which is no beginning of a letter."""
    _, _, _, start, size, _ = struct.unpack("<IIIIII", (folder / "ot.bzs").read_bytes())
    return zlib.decompress((folder / "ot.bzz").read_bytes()[start : start + size]).index(letter.encode()) + 1


def test_books_are_sixty_six_with_distinct_names():
    assert len(sword.BOOKS) == len(set(sword.BOOKS.values())) == 66
    assert list(sword.BOOKS)[38:40] == ["Mal", "Matt"]
