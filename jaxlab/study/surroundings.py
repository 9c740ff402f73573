"""What a report says of the machine and code that its numbers come from. Usage: ``surroundings(run_folder)``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.study.page import Grid, Part, Text

_PACKAGES = ("jaxlab", "jax", "jaxlib", "flax", "optax", "numpy")


def surroundings(run: Path) -> list[Part]:
    """Return the parts about what a run ran on, from its receipt."""
    found = record.read_json(run / record.ENVIRONMENT)
    if not found:
        return []
    rows = [
        ["python, system", f"{found['python']}, {found['platform']}"],
        ["devices", _devices(found["devices"])],
        ["packages", ", ".join(f"{name} {found['packages'][name]}" for name in _PACKAGES)],
        ["code", _code(found["git"])],
        *(
            [f"data, {split}", f"{each['size']:,} rows, {_digest(each['rows'])}"]
            for split, each in found["data"].items()
        ),
    ]
    text = "## Environment\n\nOf the first run; each run has its own in `environment.json`."
    return [Text(text), Grid(("what", "value"), rows)]


def _devices(devices: dict[str, Any]) -> str:
    count = devices["count"]
    return f"{count} {devices['kind']} ({devices['backend']}), {devices['processes']} process(es)"


def _code(git: Any) -> str:
    if not git:
        return "not in a git repository"
    changed = " with changes that are not committed" if git["diff"] else ""
    return f"`{git['commit'][:12]}`{changed}"


def _digest(rows: Any) -> str:
    return f"fingerprint `{(rows['fingerprint'] or rows['sample'])[:12]}`"
