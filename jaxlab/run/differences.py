"""What differs between two runs: their rows of metrics, what they were made from and on, how they ended.

Reads run directories only. Usage: ``first_row(rows_of(one), rows_of(other))``, ``inputs(one, other)``.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.errors import DataError
from jaxlab.run.journal import IDS
from jaxlab.run.program import programs

TIMING = ("wall", "steps_per_second", "examples_per_second", "data_wait")
"""Columns of a row that tell how long it took, which no two runs share."""

_DEVICES = ("backend", "kind", "count", "processes")
_UNIMPORTANT = ("CACHE", "JAX_PLATFORMS", "JAX_DEBUG", "JAX_LOG", "JAX_TRACEBACK")  # in names of variables
_PARTS = ("packages", "git", "devices", "threads", "settings", "variables", "data", "jaxlab", "modules")
_PARTS_OF_OBJECTS = ("data", "modules")
_MOST_DIGITS = 24  # of a hash that is shown
_MOST_CHARACTERS = 100  # of a value that is printed

Row = Mapping[str, Any]
Difference = dict[str, Any]
"""``kind`` (config, code, packages, environment, data, program), ``name``, and the values ``first`` and ``second``."""


def rows_of(folder: Path, last: float = math.inf) -> list[Row]:
    """Return the rows of metrics up to step `last`, without what tells the time.

    Raises:
      ValueError: a line is torn.
    """
    rows = record.read_metrics(folder)
    return [{n: v for n, v in row.items() if n not in TIMING} for row in rows if row["step"] <= last]


def first_row(one: Sequence[Row], other: Sequence[Row]) -> Difference | None:
    """Return the first place where rows differ: ``step``, ``name``, and both values; None where none does."""
    for first, second in zip(one, other, strict=False):
        for name in dict.fromkeys([*first, *second]):
            values = first.get(name), second.get(name)
            if not _same(*values):
                step = min(first["step"], second["step"])
                return {"step": step, "name": name, "first": values[0], "second": values[1]}
    if len(one) == len(other):
        return None
    longer = one if len(one) > len(other) else other
    counts = {"first": len(one), "second": len(other)}
    return {"step": longer[min(len(one), len(other))]["step"], "name": "number of rows", **counts}


def in_both(one: Sequence[Row], other: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return those rows of two runs whose step and columns the other has too: intervals may differ."""
    keys = [{(row["step"], *sorted(row)) for row in rows} for rows in (one, other)]
    first, second = ([r for r in rows if (r["step"], *sorted(r)) in keys[0] & keys[1]] for rows in (one, other))
    return first, second


def repeated(rows: Sequence[Row]) -> list[str]:
    """Return the rows that are there more than once: of one step, with the same names."""
    seen, twice = set(), []
    for row in rows:
        key = (row["step"], *sorted(row))
        if key in seen:
            twice.append(f"step {row['step']}: {', '.join(sorted(set(row) - {'step'}))}")
        seen.add(key)
    return twice


def same_ids(one: Sequence[Row], other: Sequence[Row]) -> bool | None:
    """Say whether the hashes of example ids in two runs' rows are equal; None where neither has any."""
    found = [[(row["step"], row[IDS]) for row in rows if IDS in row] for rows in (one, other)]
    return found[0] == found[1] if any(found) else None


def row_distances(one: Sequence[Row], other: Sequence[Row]) -> dict[str, float]:
    """Return for each column the largest difference between values of the same row, over the larger of value and 1."""
    found: dict[str, float] = {}
    for first, second in zip(one, other, strict=False):
        for name in (first.keys() & second.keys()) - {"step", IDS}:
            apart = 0.0 if _same(first[name], second[name]) else abs(first[name] - second[name])
            apart = apart / max(1.0, abs(first[name])) if math.isfinite(apart) else math.inf
            found[name] = max(found.get(name, 0.0), apart)
    return found


def inputs(one: Path, other: Path) -> list[Difference]:
    """Return what two runs were made from and on, as far as both their receipts say it and differ."""
    receipts = [receipt_of(folder) for folder in (one, other)]
    found = [
        {"kind": "config", "name": f"config.{path}", "first": pair[0], "second": pair[1]}
        for path, pair in configs.diff(record.read_config(one), record.read_config(other)).items()
    ]
    learnt = [record.read_learnt(folder) for folder in (one, other)]
    if learnt[0] != learnt[1]:
        found.append({"kind": "data", "name": "what transforms have learnt", "first": "", "second": "other"})
    used = [[program["sha256"] for program in programs(folder)] for folder in (one, other)]
    if not found and all(used) and used[0] != used[1]:  # another config gives another program, which says no more
        name = "the step's program"
        found.append({"kind": "program", "name": name, "first": _start(used[0][-1]), "second": _start(used[1][-1])})
    facts = [dict(_facts(receipt)) for receipt in receipts]
    for kind, name in facts[0]:
        values = facts[0][kind, name], facts[1].get((kind, name))
        if None not in values and values[0] != values[1]:
            found.append({"kind": kind, "name": name, "first": values[0], "second": values[1]})
    return found


def receipt_of(folder: Path) -> dict[str, Any]:
    """Return a run's receipt, with all parts that are objects today; empty where there is none.

    Raises:
      DataError: a part is no object.
    """
    path = folder / record.ENVIRONMENT
    found = record.read_json(path)
    if not found:
        return {}
    parts = {name: found.get(name) or {} for name in _PARTS}
    for name, part in parts.items():
        _check_object(path, name, part)
        for key, inner in part.items() if name in _PARTS_OF_OBJECTS else ():
            _check_object(path, f"{name}.{key}", inner)
    return found | parts


def _check_object(path: Path, name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise DataError(f"{path}: {name} is a {type(value).__name__}; expected an object")


def print_inputs(found: Sequence[Difference]) -> None:
    """Print a line an input that differs, to stderr."""
    for each in found:
        first, second = each["first"], each["second"]
        if isinstance(first, dict) and isinstance(second, dict):
            odd = [str(key) for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
            values = ", ".join(odd)
        else:
            values = f"{short(first)} -> {short(second)}"
        print(f"{each['kind']}: {each['name']}: {values}", file=sys.stderr)


def short(value: Any) -> str:
    """Return a value as it is printed."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def finals(one: Path, other: Path) -> dict[str, dict[str, Any]]:
    """Return for each metric that both runs have its last value in each, and of what step."""
    last: list[dict[str, tuple[Any, int]]] = []
    for folder in (one, other):
        rows = rows_of(folder)
        last.append({n: (v, row["step"]) for row in rows for n, v in row.items() if n not in ("step", IDS)})
    return {
        name: {"first": value, "second": last[1][name][0], "steps": [step, last[1][name][1]]}
        for name, (value, step) in last[0].items()
        if name in last[1]
    }


def _facts(receipt: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield what a receipt says, by kind and name; None for what it does not say."""
    if not receipt:
        return
    for name, version in receipt["packages"].items():
        yield ("packages", name), version
    for name in ("python", "platform", "cpu"):
        yield ("environment", name), receipt.get(name)
    for name in _DEVICES:
        yield ("environment", f"devices.{name}"), receipt["devices"].get(name)
    yield ("environment", "threads"), pool_of(receipt["threads"])
    for name, value in receipt["settings"].items():
        yield ("environment", name), str(value)
    variables = {"XLA_FLAGS": receipt.get("xla_flags", ""), **receipt["variables"]}
    for name, value in variables.items():
        if name != "NPROC" and not any(part in name for part in _UNIMPORTANT):
            yield ("environment", name), value
    git = receipt["git"]
    yield ("code", "commit"), git.get("commit")
    if git:
        yield ("code", "files that differ from the commit"), "more than fit" if git.get("cut") else _marked(git)
    yield ("code", "jaxlab's files"), _start(receipt["jaxlab"].get("sha256"))
    for name, module in receipt["modules"].items():
        yield ("code", f"module {name}"), _start(module.get("sha256"))
    for split, found in receipt["data"].items():
        yield ("data", f"{split}.size"), found.get("size")
        yield ("data", f"{split}.fields"), found.get("fields")
        rows = found.get("rows") or {"fingerprint": (found.get("meta") or {}).get("fingerprint")}
        yield ("data", f"{split}.fingerprint"), rows.get("fingerprint")
        yield ("data", f"{split}.sample"), rows.get("sample")


def _start(known: str | None) -> str | None:
    return None if known is None else str(known)[:_MOST_DIGITS]


def _marked(git: Mapping[str, Any]) -> dict[str, str]:
    """Return a short hash of each file that differs from the commit."""
    pieces = f"\n{git.get('diff', '')}".split("\ndiff --git ")[1:]
    changed = {piece.splitlines()[0].split(" b/")[-1]: piece for piece in pieces}
    marks = {name: hashlib.sha256(piece.encode("utf-8", "surrogateescape")) for name, piece in changed.items()}
    untracked = git.get("untracked")
    known = untracked if isinstance(untracked, dict) else {}
    return {name: mark.hexdigest()[:8] for name, mark in marks.items()} | {n: str(h)[:8] for n, h in known.items()}


def pool_of(threads: Mapping[str, Any]) -> int | None:
    """Return how many threads XLA had, as a receipt says it or, of older ones, as it follows; None for unknown."""
    said = (threads.get("pool"), threads.get("NPROC"), threads.get("cpus"))
    return next((int(number) for number in map(str, said) if number.isdecimal()), None)


def _same(first: Any, second: Any) -> bool:
    nan = isinstance(first, float) and isinstance(second, float) and math.isnan(first) and math.isnan(second)
    return nan or first == second
