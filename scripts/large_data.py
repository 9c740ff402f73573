"""Show that data larger than memory costs none: read one epoch of generated records in shuffled order, watch memory.

``python scripts/large_data.py [--gb=5] [--data_dir=D] [--ceiling_mb=1000]`` writes the same rows as mapped ``.npy``
arrays and as ArrayRecord (through a TFDS builder), then reads each by `jaxlab.data.feeding.feed`, without and with
Grain's worker processes. What counts is the anonymous and shared memory (RssAnon, RssShmem) of the reading process and
all its children together: pages of mapped files are the operating system's, and go when it needs them. The last line of
stdout is one JSON object. Exit codes: 0 done, 1 above the ceiling or rows differ, 2 no room on the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxlab.core.errors import DataError, JaxlabError
from jaxlab.core.types import Source

SHAPE = (128, 128, 3)
ROW_BYTES = int(np.prod(SHAPE))
GENERATED_ROWS = 4096  # at once
PART_ROWS = 2**29 // ROW_BYTES  # of a TFDS split: of one beyond 1 GB, TFDS's writer asks for TensorFlow
FORMATS = ("npy", "array_record")
NAME = "large_records"


class LargeRecords(tfds.core.GeneratorBasedBuilder):
    """Copies the rows of the ``.npy`` files to ArrayRecord, in their order."""

    name = NAME
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, arrays: Path, **options: Any) -> None:
        """Take the rows from the folder `arrays`; the rest is TFDS's."""
        self._arrays = arrays
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Tensor(shape=SHAPE, dtype=np.uint8),
            "label": tfds.features.Tensor(shape=(), dtype=np.int32),
        }
        described = {"description": "Noise.", "features": tfds.features.FeaturesDict(features)}
        return tfds.core.DatasetInfo(builder=self, disable_shuffling=True, **described)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        rows = len(np.load(self._arrays / "label.npy", mmap_mode="r", allow_pickle=False))
        return {
            f"part{place:04}": self._generate_examples(first, min(first + PART_ROWS, rows))
            for place, first in enumerate(range(0, rows, PART_ROWS))
        }

    def _generate_examples(self, first: int, last: int) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = (
            np.load(self._arrays / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("image", "label")
        )
        for i in range(first, last):
            yield i, {"image": np.asarray(images[i]), "label": labels[i]}


def write_arrays(folder: Path, rows: int) -> None:
    """Write `rows` rows of noise as mapped arrays, a few thousand at a time."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    images = np.lib.format.open_memmap(folder / "image.npy", "w+", np.uint8, (rows, *SHAPE))
    for first in range(0, rows, GENERATED_ROWS):
        part = images[first : first + GENERATED_ROWS]
        part[:] = np.frombuffer(generator.bytes(part.size), np.uint8).reshape(part.shape)
    images.flush()
    np.save(folder / "label.npy", np.arange(rows, dtype=np.int32))


def write_records(arrays: Path, root: Path) -> None:
    """Write the rows of `arrays` once more, as a prepared TFDS data set below `root`."""
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        LargeRecords(arrays, data_dir=str(root), file_format="array_record").download_and_prepare()


def open_source(kind: str, root: Path) -> Source:
    """Return the source that a config would name; `in_memory_bytes` keeps a small trial on the disk too."""
    from jaxlab.data import memmap_source, tfds_source

    if kind == "npy":
        return memmap_source.make(str(root / "arrays"))
    parts = "+".join(sorted(tfds.builder_from_directory(str(root / NAME / "1.0.0")).info.splits))
    return tfds_source.make(NAME, split=parts, data_dir=str(root), in_memory_bytes=0)


def memory_mb(process: str = "self") -> float:
    """Return the anonymous and shared memory, in MB, of a process and its descendants; 0 for one that has ended.

    Shared memory, in which workers hand batches over, counts for each process that has it mapped.
    """
    try:
        found = re.findall(r"Rss(?:Anon|Shmem):\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, found)) / 1024 + sum(map(memory_mb, children))


@contextlib.contextmanager
def watched(measure: Callable[[], float], seconds: float = 0.05) -> Iterator[list[float]]:
    """Yield a list that a thread extends by `measure()` every few moments until the block ends."""
    values, stopped = [measure()], threading.Event()

    def watch() -> None:
        while not stopped.wait(seconds):
            values.append(measure())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield values
    finally:
        stopped.set()
        thread.join()


def read(kind: str, workers: int, root: Path, batch_size: int) -> dict[str, Any]:
    """Read an epoch in shuffled order and return its speed, peak memory and a sum over what was read."""
    import jax

    from jaxlab.data.feeding import feed
    from jaxlab.data.pipeline import Batches

    source = open_source(kind, root)
    batches = Batches(source, (), batch_size, seed=0, training=True)
    put = jax.device_put
    jax.block_until_ready(put(batches[0]))  # so that the memory that JAX itself takes is counted as there before
    steps, before, total, start = len(source) // batch_size, memory_mb(), 0, time.perf_counter()
    with watched(memory_mb) as seen:
        for _, chunk in feed(batches, first=0, last=steps, chunk=1, put=put, workers=workers):
            image = np.asarray(chunk["image"])
            total += int(image[..., ::16, ::16, :].sum(dtype=np.int64)) + int(np.asarray(chunk["label"]).sum())
    seconds = time.perf_counter() - start
    return {
        "format": kind, "workers": workers, "rows": steps * batch_size, "sum": total,
        "rows_per_second": round(steps * batch_size / seconds), "seconds": round(seconds, 1),
        "before_mb": round(before), "peak_mb": round(max(seen)),
    }  # fmt: skip


def measure(root: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a result a format and number of workers, each from a process of its own."""
    results = []
    for kind in FORMATS:
        for workers in (0, options.workers):
            command = [sys.executable, __file__, f"--read={kind}", f"--workers={workers}", f"--data_dir={root}"]
            run = subprocess.run([*command, f"--batch_size={options.batch_size}"], stdout=subprocess.PIPE, check=True)
            results.append(json.loads(run.stdout.splitlines()[-1]))
            logging.info("%s", results[-1])
    return results


def compare(options: argparse.Namespace) -> int:
    """Write the records, read them in every way, print the result and return the exit code."""
    rows = max(int(options.gb * 1e9) // ROW_BYTES, options.batch_size)
    with tempfile.TemporaryDirectory(prefix="large_data.", dir=options.data_dir) as folder:
        free, needed = shutil.disk_usage(folder).free, 2.1 * rows * ROW_BYTES
        if free < needed:
            raise DataError(f"{folder}: {free / 1e9:.1f} GB are free; --gb={options.gb} needs {needed / 1e9:.1f} GB")
        logging.info("writing %d rows of %d bytes below %s", rows, ROW_BYTES, folder)
        write_arrays(Path(folder, "arrays"), rows)
        write_records(Path(folder, "arrays"), Path(folder))
        results = measure(Path(folder), options)
    peak = max(result["peak_mb"] for result in results)
    equal = len({result["sum"] for result in results}) == 1
    summary = {"gb": rows * ROW_BYTES / 1e9, "ceiling_mb": options.ceiling_mb, "peak_mb": peak, "rows_equal": equal}
    print(json.dumps({**summary, "results": results}))
    return 0 if equal and peak <= options.ceiling_mb else 1


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description="Measure the memory that reading large data takes.")
    parser.add_argument("--gb", type=float, default=5.0, help="size of the records; twice that is written")
    parser.add_argument("--data_dir", help="where to write, in a folder that is deleted again; default: the system's")
    parser.add_argument("--ceiling_mb", type=float, default=1000.0, help="memory of all processes together")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="Grain's worker processes")
    parser.add_argument("--read", choices=FORMATS, help="read what another call has written to --data_dir")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    try:
        if not options.read:
            return compare(options)
        print(json.dumps(read(options.read, options.workers, Path(options.data_dir), options.batch_size)))
    except JaxlabError as error:
        print(f"large_data: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
