"""The ``reproduce`` command: a run once more from its receipt, and whether the same came out.

The receipt is what a run directory says of how it was made: config, commit and what differed from it, versions,
threads, devices, data. The run goes again in a process of its own, with the code of then where a repository at hand has
it, the threads and flags of then, in a new directory; the old one is only read. A run directory may be anybody's: no
code of its own runs unless that is allowed. Usage: ``jaxlab reproduce RUN``.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.errors import DataError, JaxlabError, UsageError, did_you_mean
from jaxlab.core.paths import folder_of
from jaxlab.run.code import Code, code_of, git, within
from jaxlab.run.differences import inputs, pool_of, print_inputs, receipt_of
from jaxlab.run.fingerprints import package_folder
from jaxlab.run.judge import DIFFERENT, EQUAL, TOLERANCE, judge
from jaxlab.run.leaves import Reader
from jaxlab.run.moments import Watch, complete
from jaxlab.run.trial import Trial, surroundings

CODES = ("then", "now")
_VARIABLES = ("JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_DEFAULT_PRNG_IMPL", "JAX_THREEFRY_PARTITIONABLE",
              "JAX_NUMPY_DTYPE_PROMOTION", "OMP_NUM_THREADS", "NVIDIA_TF32_OVERRIDE")  # fmt: skip
_PLAIN_FLAG = re.compile(r"--xla_\w+(=(true|false|\d+))?")


def reproduce(
    run: str | os.PathLike[str],
    workdir: str | os.PathLike[str] | None = None,
    code: str = "then",
    apply_diff: bool = False,
) -> dict[str, Any]:
    """Run again what the run directory `run` says, and return how the two compare.

    Args:
      run: a run's directory; one that is not finished is reproduced up to its last checkpoint.
      workdir: of the reproduction, new; None takes a temporary directory, which is kept unless all bits are equal.
      code: ``then`` or ``now``: which code runs.
      apply_diff: whether what differed from the commit may be taken from the run directory, where nothing else has it:
        code that may be anybody's.

    Returns:
      ``verdict`` (equal bits, within tolerance, different), ``errors`` (1 where different), ``inputs`` that changed
      (``first`` then, ``second`` now), ``code`` that ran and why, ``first`` difference, and more.

    Raises:
      DataError: there is no run, no receipt, or nothing in it to be reproduced.
      UsageError: bad arguments, or what the training itself refuses.
      JaxlabError: the training failed otherwise.
    """
    if code not in CODES:
        raise UsageError(f"--code={code}: expected then or now{did_you_mean(code, CODES)}")
    folder = folder_of(run)
    config, receipt = record.trusted_config(folder), receipt_of(folder)
    if not receipt:
        raise DataError(f"{folder} holds no receipt: there is no {record.ENVIRONMENT} in it")
    until, state = _extent(folder, config, sorted(complete(folder)))
    place = _place(workdir, folder)
    today = contextlib.nullcontext(Code(None, None, "it was asked for"))
    with code_of(receipt["git"], folder, apply_diff) if code == "then" else today as found:
        _train(folder, receipt, place, until, state, found)
    copy = place / "run"
    step = state if state in complete(copy) else None
    result = _judged(Reader(folder), folder, copy, step, until)  # not before: it takes a GPU's memory
    if state is not None and step is None:
        result |= {"verdict": DIFFERENT, "problems": [*result["problems"], f"no state was saved at step {state}"]}
    result |= {
        "run": str(folder), "workdir": str(copy), "step": until, "steps": config.train.steps,
        "code": {"ran": "now" if found.tree is None else "then", "why": found.problem},
        "inputs": inputs(folder, copy), "notes": _notes(folder), "errors": int(result["verdict"] == DIFFERENT),
    }  # fmt: skip
    if workdir is None and result["verdict"] == EQUAL:
        shutil.rmtree(place)
        result["workdir"] = None
    return result


def print_reproduction(result: dict[str, Any]) -> None:
    """Print the verdict and what changed to stderr."""
    why = f", since {result['code']['why']}" if result["code"]["why"] else ""
    print(f"code: that of {result['code']['ran']}{why}", file=sys.stderr)
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print_inputs(result["inputs"])
    if not result["inputs"]:
        print("inputs: none that the receipts name has changed", file=sys.stderr)
    for problem in result["problems"]:
        print(f"differs: {problem}", file=sys.stderr)
    if result["largest"]:
        shown = ", ".join(f"{name} {value:.1e}" for name, value in list(result["largest"].items())[:4])
        print(f"largest differences, tolerance {TOLERANCE:g}: {shown}", file=sys.stderr)
    extent = f"up to step {result['step']} of {result['steps']}"
    kept = f"; it stands in {result['workdir']}" if result["workdir"] else ""
    counts = f"{result['leaves']} leaves, {result['rows']} rows, example ids {result['ids']}"
    print(f"{result['verdict']}: {extent}, {counts}{kept}", file=sys.stderr)


def _extent(folder: Path, config: ConfigDict, saved: list[int]) -> tuple[int, int | None]:
    """Return up to which step the run is reproduced, and at which step both will have saved a state."""
    train = config.train
    if (folder / record.SUMMARY).exists():
        return train.steps, train.steps
    if not saved:
        raise DataError(f"{folder} is not finished and has no checkpoint: there is nothing to compare with")
    evaluates = "valid" in config.data
    due = [s for s in saved if s % train.checkpoint_every == 0 or (evaluates and s % train.eval_every == 0)]
    return (
        (due[-1], due[-1]) if due else (saved[-1], None)
    )  # a state that a signal had saved comes at no step of its own


def _place(workdir: str | os.PathLike[str] | None, run: Path) -> Path:
    if workdir is None:
        return Path(tempfile.mkdtemp(prefix="jaxlab-reproduce-")).resolve()
    folder = folder_of(workdir)
    if folder.is_relative_to(run):
        raise UsageError(f"--workdir={folder} is within the run, which is not touched; choose another")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--workdir={folder} is not empty; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _train(folder: Path, receipt: Mapping[str, Any], place: Path, until: int, state: int | None, code: Code) -> None:
    """Train in ``place/run`` as the run at `folder` was, up to a step, and until the state of step `state` is saved."""
    config, copy, file = record.read_config(folder), place / "run", place / "config.json"
    file.write_text(configs.to_json(config))
    origin = record.read_json(folder / record.OVERRIDES)
    cwd = Path(receipt.get("cwd") or ".").resolve()
    cwd = cwd if cwd.is_dir() and not cwd.is_relative_to(folder) else Path.cwd()
    environment = surroundings(config, 0, _variables(receipt, code), _paths(receipt, origin, cwd, code), cwd)
    fork = origin.get("fork")
    more = [f"--fork-from={fork['run']}@{fork['step']}"] if fork else []
    watch = Watch(copy, config)

    def reached() -> bool:
        watch.look()
        come = watch.step >= until if state is None else state in complete(copy)
        return until < config.train.steps and come

    with Trial(file, copy, place / "log", environment, more, cwd) as trial:
        if not trial.wait(reached, math.inf):
            trial.finish(1)


def _variables(receipt: Mapping[str, Any], code: Code) -> dict[str, str]:
    """Return the environment variables of then that change values, and where git is to look for the code's state.

    Of flags only switches and numbers are taken over: some of XLA's name files to be written or programs to be run.
    """
    kept = {name: str(receipt["variables"][name]) for name in _VARIABLES if name in receipt["variables"]}
    flags = [flag for flag in str(receipt.get("xla_flags", "")).split() if _PLAIN_FLAG.fullmatch(flag)]
    found = {**kept, "XLA_FLAGS": " ".join(flags)}
    threads = pool_of(receipt["threads"])
    if threads is not None:
        found["NPROC"] = str(threads)
    if code.tree is not None and code.tree != code.root:
        found |= {"GIT_DIR": (git(code.tree, "rev-parse", "--absolute-git-dir") or "").strip(),
                  "GIT_WORK_TREE": str(code.tree)}  # fmt: skip
    return found


def _paths(receipt: Mapping[str, Any], origin: Mapping[str, Any], cwd: Path, code: Code) -> list[str]:
    """Return the places of the code's tree in which modules were looked for: beside the config, here, jaxlab's own."""
    if code.tree is None:
        return []
    beside = str(origin.get("config") or "").partition(".py:")[0]
    folders = [Path(beside).parent, cwd, Path(str(receipt["jaxlab"].get("folder", package_folder()))).parent]
    places = [within(path, code) for path in folders if path.is_absolute()]
    return [place for place in places if Path(place).is_dir() and Path(place).is_relative_to(code.tree)]


def _judged(reader: Reader, one: Path, other: Path, step: int | None, last: int) -> dict[str, Any]:
    try:
        return judge(reader, one, other, step, last)
    except JaxlabError as error:  # a state of other code
        found = judge(reader, one, other, None, last)
        return found | {"problems": [*found["problems"], f"states were not compared: {error}"], "verdict": DIFFERENT}


def _notes(folder: Path) -> list[str]:
    changes = record.read_json(folder / record.OVERRIDES).get("changes", [])
    about = "was changed in the config, which is taken as it is now"
    return [f"from step {each['from_step']} on {', '.join(each['config'])} {about}" for each in changes]
