"""Commands that several processes run together: joining, speaking once, leaving together. Alone, it imports nothing."""

from __future__ import annotations

import argparse
import sys


def join(parsed: argparse.Namespace) -> None:
    """Join the other processes, if flags or surroundings say that there are any."""
    from jaxlab.run.processes import find_place
    from jaxlab.run.processes import join as join_at

    place = find_place(parsed.coordinator, parsed.processes, parsed.process)
    if place is not None:
        join_at(place)


def joined() -> bool:
    """Say whether there are other processes."""
    processes = sys.modules.get("jaxlab.run.processes")
    return processes is not None and processes.joined()


def is_first() -> bool:
    """Say whether this process speaks for all."""
    return not joined() or sys.modules["jaxlab.train.board"].number() == 0


def left(code: int) -> int:
    """Return the exit code once the other processes, if there are any, agree to end."""
    return sys.modules["jaxlab.run.processes"].leave(code) if joined() else code
