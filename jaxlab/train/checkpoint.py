"""Checkpoints: all of Orbax behind one small class. A tree of arrays and its step are saved together.

Usage: ``with Checkpoints(folder, keep=2, best="valid/accuracy", mode="max") as checkpoints: checkpoints.save(...)``;
leaving the block waits for the save in the background, which would otherwise be lost.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from jaxlab.core.errors import DataError, UsageError
from jaxlab.core.types import PyTree

_TEMPORARY = ".orbax-checkpoint-tmp"


class Checkpoints:
    """Saves in the background; keeps the last `keep` and the best by a named metric."""

    def __init__(self, folder: Path, *, keep: int, best: str | None, mode: str, writable: bool = True) -> None:
        """Open `folder`.

        Args:
          folder: where the steps' directories stand.
          keep: how many of the latest stay.
          best: the metric whose best checkpoint stays as well; saves without it do not compete.
          mode: ``max`` or ``min``, which value is best.
          writable: whether to save; what a killed writer left half-done is removed then.
        """
        logging.set_verbosity(logging.ERROR)  # Orbax reports each step of each save at INFO and WARNING
        self._folder, self._best = folder.resolve(), best
        if writable:
            _sweep(self._folder)

        def score(metrics: Mapping[str, float]) -> float:
            value = self._measured(metrics)
            return value if value is not None else float("-inf" if mode == "max" else "inf")

        kept: list[policies.PreservationPolicy] = [policies.LatestN(keep)]
        if best is not None:
            by_metric = policies.BestN(
                get_metric_fn=score, reverse=mode == "min", n=1, keep_checkpoints_without_metrics=False
            )
            kept.append(by_metric)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            best_fn=score,
            best_mode=mode,
            create=writable,
            read_only=not writable,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Checkpoints:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the save in the background and close."""
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, step: int, tree: PyTree, metrics: Mapping[str, float]) -> None:
        """Begin to save `tree` as `step`; returns when the arrays have been copied, so that they may be donated."""
        self._manager.save(step, args=ocp.args.StandardSave(tree), metrics=dict(metrics))

    def check(self) -> None:
        """Raise the error of a save in the background that has failed."""
        if not self._manager.is_saving_in_progress():  # Orbax's own check_for_errors says nothing once its thread ended
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Return the saved steps in order; a directory that holds nothing is none."""
        return sorted(step for step in self._manager.all_steps() if any((self._folder / str(step)).iterdir()))

    def resolve(self, wanted: str) -> int:
        """Return the step that ``latest``, ``best`` or a number names.

        Raises:
          DataError: there is no checkpoint, or not that one.
          UsageError: not a step.
        """
        steps = self.steps()
        if not steps:
            raise DataError(f"{self._folder} holds no checkpoint")
        if wanted == "latest":
            return steps[-1]
        if wanted == "best":
            best = self._manager.best_step()
            if best is None or self._measured(self._manager.metrics(best) or {}) is None:
                raise DataError(f"{self._folder}: no checkpoint was measured by {self._best!r}; steps: {steps}")
            return best
        if not wanted.isdigit():
            raise UsageError(f"--step={wanted}: expected best, latest or a number; saved: {steps}")
        if int(wanted) not in steps:
            raise DataError(f"--step={wanted}: no such checkpoint; saved: {steps}")
        return int(wanted)

    def _measured(self, metrics: Mapping[str, float]) -> float | None:
        """Return the value that checkpoints compete by; what is absent or not a number does not compete."""
        value = metrics.get(self._best, math.nan) if self._best is not None else math.nan
        return None if math.isnan(value) else value

    def restore(self, step: int, like: PyTree) -> PyTree:
        """Return the tree saved as `step`, with the structure, shapes and placement of `like` (arrays or shapes)."""
        return self._manager.restore(step, args=ocp.args.StandardRestore(like))


def _sweep(folder: Path) -> None:
    """Remove what a killed writer left: temporary directories, and step directories that hold nothing."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and (_TEMPORARY in path.name or (path.name.isdigit() and not any(path.iterdir()))):
            shutil.rmtree(path)
