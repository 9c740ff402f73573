"""Plans a 1B and an 8B decoder on 8, 256 and 4,096 chips by ``jaxlab check`` and writes the tables of docs/scale.md.

What stands in docs/scale.md above and below the line ``<!-- tables -->`` is kept. Nothing runs but the compiler.
Usage: ``python scripts/plan_scale.py`` (about ten minutes).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE, MARK = ROOT / "docs/scale.md", "<!-- tables -->"
LENGTH = 8192
MODELS = {"1B": "one_b", "8B": "eight_b"}
MESHES = {  # on H100s parameters are split within a node of 8, on v5p over the torus
    ("h100", 8): (1, 8), ("h100", 256): (32, 8), ("h100", 4096): (512, 8),
    ("v5p", 8): (1, 8), ("v5p", 256): (1, 256), ("v5p", 4096): (16, 256),
}  # fmt: skip


def main() -> int:
    """Make the tables."""
    before, _, after = PAGE.read_text().partition(MARK)
    rows = [
        "| model | chips | mesh | GiB a chip (state + rest) | largest batch | step s: compute, memory, sending | MFU "
        "| tokens/s a chip | $ a billion tokens |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, preset in MODELS.items():
        for (chip, count), (data, fsdp) in MESHES.items():
            found = planned(preset, chip, count, data, fsdp)
            rows.append(row(name, chip, count, found))
            print(rows[-1], file=sys.stderr)
    rest = after.partition(MARK)[2]
    PAGE.write_text(f"{before}{MARK}\n\n" + "\n".join(rows) + f"\n\n{MARK}{rest}")
    return 0


def planned(preset: str, chip: str, count: int, data: int, fsdp: int) -> dict[str, Any]:
    """Return the plan that the command makes, of one row a chip."""
    command = [
        sys.executable, "-c", "import sys; from jaxlab.cli import main; sys.exit(main())", "check",
        f"--config={ROOT / 'configs/llama_decoder.py'}:{preset}", f"--devices={count}", f"--hardware={chip}",
        f"--config.train.batch_size={count}", f"--config.parallel.mesh.data={data}",
        f"--config.parallel.mesh.fsdp={fsdp}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["preflight"]


def row(model: str, chip: str, count: int, found: dict[str, Any]) -> str:
    """Return a row of the table."""
    memory, hopes = found["memory"], found["estimate"]
    state = sum(memory[part] for part in ("params", "opt_state", "ema", "model_state"))
    mesh = " × ".join(f"{axis} {size}" for axis, size in found["mesh"].items() if size > 1)
    parts = ", ".join(f"{hopes[part]:.3f}" for part in ("compute", "memory", "communication"))
    rate = LENGTH / hopes["seconds"]
    dollars = found["price_an_hour"] / 3600 / rate * 1e9
    rest = f"{(memory['total'] - state) / 2**30:.1f}{'' if found['fits'] else ', does not fit'}"
    return (
        f"| {model} | {count:,} × {chip} | {mesh} | {state / 2**30:.1f} + {rest} "
        f"| {found['largest_batch']:,} | {hopes['seconds']:.3f}: {parts} "
        f"| {hopes['mfu']:.0%} ({hopes['mfu_worst']:.0%} to {hopes['mfu_best']:.0%}) | {rate:,.0f} | {dollars:,.0f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
