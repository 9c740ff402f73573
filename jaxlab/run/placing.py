"""Says how a state lies on a mesh: what is split, and what a rule would split and cannot.

Usage: ``log_placement(strategy.placed(state))``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from jaxlab.train.placement import Placed

_log = logging.getLogger("jaxlab")
_MOST = 8  # arrays that are named in one line


def described(placed: Placed) -> str:
    """Return over what each dimension is split: ``fsdp × tensor``, with a dash for one that is whole."""
    return " × ".join("+".join(names) or "-" for names in placed.axes) if any(placed.axes) else "whole"


def left_whole(found: Sequence[Placed]) -> dict[str, str]:
    """Return the parameters that a rule would split and that stay whole, with the axes that do not divide them."""
    return {
        each.name: ", ".join(each.left_whole) for each in found if each.left_whole and each.name.startswith("params/")
    }


def log_placement(found: Sequence[Placed]) -> None:
    """Log how many parameters are split, the bytes that a device has of the state, and what stays whole."""
    params = [each for each in found if each.name.startswith("params/")]
    split = [each for each in params if any(each.axes)]
    whole = left_whole(found)
    if not split and not whole:
        return
    held = sum(each.bytes for each in found if not each.on_host)
    _log.info("%d of %d parameters are split; a device has %s bytes of the state", len(split), len(params), f"{held:,}")
    if whole:
        named = [f"{name.removeprefix('params/')} ({reason})" for name, reason in list(whole.items())[:_MOST]]
        more = f" and {len(whole) - _MOST} more" if len(whole) > _MOST else ""
        _log.warning("whole on every device, as axes do not divide them: %s%s", ", ".join(named), more)
