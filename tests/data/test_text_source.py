"""Texts read back as they were written: by line, by file and in pairs; what is not text is named by file and byte."""

import gzip
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data.pipeline import Batches
from jaxlab.data.text_source import documents, lines, parallel

LINE = st.text(st.characters(exclude_characters="\n\r", exclude_categories=("Cs",)), max_size=12)
SAME_FOLDER = [HealthCheck.function_scoped_fixture]  # each example writes the file anew


def everything(source):
    return source.__getitems__(np.arange(len(source)))


@settings(deadline=None, max_examples=60, suppress_health_check=SAME_FOLDER)
@given(st.lists(LINE, max_size=8), st.booleans(), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_any_unicode_comes_back_line_by_line_however_the_file_is_written(tmp_path, texts, ends, packed, newline):
    path = tmp_path / "a.txt"
    content = (newline.join(texts) + newline * ends).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    kept = [text for text in texts if text.strip()]
    if texts and texts[0].startswith("\ufeff"):
        kept = [text for text in [texts[0][1:], *texts[1:]] if text.strip()]
    if not kept:
        with pytest.raises(DataError, match="holds no text"):
            lines(str(path))
        return
    source = lines(str(path))
    assert everything(source)["text"].tolist() == kept
    assert source.spec.size == len(source) == len(kept)


def test_a_text_is_an_object_of_shape_nothing_until_a_transform_takes_it(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    source = lines(str(tmp_path / "a.txt"), field="sentence")
    assert source.spec.example["sentence"].shape == ()
    assert source.spec.example["sentence"].dtype == np.dtype(object)
    batch = Batches(pickle.loads(pickle.dumps(source)), (), 2, 0, training=False)[1]
    assert batch["sentence"].tolist() == ["three", "one"]
    assert batch["mask"].tolist() == [1, 0]


def test_a_pattern_reads_its_files_sorted_and_a_file_whose_name_looks_like_one_is_a_file(tmp_path):
    for name in ("b.txt", "a.txt", "deep/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name} 1\n\n{name} 2")
    source = lines(str(tmp_path / "**" / "*.txt"))
    assert everything(source)["text"].tolist() == [f"{n} {i}" for n in ("a.txt", "b.txt", "deep/c.txt") for i in (1, 2)]
    assert source.spec.meta["dropped"] == 3
    assert len(source.spec.meta["files"]) == 3
    (tmp_path / "[x].txt").write_text("odd")
    assert everything(lines(str(tmp_path / "[x].txt")))["text"].tolist() == ["odd"]


def test_labels_stay_with_their_lines_when_blank_lines_are_left_out(tmp_path):
    (tmp_path / "text").write_text("good one\n \nbad one\ngood two\n")
    (tmp_path / "label").write_text("good\ngood\nbad\ngood\n")
    source = lines(str(tmp_path / "text"), label=str(tmp_path / "label"))
    rows = everything(source)
    assert source.spec.classes == ("bad", "good")
    assert [source.spec.classes[i] for i in rows["label"]] == [text.split()[0] for text in rows["text"]]
    turned = lines(str(tmp_path / "text"), label=str(tmp_path / "label"), classes=("good", "bad"))
    assert everything(turned)["label"].tolist() == [0, 1, 0]
    assert turned.spec.meta["fingerprint"] != source.spec.meta["fingerprint"]
    with pytest.raises(DataError, match=r"class 'bad' of example 1 is not in classes; did you mean 'bat'"):
        lines(str(tmp_path / "text"), label=str(tmp_path / "label"), classes=("good", "bat"))
    (tmp_path / "label").write_text("good\nbad\n")
    with pytest.raises(DataError, match=r"has 4 lines, its labels .* have 2"):
        lines(str(tmp_path / "text"), label=str(tmp_path / "label"))


def test_the_fingerprint_is_of_the_content_not_of_its_place_or_packing(tmp_path):
    (tmp_path / "a").write_text("one\ntwo")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"one\ntwo"))
    (tmp_path / "c").write_text("one\ntwp")
    first, packed, other = (lines(str(tmp_path / n)).spec.meta["fingerprint"] for n in ("a", "b.gz", "c"))
    assert first == packed != other


@pytest.mark.parametrize("reader", [lines, lambda path: parallel(path, path), lambda path: documents(path[:-6])])
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_not_utf8_is_named_by_file_and_byte(tmp_path, reader, packed):
    content = "naïve\n".encode() + b"caf\xe9 au lait\n"
    (tmp_path / "a.txt").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=r"a\.txt: byte 10 \(0xe9, line 2\) is not UTF-8"):
        reader(str(tmp_path / "a.txt"))


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "corpus.txt").write_text("x")
    with pytest.raises(DataError, match=r"corpsu\.txt: no such file; did you mean 'corpus\.txt'"):
        lines(str(tmp_path / "corpsu.txt"))
    with pytest.raises(DataError, match="a folder; expected a file"):
        lines(str(tmp_path))
    with pytest.raises(DataError, match="no such file"):
        lines(str(tmp_path / "nowhere" / "*.txt"))
    packed = gzip.compress(b"some text that is long enough" * 20)
    for broken in (packed[:-5], packed[:20] + b"\xff\xff\xff" + packed[23:]):
        (tmp_path / "cut.gz").write_bytes(broken)
        with pytest.raises(DataError, match=r"cut\.gz: not a whole gzip file"):
            lines(str(tmp_path / "cut.gz"))
    with pytest.raises(ConfigError, match="without labels"):
        lines(str(tmp_path / "corpus.txt"), classes=("a",))
    with pytest.raises(ConfigError, match="labels' own name"):
        lines(str(tmp_path / "corpus.txt"), field="label", label=str(tmp_path / "corpus.txt"))
    with pytest.raises(ConfigError, match="occurs twice"):
        lines(str(tmp_path / "corpus.txt"), label=str(tmp_path / "corpus.txt"), classes=("x", "x"))


def test_documents_are_whole_files_and_folders_their_classes(tmp_path):
    for name, text in {"neg/2.txt": "bad\nfilm", "pos/1.txt": "good\n", "pos/0.txt": " \n", "pos/note.md": "x"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    source = documents(str(tmp_path))
    assert everything(source)["text"].tolist() == ["bad\nfilm", "good\n"]
    assert everything(source)["label"].tolist() == [0, 1]
    assert source.spec.classes == ("neg", "pos")
    assert source.spec.meta["files"] == ("neg/2.txt", "pos/1.txt")
    assert source.spec.meta["dropped"] == 1
    assert everything(documents(str(tmp_path), classes=("pos", "neg")))["label"].tolist() == [1, 0]
    with pytest.raises(DataError, match="class 'neg' of example 0 is not in classes"):
        documents(str(tmp_path), classes=("pos",))
    flat = documents(str(tmp_path / "neg"))
    assert everything(flat).keys() == {"text"}
    (tmp_path / "lone.txt").write_text("x")
    with pytest.raises(DataError, match=r"lone\.txt lies beside class folders"):
        documents(str(tmp_path))


def test_folders_without_texts_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no \.txt file"):
        documents(str(tmp_path))
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no text"):
        documents(str(tmp_path))
    with pytest.raises(DataError, match="no such folder"):
        documents(str(tmp_path / "nowhere"))


PAIR = st.tuples(LINE.filter(lambda text: not text.startswith("\ufeff")), LINE)


@settings(deadline=None, max_examples=60, suppress_health_check=SAME_FOLDER)
@given(st.lists(PAIR, min_size=1, max_size=8))
def test_pairs_stay_aligned_and_half_empty_ones_are_dropped_and_counted(tmp_path, pairs):
    pairs = [(f"s{source}" if place == 0 else source, f"t{target}") for place, (source, target) in enumerate(pairs)]
    for side, name in enumerate(("en", "de")):
        (tmp_path / name).write_bytes("".join(pair[side] + "\n" for pair in pairs).encode())
    source = parallel(str(tmp_path / "en"), str(tmp_path / "de"), fields=("en", "de"))
    rows = everything(source)
    kept = [pair for pair in pairs if pair[0].strip() and pair[1].strip()]
    assert list(zip(rows["en"], rows["de"], strict=True)) == kept
    assert source.spec.meta["dropped"] == len(pairs) - len(kept)


def test_texts_that_are_not_parallel_are_refused_with_both_counts(tmp_path):
    (tmp_path / "en").write_text("a\nb\nc\n")
    (tmp_path / "de").write_text("x\ny")
    with pytest.raises(DataError, match=r"en has 3 lines, .*de has 2"):
        parallel(str(tmp_path / "en"), str(tmp_path / "de"))
    (tmp_path / "de").write_text("\n\n\n")
    with pytest.raises(DataError, match="no pair of lines"):
        parallel(str(tmp_path / "en"), str(tmp_path / "de"))
    for fields in (("a", "a"), ("a",)):
        with pytest.raises(ConfigError, match="two different names"):
            parallel(str(tmp_path / "en"), str(tmp_path / "en"), fields)
