"""Speed as ratios in one run on the same work: ``python scripts/benchmark.py NAME``.

NAME is loop, data, models, metrics, checkpoint, parallel or seeds. Options: ``--repeats=7 --only=CASE --output=docs``.
Prints a table and, as the last line, JSON; with ``--output`` also writes ``benchmark_NAME.md`` and ``.json`` there.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import jax

from jaxlab.run.environment import available_cpus, cpu, versions

PACKAGES = ("jax", "jaxlib", "flax", "numpy")
PEERS = ("keras", "torch")


def main() -> int:
    """Run the benchmark that the arguments name."""
    parser = argparse.ArgumentParser(description="Measure speed as ratios.")
    parser.add_argument("benchmark", choices=["loop", "data", "models", "metrics", "checkpoint", "parallel", "seeds"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="", help="measure the cases whose name contains this")
    parser.add_argument("--output", type=Path, help="folder to write the table and JSON to")
    arguments = parser.parse_args()
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)  # not after an hour of measuring
    run = importlib.import_module(f"benchmark_{arguments.benchmark}").run
    found = run(arguments.only, arguments.repeats)  # first, as it may choose how many devices there are
    result = {"machine": machine(), "repeats": arguments.repeats, **found}
    text = table(result)
    print(text)
    if arguments.output:
        (arguments.output / f"benchmark_{arguments.benchmark}.md").write_text(text + "\n")
        (arguments.output / f"benchmark_{arguments.benchmark}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 0


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    found = {name: version for name, version in versions().items() if name in PACKAGES}
    for name in PEERS:
        if any(True for _ in importlib.metadata.distributions(name=name)):
            found[name] = importlib.metadata.version(name)
    return {"cpus": available_cpus(), "cpu": cpu(), "device": jax.devices()[0].device_kind, "packages": found}


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    machine = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        f"{result['about']} ({machine['cpus']} processors, {machine['cpu']}; {machine['device']}; {packages}).",
        "",
        f"| case | variant | {result['unit']} | ratio |",
        "|---|---|---|---|",
    ]
    for row in result["rows"]:
        ratio = f"{row['ratio']:.3f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]" if "ratio" in row else ""
        rate = f"{row['rate']:,.{result.get('digits', 1)}f}"
        lines.append(f"| {row['case']} | {row['variant']} | {rate} | {ratio} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
