"""What all tests share: programs compiled once a session, and a few rows that stand in for each public data set."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

# modules of tests that runs name, for the processes that tests start: they read those runs from their directories
os.environ["JAXLAB_ALLOW"] = ",".join((
    "folded", "plug_in_of_then", "plugin_of_cli_test", "small_study",
    "small_tasks", "test_evaluate_parts", "tiny",
))  # fmt: skip
# most of the time goes into compiling, so that tests run programs that XLA has hardly optimised; those on the newer
# Python in .ci/run, and yours with JAX_DISABLE_MOST_OPTIMIZATIONS=0, run what users run
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
ROWS = {"train": 320, "t10k": 40}


def pytest_collection_modifyitems(config, items):
    """Leave out what is exhaustive, unless -m names it: another -m must not bring it back by itself."""
    if "exhaustive" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Keep compiled programs in a folder of this session, for this process and those it starts."""
    import jax

    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """Prepare a few rows of noise, of the shapes of the real data, and return the root of the data sets."""
    import tensorflow_datasets as tfds

    from jaxlab.data.builders import fashion_mnist, ml100k, multi30k, protein, reviews, tinyshakespeare
    from jaxlab.data.preparation.prepare import FILE_FORMAT

    root, files = tmp_path_factory.mktemp("tfds"), tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    for prefix, rows in ROWS.items():
        images = generator.integers(0, 256, (rows, 28, 28)).astype(np.uint8)
        write_idx(files / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(files / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(rows) % 10).astype(np.uint8))
    tfds.disable_progress_bar()
    builder = fashion_mnist.Builder(data_dir=str(root), file_format=FILE_FORMAT)
    builder.download_and_prepare(
        download_dir=str(files / "downloads"), download_config=tfds.download.DownloadConfig(manual_dir=str(files))
    )
    tiny = {
        ml100k: tiny_ratings, multi30k: tiny_captions, protein: tiny_protein, reviews: tiny_reviews,
        tinyshakespeare: tiny_shakespeare,
    }  # fmt: skip
    for module, splits in tiny.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.Builder, "_split_generators", splits)
            builder = module.Builder(data_dir=str(root), file_format=FILE_FORMAT)
            builder.download_and_prepare(download_dir=str(files / "downloads"))
    return root


def tiny_captions(builder, _) -> dict:
    """Return captions of a few words, each a number and its name in another language, of every split."""
    rows = [(n, {"en": f"A dog and {n} cats.", "de": f"Ein Hund und {n} Katzen."}) for n in range(140)]
    return {"train": iter(rows[:100]), "valid": iter(rows[100:120]), "test": iter(rows[120:])}


def tiny_protein(builder, _) -> dict:
    """Return rows of noise of every split, every tenth of the rare class."""
    generator = np.random.default_rng(0)
    rows = {"train": 300, "valid": 40, "test": 20}
    noise = {split: generator.normal(size=(count, 74)).astype(np.float32) for split, count in rows.items()}
    return {
        split: builder._generate_examples(rows_ND, np.full(len(rows_ND), i), np.arange(len(rows_ND)) % 10 == 0)
        for i, (split, rows_ND) in enumerate(noise.items())
    }


def tiny_ratings(builder, _) -> dict:
    """Return each of 64 users' ratings of 25 films: the last for test, the one before for valid."""
    films = {str(n): {"class": "Drama War"} for n in range(1, 31)}
    users = {str(n): {"age": "20", "gender": "F", "occupation": "student"} for n in range(1, 65)}
    rows = [
        {"user_id": user, "item_id": str(1 + (int(user) + n) % 30), "rating": str(1 + n % 5), "timestamp": str(n)}
        for n in range(25)
        for user in users
    ]
    parts = {"train": rows[:-128], "valid": rows[-128:-64], "test": rows[-64:]}
    return {split: builder._generate_examples(part, users, films) for split, part in parts.items()}


def tiny_reviews(builder, _) -> dict:
    """Return rows of a few words of every split."""
    rows = [
        {"text": f"the {'good' if n % 2 else 'bad'} dress {n}", "label": n % 2, "rating": 5, "clothing_id": n}
        for n in range(140)
    ]
    parts = {"train": rows[:100], "valid": rows[100:120], "test": rows[120:]}
    return {split: builder._generate_examples(part) for split, part in parts.items()}


def tiny_shakespeare(builder, _) -> dict:
    """Return a few hundred characters of both splits."""
    text = "First Citizen:\nSpeak, speak.\n\n"
    return {"train": builder._generate_examples(text * 60), "valid": builder._generate_examples(text * 6)}


@pytest.fixture
def stand_in_data(data_folder, monkeypatch) -> Path:
    """Let data sets be looked for where only the stand-in is."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_folder))
    return data_folder
