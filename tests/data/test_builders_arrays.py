"""Each builder reads its carrier's format, from small files of our own, and its splits share nothing they must not."""

import gzip
import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data import builders
from jaxlab.data.builders import cifar10, emoji32, ml100k, mnist5k, protein, shuttle
from jaxlab.data.preparation.prepare import find_builder, prepare

GENERATOR = np.random.default_rng(0)


@pytest.fixture
def carrier(tmp_path):
    (tmp_path / "carrier").mkdir()
    return tmp_path / "carrier"


def prepared(module, carrier, monkeypatch):
    """Prepare the data set of `module` from the files in `carrier`; return each split's fields, stacked."""

    def fetch(folder):
        shutil.copytree(carrier, folder, dirs_exist_ok=True)
        return "the test"

    monkeypatch.setattr(module, "fetch", fetch)
    result = prepare(module.Builder.name, carrier.parent / "data")
    builder = tfds.builder_from_directory(result["path"])
    splits = {}
    for split, size in result["splits"].items():
        rows = builder.as_data_source(split).__getitems__(range(size))
        splits[split] = {field: np.array([row[field] for row in rows]) for field in rows[0]}
    return splits


def pack(path, files):
    with tarfile.open(path, "w:xz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_each_builder_says_what_it_is():
    for name in builders.names():
        builder = find_builder(name)
        assert builder.name == name
        assert builder.MANUAL_DOWNLOAD_INSTRUCTIONS


def test_mnist5k_splits_each_class_and_mixes_them(carrier, monkeypatch):
    labels_N = np.repeat(np.arange(10), 5)
    rows_ND = np.concatenate([GENERATOR.integers(0, 256, (50, 784)), labels_N[:, None]], axis=1)
    with gzip.open(carrier / mnist5k.FILE, "wt") as file:
        np.savetxt(file, rows_ND, "%d", ",")
    splits = prepared(mnist5k, carrier, monkeypatch)
    for split, firsts in {"train": range(4), "test": range(4, 5)}.items():
        assert splits[split]["label"].tolist() == list(range(10)) * len(firsts)
        expected = rows_ND[[5 * digit + first for first in firsts for digit in range(10)], :-1]
        np.testing.assert_array_equal(splits[split]["image"].reshape(-1, 784), expected)


def make_emoji(carrier, count):
    """Write `count` emoji, every third with a variant; the cell (x, y) has the colour (x, y, 200), half of it clear."""
    from PIL import Image

    emoji, place = [], 0
    for i in range(count):
        found = {"unified": f"1F{i:03X}", "has_img_twitter": True, "category": emoji32.CLASSES[i % 9]}
        parts = [found]
        if i % 3 == 0:
            parts.append({"unified": f"{found['unified']}-1F3FB", "has_img_twitter": True})
            found["skin_variations"] = {"1F3FB": parts[1]}
        for part in parts:
            part["sheet_x"], part["sheet_y"] = divmod(place, 16)
            place += 1
        emoji.append(found)
    emoji.append({**emoji[0], "category": "Component"})
    emoji.append({**emoji[1], "has_img_twitter": False})
    sheet_HWC = np.zeros((16 * 34, 16 * 34, 4), np.uint8)
    for x, y in np.ndindex(16, 16):
        sheet_HWC[y * 34 + 1 : y * 34 + 33, x * 34 + 1 : x * 34 + 17] = (x, y, 200, 255)
    Image.fromarray(sheet_HWC).save(carrier / "32.png")
    (carrier / "emoji.json").write_text(json.dumps(emoji))
    return place


def test_emoji_are_cut_out_and_groups_stay_together(carrier, monkeypatch):
    count = make_emoji(carrier, 90)
    splits = prepared(emoji32, carrier, monkeypatch)
    images_NHWC = np.concatenate([rows["image"] for rows in splits.values()])
    places = {(int(x), int(y)) for x, y, blue in images_NHWC[:, 0, 0] if blue == 200}
    assert places == {divmod(place, 16) for place in range(count)}
    assert len(images_NHWC) == count
    assert (images_NHWC[:, :, :16] == images_NHWC[:, :1, :1]).all()
    assert (images_NHWC[:, :, 16:] == 255).all()  # clear pixels become white
    groups = [set(rows["group"].tolist()) for rows in splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 90
    for rows in splits.values():  # of one group all have one class
        assert len({*zip(rows["group"].tolist(), rows["label"].tolist(), strict=True)}) == len(
            set(rows["group"].tolist())
        )


def test_emoji_that_differ_by_sex_are_one_group():
    same = ["1F468-200D-1F33E", "1F469-200D-1F33E", "1F9D1-200D-1F33E"]
    assert len({emoji32.group_of(code) for code in same}) == 1
    assert emoji32.group_of("1F3C3-200D-2640-FE0F") == emoji32.group_of("1F3C3") != emoji32.group_of("1F3C4")
    assert emoji32.group_of("1F46A") == emoji32.group_of("1F468-200D-1F469-200D-1F466")


def test_cifar10_decodes_and_mixes_classes(carrier, monkeypatch):
    from PIL import Image

    files = {"readme.md": b""}
    for split, per_class in (("train", 3), ("test", 2)):
        for label, name in enumerate(cifar10.CLASSES):
            for number in range(per_class):
                file = io.BytesIO()
                Image.new("RGB", (32, 32), (20 * label, 50 * number, 7)).save(file, "JPEG", quality=100)
                files[f"{split}/{name}/{number:04d}.jpg"] = file.getvalue()
    pack(carrier / "a.tar.xz", files)
    splits = prepared(cifar10, carrier, monkeypatch)
    for split, per_class in (("train", 3), ("test", 2)):
        rows = splits[split]
        assert rows["label"].tolist() == list(range(10)) * per_class
        expected = [(20 * label, 50 * number, 7) for number in range(per_class) for label in range(10)]
        error = np.abs(rows["image"].astype(int) - np.array(expected)[:, None, None])
        assert rows["image"].shape == (10 * per_class, 32, 32, 3)
        assert error.max() <= 4


def test_cifar10_names_the_file_that_is_no_image():
    with pytest.raises(DataError, match=r"cat/0007\.jpg"):
        cifar10.decode(b"no image", "cat/0007.jpg")


def test_protein_splits_by_block_and_leaves_row_numbers_out(carrier, monkeypatch):
    import pandas

    columns = {
        protein.GROUP: np.repeat(np.arange(40), 5),
        protein.ROW: np.arange(200),
        protein.LABEL: np.arange(200) % 9 == 0,
    }
    columns |= {name: GENERATOR.normal(size=200) for name in protein.FEATURES}
    table = pandas.DataFrame(columns).astype({protein.LABEL: int})
    table.to_parquet(carrier / protein.FILE, compression="brotli")
    splits = prepared(protein, carrier, monkeypatch)
    groups = [set(rows["group"].tolist()) for rows in splits.values()]
    assert set.union(*groups) == set(range(40))
    assert sum(map(len, groups)) == 40
    for rows in splits.values():
        expected = table[table[protein.GROUP].isin(rows["group"])]
        np.testing.assert_array_equal(rows["features"], expected[list(protein.FEATURES)].to_numpy(np.float32))
        np.testing.assert_array_equal(rows["label"], expected[protein.LABEL])


def test_ml100k_leaves_each_users_last_ratings_out(carrier, monkeypatch):
    ratings = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    items = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    users = ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
    for item in range(1, 8):
        items.append(f'{item}\tA "quoted title\t1995\t{ml100k.GENRES[item]} Comedy unknown')
        ratings += [
            f"{user}\t{item}\t{1 + (user + item) % 5}\t{1000 + 10 * ((item * user) % 7) + user}" for user in (1, 2, 3)
        ]
    users += [f"{user}\t{20 + user}\tF\t{ml100k.OCCUPATIONS[user]}\t8571{user}" for user in (1, 2, 3)]
    for name, lines in (("inter", ratings), ("item", items), ("user", users)):
        (carrier / f"ml-100k.{name}").write_text("\n".join(lines) + "\n")
    splits = prepared(ml100k, carrier, monkeypatch)
    assert {split: len(rows["user"]) for split, rows in splits.items()} == {"train": 15, "valid": 3, "test": 3}
    for user in range(3):
        times = [rows["time"][rows["user"] == user] for rows in splits.values()]
        assert times[0].max() < times[1].item() < times[2].item()
    every = {field: np.concatenate([rows[field] for rows in splits.values()]) for field in splits["train"]}
    assert len({*zip(every["user"].tolist(), every["item"].tolist(), strict=True)}) == 21
    np.testing.assert_array_equal(every["rating"], 1 + (every["user"] + every["item"] + 2) % 5)
    np.testing.assert_array_equal(every["user_age"], 21 + every["user"])
    np.testing.assert_array_equal(every["user_occupation"], 1 + every["user"])
    comedy = ml100k.GENRES.index("Comedy")
    for item, genres in zip(every["item"], every["item_genres"], strict=True):
        assert set(np.flatnonzero(genres)) == {item + 1, comedy}
    for rows in splits.values():
        assert (np.diff(rows["time"]) >= 0).all()


def test_shuttle_puts_equal_rows_into_one_split(carrier, monkeypatch):
    values = [f"{i},-2,77,0,28,0,27,48,22,{int(i % 14 == 0)}" for i in range(60)] * 2
    with gzip.open(carrier / shuttle.FILE, "wt") as file:
        file.write("\n".join([",".join(f"f{i}" for i in range(1, 10)) + ",anomaly", *values]) + "\n")
    splits = prepared(shuttle, carrier, monkeypatch)
    firsts = [rows["features"][:, 0].astype(int).tolist() for rows in splits.values()]
    assert sorted(first for found in firsts for first in found) == sorted([*range(60)] * 2)
    assert sum(len(set(found)) for found in firsts) == 60
    for rows in splits.values():
        np.testing.assert_array_equal(rows["label"], rows["features"][:, 0] % 14 == 0)
        np.testing.assert_array_equal(rows["features"][:, 1], -2)


@pytest.mark.slow
def test_the_real_mnist5k_is_balanced(tmp_path):
    try:
        result = prepare("mnist5k", tmp_path)
    except DataError as error:
        if "SHA-256" in str(error):  # the file came, and is another
            raise
        pytest.skip(f"no route to the file from here: {error}")
    assert result["splits"] == {"train": 4000, "test": 1000}
    rows = tfds.builder_from_directory(result["path"]).as_data_source("train").__getitems__(range(4000))
    assert np.bincount([row["label"] for row in rows]).tolist() == [400] * 10
    # Ones have the least ink and noughts the most, so images belong to their labels.
    ink = [np.mean([row["image"].mean() for row in rows if row["label"] == digit]) for digit in range(10)]
    assert (np.argmin(ink), np.argmax(ink)) == (1, 0)
