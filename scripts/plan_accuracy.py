"""How near the memory that ``jaxlab check`` plans is to what the compiled program takes: writes docs/plan_accuracy.md.

The plan compiles the config's batch and half of it for two replicas, and follows the line to larger ones. Here the
batch and four times it are compiled for the whole mesh as well. Nothing runs.
Usage: ``python scripts/plan_accuracy.py`` (some minutes).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import jax

import jaxlab
from jaxlab.core.override import override
from jaxlab.run.assemble import assemble
from jaxlab.run.compiled_memory import Planner
from jaxlab.run.flops import flops_of
from jaxlab.run.preflight import counts, lines

ROOT = Path(__file__).resolve().parent.parent
DEVICES = 8


class Case(NamedTuple):
    """A config with its overrides."""

    config: str
    overrides: dict[str, str]


CASES = (
    Case("configs/digits_cnn.py", {}),
    Case("configs/fashion_mnist_cnn.py:resnet", {}),
    Case("configs/shakespeare_decoder.py", {"train.batch_size": "64"}),
    Case("configs/reviews_lstm.py", {}),
    Case("configs/llama_decoder.py", {"train.batch_size": "128"}),
    Case(
        "configs/llama_decoder.py", {"train.batch_size": "64", "parallel.mesh.fsdp": "4", "parallel.mesh.tensor": "2"}
    ),
)


def main() -> int:
    """Write the table and print it."""
    table = [
        "Memory of a step on one of 8 virtual devices: as `jaxlab check` plans it (two replicas compiled; four times"
        " the batch by the line through the batch and its half), and as the compiled program for all 8 has it. FLOPs of"
        " the step: products and convolutions counted from the jaxpr, against XLA's own count of all operations (which"
        " has a loop over time, as in the LSTM, once).",
        "`python scripts/plan_accuracy.py`",
        "",
        "| config | batch | planned MiB | compiled MiB | ratio | 4 ×: planned | compiled | ratio | FLOPs / XLA's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    jax.config.update("jax_num_cpu_devices", DEVICES)
    for case in CASES:
        table.append(row(case))
        print(table[-1], file=sys.stderr)
    (ROOT / "docs/plan_accuracy.md").write_text("\n".join(table) + "\n")
    return 0


def row(case: Case) -> str:
    """Return a row of the table."""
    config = override(jaxlab.load_config(ROOT / case.config), case.overrides)
    experiment = assemble(config)
    planner, whole = Planner(experiment, DEVICES), Planner(experiment, DEVICES, all_replicas=True)
    rows = config.train.batch_size // planner.sizes["data"]
    line = lines(planner, rows)[0]
    cells = []
    for size in (rows, 4 * rows):
        planned, compiled = line.at(size), whole.compiled(size).total
        cells.append(f"{planned / 2**20:,.1f} | {compiled / 2**20:,.1f} | {planned / compiled:.3f}")
    flops = flops_of(experiment) / (counts(experiment)["xla"] or float("nan"))
    more = "".join(f" {path}={value}" for path, value in case.overrides.items())
    return f"| `{case.config}`{more} | {config.train.batch_size} | {' | '.join(cells)} | {flops:.3f} |"


if __name__ == "__main__":
    sys.exit(main())
