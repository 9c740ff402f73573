"""Fetching tries each route and explains; preparing is atomic; the real Fashion-MNIST is what its authors say."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError
from jaxlab.data.builders import fashion_mnist, names
from jaxlab.data.preparation import fetch as fetching
from jaxlab.data.preparation.prepare import prepare
from jaxlab.data.tfds_source import make

CONTENT = b"seven\n\n"  # an odd length: ar pads it
SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_data.py"


class Small(tfds.core.GeneratorBasedBuilder):
    """Reads the numbers that `fetch` wrote."""

    name = "small_of_prepare_test"
    VERSION = tfds.core.Version("1.2.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "numbers.json"
    broken = False

    def _info(self):
        features = tfds.features.FeaturesDict({"label": tfds.features.Scalar(np.int64)})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        numbers = json.loads((Path(dl_manager.manual_dir) / "numbers.json").read_text())
        return {"train": self._generate_examples(numbers)}

    def _generate_examples(self, numbers):
        for i, number in enumerate(numbers):
            if self.broken and i == 2:
                raise OSError("disk full")
            yield i, {"label": number}


def fetch(folder):
    (folder / "numbers.json").write_text("[5, 3, 8]")
    return "the test"


def make_deb(path, compression="xz", inside="usr/share/x/seven.txt"):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{compression}") as tar:
        for name in (f"./{inside}", "./usr/share/doc/x/readme"):
            entry = tarfile.TarInfo(name)
            entry.size = len(CONTENT)
            tar.addfile(entry, io.BytesIO(CONTENT))
    content = b"!<arch>\n"
    for name, body in (("debian-binary", b"2.0"), (f"data.tar.{compression}", data.getvalue())):
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode() + body + b"\n" * (len(body) % 2)
        )
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("compression", ["xz", "gz"])
def test_deb_unpacks_what_is_asked_for_and_nothing_else(tmp_path, compression):
    fetching.unpack_deb(make_deb(tmp_path / "x.deb", compression), tmp_path, "usr/share/x")
    assert (tmp_path / "usr/share/x/seven.txt").read_bytes() == CONTENT
    assert not (tmp_path / "usr/share/doc").exists()


def test_ar_members_lie_where_they_are_said_to(tmp_path):
    path = make_deb(tmp_path / "x.deb")
    with path.open("rb") as file:
        members = fetching.ar_members(file)
        assert list(members) == ["debian-binary", "data.tar.xz"]
        file.seek(members["debian-binary"].offset)
        assert file.read(members["debian-binary"].size) == b"2.0"
    if shutil.which("ar"):
        listed = subprocess.run(["ar", "t", path], capture_output=True, text=True, check=True).stdout.split()
        assert listed == list(members)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b"x" + b[1:], "not an ar archive"),
        (lambda b: b[:-40], "ends early"),
        (lambda b: b[:40], "damaged"),
        (lambda b: b.replace(b"data.tar.xz", b"none.tar.xz"), "no data.tar"),
    ],
)
def test_damaged_deb_is_refused(tmp_path, damage, message):
    path = make_deb(tmp_path / "x.deb")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(fetching.FetchError, match=message):
        fetching.unpack_deb(path, tmp_path, "usr/share/x")


def test_deb_that_would_write_outside_is_refused(tmp_path):
    (tmp_path / "into").mkdir()
    path = make_deb(tmp_path / "x.deb", inside="usr/share/x/../../../../escaped")
    with pytest.raises(fetching.FetchError, match="outside"):
        fetching.unpack_deb(path, tmp_path / "into", "usr/share/x")
    assert not (tmp_path / "escaped").exists()


def test_verify_looks_through_gzip_and_refuses_another_hash(tmp_path):
    for level in (1, 9):
        (tmp_path / "a.gz").write_bytes(gzip.compress(CONTENT * 100, level))
        with pytest.raises(fetching.FetchError, match="expected 00"):
            fetching.verify(tmp_path / "a.gz", "00", decompress=True)
        fetching.verify(tmp_path / "a.gz", sha256_of(CONTENT * 100), decompress=True)
    (tmp_path / "a.gz").write_bytes(gzip.compress(CONTENT)[:-4])
    with pytest.raises(fetching.FetchError, match="not a complete gzip"):
        fetching.verify(tmp_path / "a.gz", sha256_of(CONTENT), decompress=True)


def sha256_of(content):
    return hashlib.sha256(content).hexdigest()


def test_failed_download_leaves_no_file(tmp_path):
    (tmp_path / "source").write_bytes(CONTENT)
    target = tmp_path / "target"
    with pytest.raises(fetching.FetchError, match=r"absent"):
        fetching.download((tmp_path / "absent").as_uri(), target)
    assert os.listdir(tmp_path) == ["source"]
    assert fetching.download((tmp_path / "source").as_uri(), target).read_bytes() == CONTENT


def test_routes_are_tried_in_order_and_each_finds_the_folder_empty(tmp_path):
    def half(folder):
        (folder / "half").write_text("")
        (folder / "below").mkdir()
        raise fetching.FetchError("it ended")

    def whole(folder):
        assert not list(folder.iterdir())
        (folder / "whole").write_text("")

    assert fetching.first_that_works("x", tmp_path, {"one": half, "two": whole, "three": half}) == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    (tmp_path / "whole").unlink()
    with pytest.raises(DataError, match=r"(?s)x: .*one: it ended.*three: it ended"):
        fetching.first_that_works("x", tmp_path, {"one": half, "three": half})


def test_idx_files_are_parsed(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(header + array.tobytes()))
    np.testing.assert_array_equal(fashion_mnist.read_idx(path), array)
    for content in (header + array.tobytes()[:-1], header[:2] + b"\x0d" + header[3:], b""):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match=r"a\.gz"):
            fashion_mnist.read_idx(path)


def test_prepared_once_and_then_left_alone(tmp_path, monkeypatch):
    first = prepare(f"{__name__}:Small", tmp_path)
    assert first["splits"] == {"train": 3}
    assert (first["source"], first["already_prepared"]) == ("the test", False)
    assert os.listdir(tmp_path) == ["small_of_prepare_test"]
    rows = make("small_of_prepare_test", data_dir=str(tmp_path)).__getitems__(np.arange(3))
    assert rows["label"].tolist() == [5, 3, 8]
    monkeypatch.setitem(globals(), "fetch", None)  # must not be called
    second = prepare(f"{__name__}:Small", tmp_path)
    assert second["already_prepared"]
    assert {**second, "already_prepared": False, "seconds": 0} == {**first, "seconds": 0}


def test_failed_preparation_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Small, "broken", True)
    with pytest.raises(DataError, match="disk full"):
        prepare(f"{__name__}:Small", tmp_path)
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().out


def test_unknown_name_gives_the_nearest(tmp_path):
    assert "fashion_mnist" in names()
    with pytest.raises(DataError, match="did you mean 'fashion_mnist'"):
        prepare("fashion-mnist", tmp_path)


@pytest.mark.slow
def test_script_prints_json_last_and_explains_failures(tmp_path):
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TFDS_DATA_DIR": str(tmp_path)}

    def run(*arguments):
        command = [sys.executable, str(SCRIPT), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = run("test_prepare:Small")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["dataset"], result["path"]) == (Small.name, str(tmp_path / Small.name / "1.2.0"))
    done = run("fashion_mnits", f"--data_dir={tmp_path}")
    assert done.returncode == DataError.exit_code == 2
    assert "did you mean 'fashion_mnist'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.slow
def test_fashion_mnist_is_balanced_and_named(tmp_path):
    if shutil.which("apt-get") is None and not os.environ.get("JAXLAB_DATA"):
        pytest.skip("Fashion-MNIST comes from JAXLAB_DATA or from apt-get, and this machine has neither")
    try:
        result = prepare("fashion_mnist", tmp_path)
    except DataError as error:
        if "SHA-256" in str(error):  # the files came, and are other files
            raise
        pytest.skip(f"no route to the files from here: {error}")
    assert result["splits"] == {"train": 60_000, "test": 10_000}
    for split, size in result["splits"].items():
        source = make("fashion_mnist", split, str(tmp_path))
        rows = source.__getitems__(np.arange(len(source)))
        assert rows["image"].shape == (size, 28, 28, 1)
        assert rows["image"].dtype == np.uint8
        assert np.bincount(rows["label"]).tolist() == [size // 10] * 10
        assert source.spec.meta["classes"] == fashion_mnist.CLASSES
    # The mean grey level of ankle boots against that of sandals: labels belong to their images.
    means = [rows["image"][rows["label"] == label].mean() for label in range(10)]
    assert means[fashion_mnist.CLASSES.index("Ankle boot")] > means[fashion_mnist.CLASSES.index("Sandal")]
