"""Which processes a run has, where each runs and what devices it brings, as one table.

Usage: ``print(topology(board))``, called by every process.
"""

from __future__ import annotations

import json
import os
import socket

import jax

from jaxlab.train.board import Board

_COLUMNS = ("process", "host", "pid", "devices", "kind", "ids")
_MOST_IDS = 8


def topology(board: Board) -> str:
    """Return the table; only process 0's is whole, as only it asks for all."""
    mine = jax.local_devices()
    ids = [str(device.id) for device in mine[:_MOST_IDS]] + (["…"] if len(mine) > _MOST_IDS else [])
    facts = [board.process, socket.gethostname(), os.getpid(), len(mine), mine[0].device_kind, " ".join(ids)]
    board.put(f"topology/{board.process}", json.dumps(facts))
    board.barrier("topology")
    if board.process != 0:
        return ""
    rows = sorted(json.loads(text) for text in board.under("topology").values())
    cells = [_COLUMNS, *([str(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_COLUMNS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    total = sum(row[3] for row in rows)
    return "\n".join([f"{len(rows)} processes, {total} devices", *lines])
