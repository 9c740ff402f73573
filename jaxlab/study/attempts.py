"""What was tried: a line an attempt in ``attempts.jsonl``, so that a run that fails is reported and never dropped.

Usage: ``write_attempt(folder, outcome)``, ``attempts(folder)``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from jaxlab.core import limits, record
from jaxlab.core.errors import DataError
from jaxlab.study.tasks import Outcome

ATTEMPTS = "attempts.jsonl"


def attempts(folder: Path) -> list[dict[str, Any]]:
    """Return what was tried, in order; a torn last line (a killed writer) is left out.

    Raises:
      DataError: a line is no object with arm, seed and status.
    """
    path = folder / ATTEMPTS
    if not path.is_file():
        return []
    found = []
    for i, line in enumerate(limits.read_bytes(path, limits.LIST_BYTES).split(b"\n")[:-1], 1):
        row = limits.parse_json(line, f"{path}: line {i}")
        if not isinstance(row, dict) or not {"arm", "seed", "status", "seconds", "problem"} <= set(row):
            raise DataError(f"{path}: line {i}: expected an object with arm, seed, status, seconds and problem")
        found.append(row)
    return found


def last_status(folder: Path) -> dict[tuple[str, int], str]:
    """Return how the last attempt at each run ended, by arm and seed."""
    return {(row["arm"], row["seed"]): row["status"] for row in attempts(folder)}


def write_attempt(folder: Path, attempt: Outcome) -> None:
    """Append a line, after dropping what a killed writer left of one."""
    row = {**attempt._asdict(), "time": time.strftime("%Y-%m-%d %H:%M:%S")}
    path = folder / ATTEMPTS
    written = path.read_bytes() if path.is_file() else b""
    if written and not written.endswith(b"\n"):
        record.write_atomically(path, written[: written.rfind(b"\n") + 1].decode())
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(record.jsonable(row)).encode() + b"\n")
