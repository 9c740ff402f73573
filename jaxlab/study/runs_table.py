"""The table of ``jaxlab runs``: which columns say most, and printing them.

Usage: ``print_runs(found, columns_of(found), len(found))``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxlab.core.errors import UsageError, did_you_mean

_ALWAYS = ("path", "status", "step", "seconds")
_MOST = 5  # of the config's values that differ
_OWN = {*_ALWAYS, "began", "commit", "problem", "train.best"}


def columns_of(found: Sequence[Mapping[str, Any]], wanted: Sequence[str] = ()) -> list[str]:
    """Return the names of the columns: the wanted ones, or what tells the runs apart and the metric that chooses.

    Raises:
      UsageError: a wanted name that no run has.
    """
    names = {name for facts in found for name in facts}
    for name in wanted:
        if found and name.removeprefix("config.") not in names:
            raise UsageError(f"--columns={name}: no run has it{did_you_mean(name, names)}")
    if wanted:
        return ["path", *(name.removeprefix("config.") for name in wanted if name != "path")]
    different = [name for name in sorted(names - _OWN) if "/" not in name and _differs(name, found)]
    best = dict.fromkeys(facts["train.best"] for facts in found if "train.best" in facts)
    return [*_ALWAYS, *different[:_MOST], *(name for name in best if name in names)]


def print_runs(found: Sequence[Mapping[str, Any]], columns: Sequence[str], total: int) -> None:
    """Print a row a run on stderr."""
    table = Table(title=f"{len(found)} of {total} runs", title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold", justify="left" if name in ("path", "status") else "right")
    for facts in found:
        table.add_row(*(_shown(name, facts.get(name)) for name in columns))
    Console(stderr=True, markup=False).print(table)
    for facts in found:
        if "problem" in facts:
            Console(stderr=True, markup=False).print(f"{facts['path']}: {facts['problem']}")


def _differs(name: str, found: Sequence[Mapping[str, Any]]) -> bool:
    return len({json.dumps(facts.get(name)) for facts in found if "problem" not in facts}) > 1


def _shown(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "began":
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
    if isinstance(value, float):
        return f"{value:,.0f}" if name == "seconds" else f"{value:.4g}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
