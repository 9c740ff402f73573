"""Checkpoints: all of Orbax behind one small class. A tree of arrays and its step are saved together.

A save writes to a folder of its own in the background; when all is on the disk, with the digest of every file, a rename
makes it the step's. So a step is whole or not there, and what has changed since is noticed before it is used.
A save holds one copy of the tree in the host's memory until it is written, and no second one: the next save waits.
Of several processes each writes its part, and process 0 the digests of all.
Usage: ``with Checkpoints(folder, keep=2, best="valid/accuracy", mode="max") as checkpoints: checkpoints.save(...)``;
leaving the block waits for the save in the background, which would otherwise be lost.
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import absl.logging
import orbax.checkpoint as ocp

from jaxlab.core.errors import CorruptError, DataError, JaxlabError, UsageError
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import PyTree
from jaxlab.train import across, disk, manifest
from jaxlab.train.folders import SAVING, put_in_place, remove, sweep
from jaxlab.train.like import check_like
from jaxlab.train.manifest import ITEM, Manifest

_log = logging.getLogger("jaxlab")


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
        absl.logging.set_verbosity(absl.logging.ERROR)  # Orbax reports each step of each save at INFO and WARNING
        absl.logging.get_absl_logger().addFilter(_is_news)
        self._folder, self._keep, self._best = folder.resolve(), keep, best
        self._sign = 1.0 if mode == "max" else -1.0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        # a folder a leaf, so that a damaged file names its leaf; uncompressed, as floats hardly shrink
        processes = ocp.options.MultiprocessingOptions(primary_host=None if across.are_apart() else 0)
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_compression=False, multiprocessing_options=processes)
        self._orbax = ocp.AsyncCheckpointer(handler, multiprocessing_options=processes)
        if writable:
            self._folder.mkdir(parents=True, exist_ok=True)
            if across.writes_here():
                sweep(self._folder)
            across.wait_at(across.new_barrier("swept"))

    def __enter__(self) -> Checkpoints:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the save in the background and close; its error is raised, or logged where there is another."""
        try:
            self.wait()
        except BaseException as failed:
            if error is None:
                raise
            _log.warning("the save in the background failed: %s", failed)
        finally:
            self._orbax.close()

    def save(self, step: int, tree: PyTree, metrics: Mapping[str, float]) -> None:
        """Begin to save `tree` as `step`; returns when the arrays have been copied, so that they may be donated.

        Raises:
          JaxlabError: the disk has no room for it, or the save before this one failed.
        """
        self.wait()
        leaves = named_leaves(tree)
        disk.check_save(self._folder, step, disk.bytes_of(leaves.values()))
        saving = self._folder / f"{SAVING}{step}"
        if across.writes_here():
            shutil.rmtree(saving, ignore_errors=True)
        self._orbax.save(saving / ITEM, args=ocp.args.PyTreeSave(tree))
        described = {name: (list(x.shape), str(x.dtype)) for name, x in leaves.items()}
        arguments = (saving, Manifest(step, dict(metrics), described, {}), across.new_barrier("saved"))
        self._thread = threading.Thread(target=self._finish, args=arguments, name="jaxlab-save")
        self._thread.start()

    def _finish(self, saving: Path, contents: Manifest, saved: str) -> None:
        """Wait for Orbax, then make what it wrote the step's checkpoint and remove what need not stay."""
        try:
            self._orbax.wait_until_finished()  # of several processes: until all have written
            if across.writes_here():
                manifest.write(saving, contents._replace(files=across.united(saving, saved)))
                put_in_place(saving, self._folder / str(contents.step))
                self._remove_others()
            across.wait_at(saved)  # so that all see the same steps
        except (OSError, ValueError) as error:  # TensorStore raises the latter where the disk is full
            said = str(error).split(" [", maxsplit=1)[0]  # and where in TensorStore that was
            self._error = JaxlabError(f"step {contents.step} was not saved: {said}; what was saved before is whole")
            self._error.__cause__ = error
        except BaseException as error:  # raised again by the loop, which can end the run
            self._error = error

    def _remove_others(self) -> None:
        steps = self.steps()
        kept = {*steps[-self._keep :], self._best_step(steps)}
        for step in steps:
            if step not in kept:
                remove(self._folder / str(step))

    def wait(self) -> None:
        """Wait for the save in the background, and raise its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise the error of a save in the background that has failed."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def steps(self) -> list[int]:
        """Return the saved steps in order; one without a manifest is none."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(int(path.name) for path in found if path.name.isdigit() and (path / manifest.NAME).is_file())

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
            best = self._best_step(steps)
            if best is None:
                raise DataError(f"{self._folder}: no checkpoint was measured by {self._best!r}; steps: {steps}")
            return best
        if not wanted.isdigit():
            raise UsageError(f"--step={wanted}: expected best, latest or a number; saved: {steps}")
        if int(wanted) not in steps:
            raise DataError(f"--step={wanted}: no such checkpoint; saved: {steps}")
        return int(wanted)

    def _best_step(self, steps: list[int]) -> int | None:
        """Return the best measured step, of equals the latest; a value that is not a number does not compete."""
        if self._best is None:
            return None
        found = {step: manifest.read(self._folder / str(step)) for step in steps}
        values = {step: read.metrics[self._best] for step, read in found.items() if read and self._best in read.metrics}
        measured = [(self._sign * value, step) for step, value in values.items() if not math.isnan(value)]
        return max(measured)[1] if measured else None

    def restore(self, step: int, like: PyTree) -> PyTree:
        """Return the tree saved as `step`, or the part of it that `like` has, after every file has been checked.

        Args:
          step: a saved one.
          like: arrays or shapes with the structure, shapes, dtypes and placement that are wanted.

        Raises:
          CorruptError: a file is not as it was saved.
          DataError: no such checkpoint, or its leaves are not those of `like`.
        """
        self.wait()
        folder = self._folder / str(step)
        across.fetch(folder)
        contents = manifest.read(folder)
        if contents is None:
            raise CorruptError(f"{folder / manifest.NAME} is not what was written; {self._way_on(step)}")
        damage = across.damage(folder, contents)
        if damage is not None:
            raise CorruptError(f"the checkpoint of step {step} is damaged: {damage}; {self._way_on(step)}")
        check_like(folder, contents.leaves, like)
        arguments = ocp.args.PyTreeRestore(
            item=like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=True
        )
        return self._orbax.restore(folder / ITEM, args=arguments)

    def restore_newest(self, like: PyTree, *, fallback: bool) -> tuple[int, PyTree]:
        """Return the latest step and its tree; with `fallback` the newest that is intact, loudly.

        Raises:
          CorruptError: the latest is damaged, or with `fallback` all are.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return step, self.restore(step, like)
            except CorruptError as error:
                if not fallback or step == steps[0]:
                    raise
                _log.warning("%s", error)
        raise DataError(f"{self._folder} holds no checkpoint")

    def _way_on(self, step: int) -> str:
        others = [other for other in self.steps() if other != step]
        if not others:
            return "there is no other checkpoint"
        return f"other checkpoints: {others}; train --fallback goes on from the newest intact one"


def _is_news(line: logging.LogRecord) -> bool:
    """Leave out the tracebacks of Orbax's threads, whose errors are raised as well."""
    return line.exc_info is None or "orbax" not in line.pathname
