"""How near the memory that ``jaxlab check`` plans is to what the compiled program takes: writes docs/plan_accuracy.md.

The plan compiles two small batches and follows the line; here the config's own batch is compiled as well. Nothing runs.
Usage: ``python scripts/plan_accuracy.py`` (about three minutes).
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
        "Memory of a step on one of 8 virtual devices: planned from two small batches on two replicas, and as the"
        " program for all 8 and the whole batch has it; FLOPs of the step: counted by hand, and by XLA.",
        "`python scripts/plan_accuracy.py`",
        "",
        "| config | batch | planned MiB | compiled MiB | planned / compiled | FLOPs | XLA's FLOPs | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    jax.config.update("jax_num_cpu_devices", DEVICES)
    for case in CASES:
        config = override(jaxlab.load_config(ROOT / case.config), case.overrides)
        experiment = assemble(config)
        planner = Planner(experiment, DEVICES)
        rows = config.train.batch_size // planner.sizes["data"]
        planned = lines(planner)[0].at(rows)
        found = Planner(experiment, DEVICES, all_replicas=True).compiled(rows).total
        flops, xla = flops_of(experiment), counts(experiment)["xla"] or float("nan")
        more = " ".join(f"{path}={value}" for path, value in case.overrides.items())
        table.append(
            f"| `{case.config}` {more} | {config.train.batch_size} | {planned / 2**20:,.1f} | {found / 2**20:,.1f} "
            f"| {planned / found:.3f} | {flops:.4g} | {xla:.4g} | {flops / xla:.3f} |"
        )
        print(table[-1], file=sys.stderr)
    (ROOT / "docs/plan_accuracy.md").write_text("\n".join(table) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
