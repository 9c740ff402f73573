"""The ``verify-resume`` command: a run that is killed and restarted again and again is the undisturbed one, bit by bit.

Both runs are trainings of the same config in processes of their own, as the command line starts them. What is compared:
SHA-256 of every leaf of the final state, every row of metrics but for its timing, the hashes of example ids in them,
and which checkpoints are kept. XLA's bits follow the device and the number of threads, which are kept the same.

With ``devices="8:2"`` the undisturbed run has 8 devices and each restart has 2. Then ids have to be equal, and values
near: see `jaxlab.run.judge.TOLERANCE`. Usage: ``jaxlab verify-resume --config=configs/digits_cnn.py --kills=5``.
"""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxlab.core import config as configs
from jaxlab.core import record, trust
from jaxlab.core.errors import ConfigError, JaxlabError, UsageError
from jaxlab.core.paths import folder_of
from jaxlab.run.differences import repeated, rows_of
from jaxlab.run.judge import DIFFERENT, EQUAL, NEAR, TOLERANCE, judge
from jaxlab.run.leaves import Reader
from jaxlab.run.moments import PATIENCE, Aim, Timeline, Watch, complete, draw_aims, phase_of, reach, timeline
from jaxlab.run.trial import Trial, surroundings

KILLS = 5
_MORE_TRIES = 2  # where no kill came in time, as in a run of a few milliseconds
UNTRIED = "not tried: no kill came in time"


def verify_resume(
    config: ConfigDict, workdir: str | os.PathLike[str] | None = None, kills: int = KILLS, devices: str = ""
) -> dict[str, Any]:
    """Train twice, once undisturbed and once killed `kills` times, and return how the two runs compare.

    Args:
      config: complete; trained for its own number of steps.
      workdir: for both runs, new; None takes a temporary directory, which is kept if they differ.
      kills: SIGKILLs to the second run, at moments that differ from call to call.
      devices: ``A:B``, how many devices the undisturbed run and the restarts have; empty for all, always.

    Returns:
      ``verdict``, ``errors`` (1 unless it is equal bits, or within tolerance on other devices), ``first`` (step, column
      and leaf of the first difference), ``kills`` (of each what was aimed at, what it hit, the last row's step, the
      step that was left to go on from, and the steps lost) and more.

    Raises:
      UsageError: bad arguments, or what the training itself refuses.
      JaxlabError: a training failed otherwise.
    """
    before, after = _device_counts(devices, config)
    if kills < 1:
        raise UsageError(f"--kills={kills}: expected 1 or more")
    folder = _place(workdir)
    began, seed = time.monotonic(), random.SystemRandom().randrange(2**31)
    trust.allow(*trust.packages_of(config))  # the user's own: the processes to come read it from a file
    (folder / "config.json").write_text(configs.to_json(config))
    times = _undisturbed(config, folder, before)
    chance = random.Random(seed)
    landed = _killed(config, folder, (before, after), kills, times, chance)
    for _ in range(_MORE_TRIES):
        if _is_test(landed, before == after):
            break
        shutil.rmtree(folder / "killed")
        landed = _killed(config, folder, (before, after), kills, times, chance)
    result = _compared(folder, exact=before == after)
    result |= {
        "workdir": str(folder), "steps": config.train.steps, "devices": devices or None, "seed": seed,
        "asked": kills, "landed": len(landed), "phases": dict(Counter(kill["phase"] for kill in landed)),
        "lost": _lost(config, landed), "kills": landed, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    if not _is_test(landed, before == after) and not result["errors"]:
        result |= {"errors": 1, "verdict": UNTRIED}
    if result["lost"]["too_many"]:
        result |= {"errors": 1, "verdict": DIFFERENT}
        lost = result["lost"]
        about = f"{lost['most']} steps, and {lost['during_save']} where a save was under way"
        result["problems"].append(f"a kill cost {about}; expected at most {lost['every']}, and twice that")
    if workdir is None and not result["errors"]:
        shutil.rmtree(folder)
        result["workdir"] = None
    return result


def print_verification(result: dict[str, Any]) -> None:
    """Print what was done and found to stderr."""
    phases = ", ".join(f"{count} in {phase}" for phase, count in result["phases"].items())
    print(f"kills: {result['landed']} of {result['asked']} landed ({phases or 'none'})", file=sys.stderr)
    lost = result["lost"]
    beside = f", {lost['during_save']} where a save was under way" if lost["during_save"] else ""
    print(f"steps lost at most: {lost['most']}{beside} (a save every {lost['every']})", file=sys.stderr)
    if result["largest"]:
        shown = ", ".join(f"{name} {value:.1e}" for name, value in list(result["largest"].items())[:4])
        print(f"largest differences, tolerance {TOLERANCE:g}: {shown}", file=sys.stderr)
    for problem in result["problems"]:
        print(f"different: {problem}", file=sys.stderr)
    kept = f"; both runs: {result['workdir']}" if result["workdir"] else ""
    counts = f"{result['leaves']} leaves, {result['rows']} rows, example ids {result['ids']}"
    print(f"{result['verdict']}: {counts}{kept}", file=sys.stderr)


def _device_counts(devices: str, config: ConfigDict) -> tuple[int, int]:
    if not devices:
        return 0, 0
    found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", devices)
    if found is None:
        raise UsageError(f"--devices={devices}: expected BEFORE:AFTER, such as 8:2")
    if -1 not in config.parallel.mesh.values():
        raise ConfigError(
            f"config.parallel.mesh={config.parallel.mesh.to_dict()}: expected -1 for an axis with --devices"
        )
    return int(found[1]), int(found[2])


def _place(workdir: str | os.PathLike[str] | None) -> Path:
    if workdir is None:
        return Path(tempfile.mkdtemp(prefix="jaxlab-verify-resume-")).resolve()
    folder = folder_of(workdir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--workdir={folder} is not empty; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _undisturbed(config: ConfigDict, folder: Path, devices: int) -> Timeline:
    """Train undisturbed, and return how that went."""
    run, began = folder / "undisturbed", time.monotonic()
    watch = Watch(run, config)
    with Trial(folder / "config.json", run, folder / "undisturbed.log", surroundings(config, devices)) as trial:

        def look() -> None:
            watch.look()
            if devices and watch.step == 0 and (run / record.ENVIRONMENT).is_file():
                _check_devices(run, devices)

        trial.finish(math.inf, look)
    return timeline(run, time.monotonic() - began, watch.saves)


def _check_devices(run: Path, wanted: int) -> None:
    there = record.read_json(run / record.ENVIRONMENT)["devices"]["count"]
    if there != wanted:
        raise UsageError(f"--devices: a training that was to have {wanted} devices has {there}")


def _killed(
    config: ConfigDict, folder: Path, devices: tuple[int, int], kills: int, times: Timeline, chance: random.Random
) -> list[dict[str, Any]]:
    """Train with kills, restart until the run ends, and return the kills that landed.

    The first restart that has a state to go on from, and all after it, have the second number of devices.
    """
    run, log, landed = folder / "killed", folder / "killed.log", list[dict[str, Any]]()
    aims = draw_aims(kills, times, "valid" in config.data, chance)
    if devices[0] != devices[1]:  # of no use before there is a state
        aims = [_after_save(aim, config) for aim in aims]
    for aim in aims:
        watch, at = Watch(run, config), _restored(run)
        with Trial(folder / "config.json", run, log, surroundings(config, devices[1] if at else devices[0])) as trial:
            if not reach(aim, trial, watch, times.life):
                trial.finish(1)  # it has ended by itself: an error of its own is raised
                return landed
            trial.kill()
        watch.look()
        lost = max(0, watch.step - _restored(run)) if watch.opened else 0  # before, it has done nothing
        entry = {"aim": aim.kind, "phase": phase_of(watch), "saving": watch.opened and watch.saving}
        landed.append({**entry, "step": watch.step, "restored": _restored(run), "lost": lost})
    at = _restored(run)
    with Trial(folder / "config.json", run, log, surroundings(config, devices[1] if at else devices[0])) as trial:
        trial.finish(10 * times.life + PATIENCE)
    return landed


def _restored(run: Path) -> int:
    """Return the step that a restart would begin from."""
    return max(complete(run), default=0)


def _is_test(landed: list[dict[str, Any]], same_devices: bool) -> bool:
    """Say whether kills have shown anything: one came, and where devices change, after a state had been saved."""
    return bool(landed) and (same_devices or any(kill["restored"] for kill in landed))


def _after_save(aim: Aim, config: ConfigDict) -> Aim:
    train = config.train
    first = min(train.checkpoint_every + train.log_every, train.steps - 1)
    if aim.kind == "start":
        return Aim("moment", first, 0.0)
    return aim._replace(step=max(aim.step, first))


def _lost(config: ConfigDict, landed: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many steps kills have cost, of those that rows show.

    A save under way when the kill comes is lost too, so that the steps since it began add to those between two saves;
    there is never more than one under way.
    """
    every = config.train.checkpoint_every
    saving = max((kill["lost"] for kill in landed if kill["saving"]), default=0)
    most = max((kill["lost"] for kill in landed if not kill["saving"]), default=0)
    too_many = most > every or saving > 2 * every
    return {"most": most, "during_save": saving, "every": every, "too_many": too_many}


def _compared(folder: Path, exact: bool) -> dict[str, Any]:
    """Return the verdict on the two runs, which are finished."""
    one, other = folder / "undisturbed", folder / "killed"
    reader = Reader(one)
    steps = reader.steps(one), reader.steps(other)
    last = steps[0][-1]
    try:
        found = judge(reader, one, other, last if last in steps[1] else None, math.inf)
        twice = repeated(rows_of(other))
    except ValueError as error:
        raise JaxlabError(f"{other / record.METRICS} holds a torn row: {error}") from error
    others = [f"the row of {row} is there twice" for row in twice]
    if last not in steps[1] or (exact and steps[0] != steps[1]):
        others.append(f"the checkpoints that are kept are of steps {steps[0]} and {steps[1]}")
    good = found["verdict"] in ((EQUAL,) if exact else (EQUAL, NEAR)) and not others
    problems = [*others, *found["problems"]] if exact or not good else []
    return {**found, "verdict": found["verdict"] if good else DIFFERENT, "problems": problems, "errors": int(not good)}
