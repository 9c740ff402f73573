"""All faults that jaxlab is proved against: ``python scripts/faults.py [kills processes checkpoints disk inputs]``.

Prints a table and, as the last line, JSON; with ``--output=docs`` also writes ``faults.md`` and ``faults.json`` there.
Exit code 1 where anything was lost. All together take half an hour on two cores.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KINDS = ("kills", "processes", "checkpoints", "disk", "inputs")


def main() -> int:
    """Run the kinds of faults that the arguments name, or all."""
    parser = argparse.ArgumentParser(description="Prove jaxlab against faults.")
    parser.add_argument("kinds", nargs="*", default=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--output", type=Path, help="folder to write the table and JSON to")
    arguments = parser.parse_args()
    unknown = [kind for kind in arguments.kinds if kind not in KINDS]
    if unknown:
        parser.error(f"{unknown[0]}: no such kind of fault; expected {', '.join(KINDS)}")
    rows: list[dict[str, Any]] = []
    for kind in arguments.kinds:
        began = time.monotonic()
        with compiled_once():
            found = importlib.import_module(f"faults_{kind}").run()
        rows += [{"fault": row["fault"], "runs": row["runs"], "losses": row["losses"], "script": kind} for row in found]
        print(f"{kind}: {time.monotonic() - began:.0f} s\n{table(rows)}", file=sys.stderr, flush=True)
    text = table(rows)
    print(text)
    if arguments.output:
        (arguments.output / "faults.md").write_text(text + "\n")
        (arguments.output / "faults.json").write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    print(json.dumps({"rows": rows}))
    return int(any(row["losses"] for row in rows))


@contextmanager
def compiled_once() -> Iterator[None]:
    """Let the trainings that are started within share what they compile, on a CPU: most of a short one's time."""
    with tempfile.TemporaryDirectory(prefix="jaxlab-compiled-") as folder:
        wanted = {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PLATFORMS": "cpu",
        }
        before = dict(os.environ)
        os.environ.update({**wanted, **before})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = ["| fault | tried | lost | by |", "|---|---|---|---|"]
    lines += [f"| {r['fault']} | {r['runs']} | {r['losses']} | `scripts/faults_{r['script']}.py` |" for r in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
