"""The verdict on two runs that should be one: equal bits, within a tolerance, or different, and where first.

Usage: ``judge(Reader(one), one, other, step=100)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlab.run.differences import Row, first_row, row_distances, rows_of, same_ids
from jaxlab.run.journal import IDS
from jaxlab.run.leaves import Leaves, Reader, differing, digest, distances

TOLERANCE = 1e-3
"""How far parameters, their average and a model's own state may be from each other, relative to the norm of all, and a
loss from a loss, relative to the larger of it and 1. Sums in another order differ by 1e-7, which every step amplifies:
a run of thousands of steps may leave this behind with nothing wrong."""

EQUAL, NEAR, DIFFERENT = "equal bits", "within tolerance", "different"
_JUDGED = ("state/params", "state/ema", "state/model_state")


def judge(reader: Reader, one: Path, other: Path, step: int | None, last: float) -> dict[str, Any]:
    """Return how the run at `other` compares with that at `one`.

    Args:
      reader: of either.
      one: a run.
      other: a run of the same config.
      step: at which both have saved a state; None compares rows only.
      last: the last step whose rows are compared.

    Returns:
      ``verdict``; ``problems``, sentences; ``first``, the step, column and leaf of the first difference; ``leaves`` and
      ``rows``, how many were compared; ``ids``: equal, different or not recorded; ``largest``, differences by name.
    """
    states = [{} if step is None else reader.read(run, step) for run in (one, other)]
    rows = rows_of(one, last), rows_of(other, last)
    odd, row = differing(*states), first_row(*rows)
    largest: dict[str, float] = {}
    problems: list[str] = []
    if odd:
        problems.append(_about_leaf(states, odd, step))
    if row is not None:
        problems.append(f"the row of step {row['step']}: {row['name']} is {row['first']} and {row['second']}")
    ids = same_ids(*rows)
    if ids is False:
        problems.append(f"other examples were seen: {IDS} differs{_first_ids(*rows)}")
    if problems:
        largest = distances(*states) | row_distances(*rows)
    same_rows = [[(r["step"], sorted(r)) for r in found] for found in rows]
    near = ids is not False and same_rows[0] == same_rows[1] and all(map(_is_near, largest, largest.values()))
    return {
        "verdict": (NEAR if near else DIFFERENT) if problems else EQUAL,
        "problems": problems,
        "first": {"step": row["step"] if row else step if odd else None, "column": row and row["name"],
                  "leaf": odd[0] if odd else None},
        "leaves": len(states[0]),
        "rows": len(rows[0]),
        "ids": {True: "equal", False: "different", None: "not recorded"}[ids],
        "largest": {name: value for name, value in sorted(largest.items(), key=lambda item: -item[1]) if value},
    }  # fmt: skip


def _is_near(name: str, value: float) -> bool:
    """Say whether a difference is tolerated: of what is not judged any that is a number, as it is only reported."""
    return value <= (TOLERANCE if name.startswith(_JUDGED) or name.endswith("/loss") else float("1e300"))


def _about_leaf(states: Sequence[Leaves], odd: Sequence[str], step: int | None) -> str:
    hashes = [digest(leaf[odd[0]])[:12] if odd[0] in leaf else "absent" for leaf in states]
    more = f", and {len(odd) - 1} more of {len(states[0])} leaves" if len(odd) > 1 else ""
    return f"the state at step {step}: {odd[0]} has SHA-256 {hashes[0]} and {hashes[1]}{more}"


def _first_ids(one: Sequence[Row], other: Sequence[Row]) -> str:
    """Return from which row on, where that can be said."""
    found = [{row["step"]: row[IDS] for row in rows if IDS in row} for rows in (one, other)]
    steps = [step for step, value in found[0].items() if found[1].get(step) != value]
    return f" from the row of step {min(steps)} on" if steps else ""
