"""What all rungs share: the problem that they are fitted to, the kinds of its answers, and what a fit gives.

Shape letters: N rows, C classes or labels. Usage: ``kind_of(shapes)``; ``classified(p_NC)``.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import NamedTuple

import numpy as np

from jaxlab.core.types import DataSpec, Generate, Outputs
from jaxlab.run.ladder.rows import Rows

CLASSES, LABELS, NUMBERS, TOKENS, RANKS = "classes", "labels", "numbers", "tokens", "ranks"
_SMALLEST = np.finfo(np.float64).eps  # of a probability, as in scikit-learn's log_loss

Columns = Mapping[str, np.ndarray]
"""What a baseline adds to a prediction table: results [N, ...] of the objective's names."""


class Problem(NamedTuple):
    """What is to be predicted, and from what; `seconds` is what each rung may take."""

    kind: str
    shapes: Outputs  # of the objective's results, the batch's axis first
    data: DataSpec
    train: Rows
    valid: Rows  # what hyperparameters are chosen on
    seed: int
    seconds: float
    reads_logits: bool  # whether a metric reads ``logits``, which are large where they are of tokens
    generate: Generate | None = None  # what an evaluation asks of the model besides


class Fitted(NamedTuple):
    """A baseline: from rows to columns, the number of rows it was fitted on, and what it is in a sentence."""

    predict: Callable[[Rows], Columns]
    rows: int
    about: str


Fit = Callable[[], Fitted]
"""Fits a rung; raises `UnfittedError` where it cannot be."""


class UnfittedError(Exception):
    """Why a rung was not fitted."""


def kind_of(shapes: Outputs) -> str | None:
    """Return what the results of an objective say about its task; None where no ladder is for it."""
    if "token_loss" in shapes:
        return TOKENS
    if "target_weight" in shapes and "prediction" in shapes:
        return NUMBERS
    if "logits" in shapes and "target" in shapes:
        axes, of_target = len(shapes["logits"].shape), len(shapes["target"].shape)
        return {(2, 1): CLASSES, (2, 2): LABELS}.get((axes, of_target))
    return RANKS if "rank" in shapes else None


def classified(p_NC: np.ndarray) -> Columns:
    """Return the columns of a classification."""
    logits_NC = np.log(np.maximum(p_NC, _SMALLEST)).astype(np.float32)
    return {"logits": logits_NC, "prediction": p_NC.argmax(axis=1).astype(np.int32)}


def labelled(p_NC: np.ndarray) -> Columns:
    """Return the columns of yes-or-no questions."""
    p_NC = np.clip(p_NC, _SMALLEST, 1 - _SMALLEST)
    logits_NC = (np.log(p_NC) - np.log1p(-p_NC)).astype(np.float32)
    return {"logits": logits_NC, "prediction": (logits_NC > 0).astype(np.int32)}


def cost(problem: Problem, columns: Columns, rows: Rows) -> float:
    """Return what hyperparameters are chosen by: the mean of -log p(target), or the mean squared error."""
    target = rows.answers["target"]
    if problem.kind == NUMBERS:
        weight = rows.answers["target_weight"].astype(np.float64)
        square = np.where(weight > 0, np.square(columns["prediction"].astype(np.float64) - target), 0)
        return float((square * weight).sum() / max(weight.sum(), np.finfo(np.float64).tiny))
    if problem.kind == TOKENS:
        weight = rows.answers["token_weight"].astype(np.float64)
        return float((columns["token_loss"] * weight).sum() / max(weight.sum(), np.finfo(np.float64).tiny))
    logits_NC = columns["logits"].astype(np.float64)
    if problem.kind == LABELS:
        return float((np.logaddexp(0, logits_NC) - target * logits_NC).mean())
    return float(-np.take_along_axis(logits_NC, target[:, None], axis=1).mean())


def perfect(problem: Problem, rows: Rows) -> Columns:
    """Return the columns of one who knows the answers: on which side a metric's best value lies."""
    if problem.kind == RANKS:
        return {"rank": np.ones(len(rows), np.int32)}
    target = rows.answers["target"]
    if problem.kind == NUMBERS:
        return {"prediction": target}
    if problem.kind == LABELS:
        return labelled((target > 0.5).astype(np.float64))
    found = {"prediction": target}
    if problem.kind == TOKENS:
        found["token_loss"] = np.zeros(target.shape, np.float32)
    if problem.kind == CLASSES or problem.reads_logits:
        classes_C = np.arange(problem.shapes["logits"].shape[-1])
        found["logits"] = np.where(target[..., None] == classes_C, 0, np.log(_SMALLEST)).astype(np.float32)
    return found


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise UnfittedError within the block once it has taken too long, by the alarm of the process.

    Only the main thread has one; elsewhere there is no limit. An alarm that was set before goes on afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise UnfittedError(f"it took longer than {seconds:g} seconds; allow more by --seconds")

    began, handler = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again, should one be lost in a callback
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - began)), every)
