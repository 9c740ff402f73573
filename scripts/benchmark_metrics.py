"""The ``metrics`` of ``scripts/benchmark.py``: exact metrics with bootstrap intervals against a loop of scikit-learn's.

ROC-AUC and average precision of a million stored predictions, tied scores among them. A turn is RESAMPLES resamples,
the same number on both sides, sorting and all; the loop draws rows and calls `roc_auc_score` and
`average_precision_score`. One more line is the whole case of 1,000 resamples, once, in a process of its own, with the
peak of its memory. Wanted: at least 5 times faster, and less than 2 GB.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from benchmark_loop import Turn, interleaved
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxlab.core.types import DataSpec, Table, TableMetric
from jaxlab.metrics import scores
from jaxlab.metrics.intervals import RESAMPLES as ALL
from jaxlab.metrics.intervals import draws, examples
from jaxlab.run.host_memory import keep_freed_memory
from jaxlab.run.measured import measured

PREDICTIONS, RESAMPLES = 1_000_000, 20
CLOSE = 1e-6


def run(only: str, repeats: int) -> dict[str, Any]:
    """Return the rows of the cases whose name contains `only`, and what the table has to say about them."""
    rows: list[dict[str, Any]] = []
    name = f"ROC-AUC and average precision, {PREDICTIONS:,} predictions"
    if only in name:
        keep_freed_memory()  # as `jaxlab evaluate` does; both sides have it
        check()
        turns: dict[str, Turn] = {"loop over scikit-learn": loop, "jaxlab": ours}
        rows += interleaved(f"{name}, {RESAMPLES} resamples", turns, repeats)
        seconds, gigabytes = whole()
        variant = f"jaxlab, once, peak memory {gigabytes:.2f} GB"
        rows.append({"case": f"{name}, {ALL:,} resamples", "variant": variant, "rate": ALL / seconds})
    about = (
        f"Resamples a second; ratio to the first variant, medians of {repeats} interleaved turns of {RESAMPLES}"
        " resamples with sorting, lowest and highest paired ratio in brackets"
    )
    return {"about": about, "unit": "resamples/s", "rows": rows}


def table() -> Table:
    """Return stored predictions of two classes, some of them tied, as float32 ties them."""
    random = np.random.default_rng(0)
    target = (random.random(PREDICTIONS) < 0.3).astype(np.int32)
    logits = np.stack([np.zeros(PREDICTIONS), random.normal(size=PREDICTIONS) + target], axis=1).astype(np.float32)
    return {"logits": logits, "target": target, "id": np.arange(PREDICTIONS, dtype=np.int32)}


def metrics() -> dict[str, TableMetric]:
    """Return the two metrics; also ROC-AUC is drawn again, as scikit-learn has no formula for its interval."""
    data = DataSpec({}, PREDICTIONS, {"classes": ("no", "yes")})
    area = scores.roc_auc(data)._replace(interval=None)
    return {"roc_auc": area, "average_precision": scores.average_precision(data)}


def ours() -> float:
    """Take a turn of jaxlab: sort once, then weigh."""
    stored, tables = table(), metrics()
    began = time.perf_counter()
    numbers = [metric.prepare(stored, {}) for metric in tables.values()]
    for weight_N in draws(examples(PREDICTIONS), RESAMPLES, 0):
        for number in numbers:
            number(weight_N)
    return RESAMPLES / (time.perf_counter() - began)


def loop() -> float:
    """Take a turn of the loop: draw rows, then let scikit-learn sort them, twice."""
    stored, random = table(), np.random.default_rng(0)
    began = time.perf_counter()
    target, score = stored["target"], stored["logits"][:, 1] - stored["logits"][:, 0]
    for _ in range(RESAMPLES):
        rows = random.integers(0, PREDICTIONS, PREDICTIONS)
        roc_auc_score(target[rows], score[rows])
        average_precision_score(target[rows], score[rows])
    return RESAMPLES / (time.perf_counter() - began)


def check() -> None:
    """Raise unless both sides give the same numbers."""
    stored, ones = table(), np.ones(PREDICTIONS)
    score = stored["logits"][:, 1] - stored["logits"][:, 0]
    for metric, theirs in zip(metrics().values(), (roc_auc_score, average_precision_score), strict=True):
        difference = metric.prepare(stored, {})(ones) - theirs(stored["target"], score)
        if abs(difference) > CLOSE:
            raise AssertionError(f"{theirs.__name__}: off by {difference}")


def whole() -> tuple[float, float]:
    """Return the seconds of all resamples as `jaxlab evaluate` draws them, and the peak of their process in GB."""
    spawning = multiprocessing.get_context("spawn")
    connection, theirs = spawning.Pipe()
    process = spawning.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # else a child that fails would be waited for without end
    found = connection.recv()
    process.join()
    return found


def serve(connection: Connection) -> None:
    """Measure once and send the seconds and the gigabytes."""
    keep_freed_memory()
    stored = table()
    began = time.perf_counter()
    found = measured({}, metrics(), stored, "test")
    seconds = time.perf_counter() - began
    print(found.intervals, file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB; on macOS in bytes
    connection.send((seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e9))
