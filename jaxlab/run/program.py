"""The fingerprint of the compiled step: a change of code or library that changes the program is noticed.

Usage: ``note(folder, step, plan.single.lower(state, window, chunk).as_text())``.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import DataError
from jaxlab.train.across import writes

_log = logging.getLogger("jaxlab")


def note(folder: Path, step: int, text: str) -> None:
    """Write down the program by which a run goes on from `step`, where it is not the one before.

    Args:
      folder: the run's.
      step: already taken.
      text: the lowered program, before XLA optimises it: StableHLO, with what is split over which axes.
    """
    known = programs(folder)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if not writes() or (known and known[-1]["sha256"] == digest):
        return
    if known and known[-1]["step"] < step:
        _log.warning(
            "the step is compiled from another program than before step %d: the run's last bits may differ", step
        )
    kept = [each for each in known if each["step"] < step]
    record.write_json(folder / record.PROGRAMS, {"programs": [*kept, {"step": step, "sha256": digest}]})


def programs(folder: Path) -> list[dict[str, Any]]:
    """Return the programs of a run in order: ``sha256``, and the ``step`` from which on it was used.

    Raises:
      DataError: the file holds something else.
    """
    path = folder / record.PROGRAMS
    found = record.read_json(path).get("programs", [])
    if not isinstance(found, list) or not all(isinstance(x, dict) and {"step", "sha256"} <= set(x) for x in found):
        raise DataError(f"{path}: 'programs' is no list of objects with 'step' and 'sha256'")
    return found
