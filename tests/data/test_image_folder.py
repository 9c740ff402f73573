"""Folders of pictures: what is decoded is what was saved, whichever way it is served; bad folders are explained."""

import logging
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import image_folder
from jaxlab.data.arrays import ArraySource
from jaxlab.data.cache import CACHE
from jaxlab.data.image_folder import make
from jaxlab.data.picture import decode

H, W = 6, 5
WAYS = pytest.mark.parametrize("in_memory_bytes", [2**32, 0])


def pixels(seed, shape=(H, W, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three pictures of two classes, and a cache of the user that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for seed, name in enumerate(("cat/0.png", "cat/1.png", "dog/0.png")):
        save(tmp_path / "pets" / name, pixels(seed))
    (tmp_path / "pets" / ".DS_Store").write_text("x")
    return tmp_path / "pets"


def everything(source):
    return source.__getitems__(np.arange(len(source)))


@WAYS
def test_pictures_of_the_right_size_come_back_byte_by_byte_in_the_order_of_class_and_name(folder, in_memory_bytes):
    source = make(str(folder), (H, W), in_memory_bytes=in_memory_bytes)
    rows = everything(source)
    assert isinstance(source, ArraySource) == (in_memory_bytes > 0)
    np.testing.assert_array_equal(rows["image"], [pixels(0), pixels(1), pixels(2)])
    assert rows["label"].tolist() == [0, 0, 1]
    for name, values in rows.items():
        assert values.dtype == source.spec.example[name].dtype
        assert values.shape[1:] == source.spec.example[name].shape
    assert source.spec.classes == ("cat", "dog")
    assert source.spec.meta["files"] == ("cat/0.png", "cat/1.png", "dog/0.png")
    assert source.spec.meta["skipped"] == 0
    assert source.__getitems__(np.array([], int))["image"].shape == (0, H, W, 3)


@WAYS
def test_given_classes_decide_the_labels_and_may_name_more_than_there_are(folder, in_memory_bytes):
    source = make(str(folder), (H, W), classes=("dog", "cow", "cat"), in_memory_bytes=in_memory_bytes)
    assert everything(source)["label"].tolist() == [2, 2, 0]
    assert source.spec.classes == ("dog", "cow", "cat")


def test_both_ways_to_serve_agree_in_any_order_and_survive_pickling(folder):
    memory, disk = (make(str(folder), (4, 7), channels=1, in_memory_bytes=n) for n in (2**32, 0))
    rows = np.array([2, 0, 2])
    for source in (disk, pickle.loads(pickle.dumps(disk)), make(str(folder), (4, 7), channels=1)):
        for name, values in memory.__getitems__(rows).items():
            np.testing.assert_array_equal(source.__getitems__(rows)[name], values)
    assert disk.spec.example == memory.spec.example


def refuse_to_decode(*_):
    raise AssertionError("decoded again")


def test_the_second_opening_decodes_nothing_unless_a_file_or_an_option_changed(folder, monkeypatch):
    first = make(str(folder), (H, W))
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "decode", refuse_to_decode)
        second = make(str(folder), (H, W))
        assert second.spec == first.spec
        np.testing.assert_array_equal(everything(second)["image"], everything(first)["image"])
        with pytest.raises(DataError, match="decoded again"):
            make(str(folder), (H, W), channels=1)
    old = (folder / "dog/0.png").stat()
    save(folder / "dog/0.png", pixels(7))
    os.utime(folder / "dog/0.png", ns=(old.st_atime_ns, old.st_mtime_ns + 1))
    changed = make(str(folder), (H, W))
    np.testing.assert_array_equal(everything(changed)["image"][2], pixels(7))
    assert changed.spec.meta["fingerprint"] != first.spec.meta["fingerprint"]
    assert (folder.parent / CACHE).is_dir()
    assert len(make(str(folder.parent / "pets"), (H, W))) == 3


@WAYS
def test_the_fingerprint_is_that_of_the_content_not_of_the_place_or_the_time(folder, tmp_path, in_memory_bytes):
    shutil.copytree(folder, tmp_path / "elsewhere" / "pets")
    os.utime(tmp_path / "elsewhere/pets/cat/0.png", (0, 0))
    here, there = (make(str(p), (H, W), in_memory_bytes=in_memory_bytes) for p in (folder, tmp_path / "elsewhere/pets"))
    assert here.spec == there.spec


def test_where_nothing_can_be_written_beside_the_data_the_users_cache_is_used(folder, tmp_path, monkeypatch, caplog):
    (folder.parent / CACHE).write_text("a file where the cache would be")
    first = make(str(folder), (H, W))
    assert (tmp_path / "home" / "jaxlab").is_dir()
    monkeypatch.setattr(image_folder, "decode", refuse_to_decode)
    assert make(str(folder), (H, W)).spec == first.spec
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("nor here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert make(str(folder), (H, W)).spec == first.spec
    assert "could not be kept" in caplog.text


@WAYS
def test_a_corrupt_picture_is_named_with_its_index_or_left_out_and_counted(folder, in_memory_bytes, caplog):
    whole = (folder / "cat/1.png").read_bytes()
    (folder / "cat/1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dog/note.txt").write_text("no picture")
    with pytest.raises(DataError, match=r"example 1: .*cat/1\.png cannot be read as a picture"):
        everything(make(str(folder), (H, W), in_memory_bytes=in_memory_bytes))
    for _ in range(2):  # decoded, then from the cache
        source = make(str(folder), (H, W), on_error="skip", in_memory_bytes=in_memory_bytes)
        np.testing.assert_array_equal(everything(source)["image"], [pixels(0), pixels(2)])
        assert everything(source)["label"].tolist() == [0, 1]
        assert source.spec.meta["files"] == ("cat/0.png", "dog/0.png")
        assert source.spec.meta["skipped"] == 2
    assert caplog.text.count("left out") == 2
    assert "dog/note.txt cannot be read as a picture: its format is none that Pillow knows" in caplog.text
    with pytest.raises(DataError, match="example 1"):  # what was skipped before is not forgiven
        everything(make(str(folder), (H, W), in_memory_bytes=in_memory_bytes))
    for name in ("cat/0.png", "dog/0.png"):
        (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match="none of its 4 files"):
        make(str(folder), (H, W), on_error="skip", in_memory_bytes=in_memory_bytes)


def test_folders_that_are_no_data_set_are_explained(folder, tmp_path):
    with pytest.raises(DataError, match=r"no such folder; did you mean 'pets'"):
        make(str(tmp_path / "pet"), (H, W))
    with pytest.raises(DataError, match=r"dog is a class folder, but 'dog' is not in classes; did you mean 'dogs'"):
        make(str(folder), (H, W), classes=("cat", "dogs"))
    (folder / "cat/more").mkdir()
    with pytest.raises(DataError, match="more is a folder within a class folder"):
        make(str(folder), (H, W))
    (folder / "cat/more").rename(folder / "empty")
    with pytest.raises(DataError, match="empty holds no pictures"):
        make(str(folder), (H, W))
    (folder / "readme.txt").write_text("x")
    with pytest.raises(DataError, match=r"readme\.txt lies beside class folders"):
        make(str(folder), (H, W))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="nothing is empty"):
        make(str(tmp_path / "nothing"), (H, W))
    (folder / "readme.txt").unlink()
    (folder / "empty").rmdir()
    (folder / "dog/1.png").symlink_to("nowhere")
    for in_memory_bytes in (2**32, 0):
        with pytest.raises(DataError, match=r"dog/1\.png"):
            assert make(str(folder), (H, W), in_memory_bytes=in_memory_bytes).spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (8,)}, r"size=\(8,\); expected \(height, width\)"),
        ({"size": (8, 0)}, "size="),
        ({"size": 8}, "size=8; expected"),
        ({"channels": 2}, "channels=2; expected 1"),
        ({"on_error": "ignore"}, "on_error='ignore'; expected 'raise' or 'skip'"),
        ({"classes": ("cat", "dog", "cat")}, "occurs twice"),
    ],
)
def test_wrong_options_are_refused(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        make(str(folder), **{"size": (H, W), **options})


def encoded(image, tmp_path, suffix="png", **options):
    save(tmp_path / f"one.{suffix}", image, **options)
    return (tmp_path / f"one.{suffix}").read_bytes()


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (30, 30), (11, 64)])
def test_a_picture_is_shrunk_to_cover_the_size_and_cropped_at_the_centre(tmp_path, height, width):
    ramp = ((np.arange(width) + 0.5) / width * 255)[None, :].repeat(height, axis=0).astype(np.uint8)
    found = decode(encoded(ramp, tmp_path), (10, 10), 1)[:, :, 0].astype(float)
    half = 255 / width * min(height, width) / 2  # the crop is as wide as the picture's shorter side
    expected = np.linspace(127.5 - half * 0.9, 127.5 + half * 0.9, 10)
    assert found.shape == (10, 10)
    np.testing.assert_allclose(found, np.broadcast_to(expected, (10, 10)), atol=4)


def test_turning_and_mirroring_commute_with_resizing(tmp_path):
    image = pixels(0, (24, 36, 3))
    plain = decode(encoded(image, tmp_path), (8, 6), 3).astype(int)
    mirrored = decode(encoded(image[:, ::-1], tmp_path), (8, 6), 3)
    turned = decode(encoded(image.transpose(1, 0, 2), tmp_path), (6, 8), 3)
    np.testing.assert_allclose(mirrored[:, ::-1], plain, atol=1)
    np.testing.assert_allclose(turned.transpose(1, 0, 2), plain, atol=1)


def test_every_kind_of_picture_becomes_the_channels_asked_for(tmp_path):
    grey, colour = pixels(0, (H, W)), pixels(1)
    np.testing.assert_array_equal(decode(encoded(grey, tmp_path), (H, W), 3), np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(decode(encoded(colour, tmp_path), None, 4)[..., 3], 255)
    clear = np.dstack([colour, np.where(np.arange(W) < 2, 0, 255).astype(np.uint8)[None].repeat(H, 0)])
    on_white = decode(encoded(clear, tmp_path), (H, W), 3)
    assert (on_white[:, :2] == 255).all()
    np.testing.assert_array_equal(on_white[:, 2:], colour[:, 2:])
    np.testing.assert_array_equal(decode(encoded(clear, tmp_path), (H, W), 4), clear)
    deep = (grey.astype(np.uint16) << 8) + 77
    np.testing.assert_array_equal(decode(encoded(deep, tmp_path), (H, W), 1)[..., 0], grey)
    with pytest.raises(ValueError, match="no fixed range"):
        decode(encoded(grey.astype(np.float32), tmp_path, "tiff"), (H, W), 1)


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    image, exif = pixels(0, (16, 24, 3)), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    found = decode(encoded(image, tmp_path, exif=exif), (24, 16), 3)
    np.testing.assert_array_equal(found, np.rot90(image, -1))


def test_decoding_is_logged_once(folder, caplog):
    with caplog.at_level(logging.INFO):
        make(str(folder), (H, W))
        make(str(folder), (H, W))
    assert caplog.text.count("decoding 3 pictures") == 1
