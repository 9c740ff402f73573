"""What travels between devices in a step, read from the compiled program.

A collective within a loop counts as often as the loop runs, which XLA writes down for scans.
Usage: ``collectives(compiled.as_text())``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8,
          "s64": 8, "u64": 8}  # fmt: skip
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_WHILE = re.compile(r" while\(.*body=%?([\w.\-]+)")
_TURNS = re.compile(r'"known_trip_count":\s*\{"n":"(\d+)"\}')
_CALL = re.compile(r"(?:to_apply|calls|called_computations=\{)=?%?([\w.\-]+)")


class Travel(NamedTuple):
    """How often a kind of collective happens in a step, and the bytes of the results on one device."""

    count: int
    bytes: int


def collectives(text: str) -> dict[str, Travel]:
    """Return by kind what a program's collectives move, as its text says it."""
    lines = _computations(text)
    times = _times(lines)
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for name, body in lines.items():
        for shapes, kind in (found.groups() for line in body if (found := _COLLECTIVE.search(line))):
            counts[kind] += times.get(name, 0)
            sizes[kind] += times.get(name, 0) * _size(shapes)
    return {kind: Travel(counts[kind], sizes[kind]) for kind in KINDS if counts[kind]}


def _computations(text: str) -> dict[str, list[str]]:
    """Return the lines of each computation by its name; the entry's is empty."""
    found: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        opened = _COMPUTATION.match(line)
        if opened:
            name = "" if line.startswith("ENTRY") else opened[1]
            found[name] = []
        elif name is not None:
            found[name].append(line)
    return found


def _times(lines: dict[str, list[str]]) -> Counter[str]:
    """Return how often each computation runs in a step."""
    times: Counter[str] = Counter()
    open_ = [("", 1)]
    while open_:
        name, count = open_.pop()
        times[name] += count
        for line in lines.get(name, ()):
            loop = _WHILE.search(line)
            if loop:
                turns = _TURNS.search(line)
                open_.append((loop[1], count * (int(turns[1]) if turns else 1)))
            elif " call(" in line or " conditional(" in line:
                open_ += [(called, count) for called in _CALL.findall(line)]
    return times


def _size(shapes: str) -> int:
    arrays = _ARRAY.findall(shapes)
    return sum(_BYTES.get(kind, 0) * math.prod(int(n) for n in dims.split(",") if n) for kind, dims in arrays)
