"""Whether a run may go on under a changed config, and beginning a new run from a state of an old one.

Most changes make another experiment and are refused; what only says how long, how often or where to is taken over.
Usage: ``changes = allowed_changes(record.read_config(folder), config, step)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.errors import UsageError
from jaxlab.core.factory import import_factory, parameters_of
from jaxlab.core.paths import folder_of

SAFE = re.compile(
    r"train\.(steps|log_every|eval_every|checkpoint_every|keep|spike|watchdog|non_finite_limit)"
    r"|data\.workers|(sinks|hooks)\..*|parallel\.(mesh\..*|rules.*|offload)"
)
_MOST_LINES = 10


class Fork(NamedTuple):
    """Where a new run begins: another run's directory and one of its steps."""

    run: Path
    step: str


def allowed_changes(folder: Path, config: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return what `config` changes in the run at `folder`: ``path: (there, now)``, all of it safe.

    Raises:
      UsageError: a change that makes another experiment, naming each.
    """
    changes = configs.diff(record.read_config(folder), config)
    refused = {path: pair for path, pair in changes.items() if not SAFE.fullmatch(path)}
    if "train.steps" in changes:
        schedules = sorted(_that_take_total_steps(config, "config"))
        if schedules:
            refused["train.steps"] = changes["train.steps"]
    if not refused:
        return changes
    lines = [f"  config.{path}: {old!r} there, {new!r} now" for path, (old, new) in list(refused.items())[:_MOST_LINES]]
    if len(refused) > _MOST_LINES:
        lines.append(f"  and {len(refused) - _MOST_LINES} more")
    if "train.steps" in refused:
        lines.append(f"  (other steps change {', '.join(schedules)}, which takes their number)")
    raise UsageError(
        "\n".join([f"{folder} holds a run of another config; choose another --workdir", *lines])
        + f"\n  to begin a new run from a state of this one: --workdir=NEW --fork-from={folder}@STEP"
    )


def _that_take_total_steps(node: Any, path: str) -> Iterator[str]:
    """Yield the path of each node whose factory is given the number of steps by the context."""
    if isinstance(node, tuple | list):
        for place, child in enumerate(node):
            yield from _that_take_total_steps(child, f"{path}[{place}]")
    if not isinstance(node, ConfigDict):
        return
    if configs.FACTORY in node and not path.startswith("config.sinks"):
        needed = parameters_of(import_factory(node[configs.FACTORY], path)).get("total_steps")
        if needed is not None and "total_steps" not in node and needed.default is needed.empty:
            yield path
    for name in node:
        yield from _that_take_total_steps(node[name], f"{path}.{name}")


def read_fork(text: str, workdir: Path) -> Fork:
    """Return what ``RUN@STEP`` names; without a step it is the best.

    Raises:
      UsageError: the run is `workdir` itself.
      DataError: there is no run.
    """
    folder, _, step = text.rpartition("@") if "@" in text else (text, "", "best")
    run = folder_of(folder)
    record.read_config(run)
    if run == workdir:
        raise UsageError(f"--fork-from={text}: a fork is a new run; choose another --workdir")
    return Fork(run, step)


def check_fork(workdir: Path, fork: Fork | None) -> None:
    """Raise UsageError where the run at `workdir` did not begin where `fork` says."""
    there = record.read_json(workdir / record.OVERRIDES)
    if fork is not None and there.get("fork", {}).get("run") != str(fork.run):
        raise UsageError(f"{workdir} holds a run that was not forked from {fork.run}; choose another --workdir")


def write_changes(workdir: Path, config: ConfigDict, changes: Mapping[str, tuple[Any, Any]], step: int) -> None:
    """Take the changed config over, and write down since which step it holds."""
    if not changes:
        return
    origin = record.read_json(workdir / record.OVERRIDES)
    entry = {"from_step": step, "config": {path: list(pair) for path, pair in changes.items()}}
    record.write_json(workdir / record.OVERRIDES, {**origin, "changes": [*origin.get("changes", []), entry]})
    record.write_atomically(workdir / record.CONFIG, configs.to_json(config))
