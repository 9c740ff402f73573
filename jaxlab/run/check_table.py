"""The result of ``check`` as tables for a person."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_check(result: dict[str, Any]) -> None:
    """Print to stderr: the config, the parameters, sizes and warnings."""
    console = Console(stderr=True, markup=False)  # brackets in a config are its own
    config = Table("field", "value", title="config")
    for path, value in result["config"].items():
        config.add_row(path, repr(value))
    parameters = Table("parameter", "shape", "count", title=f"{result['parameter_count']:,} parameters")
    for name, leaf in result["parameters"].items():
        parameters.add_row(name, " × ".join(map(str, leaf["shape"])) or "scalar", f"{leaf['count']:,}")
    rules = Table("config.optimizer", "pattern", "value", "arrays", "parameters", title="rules, the first match wins")
    for path, found in result["rules"].items():
        for rule in found:
            names, count = str(len(rule["names"])), f"{rule['size']:,}"
            rules.add_row(path.removeprefix("config.optimizer."), rule["pattern"], repr(rule["value"]), names, count)
    sizes = Table("what", "", title="sizes")
    for split, data in result["data"].items():
        sizes.add_row(
            f"data.{split}", f"{data['size']:,} examples: {', '.join(f'{n} {x}' for n, x in data['fields'].items())}"
        )
    sizes.add_row("epochs", f"{result['epochs']:.1f}")
    for name, size in result["bytes"].items():
        sizes.add_row(name, _bytes(size))
    for policy, size in result["activation_bytes"].items():
        sizes.add_row(f"activations, remat={policy}", _bytes(size))
    sizes.add_row("checkpoint", f"{_bytes(result['checkpoint_bytes'])} of {_bytes(result['free_disk_bytes'])} free")
    if result["flops_per_step"] is not None:
        sizes.add_row("FLOPs a step", f"{result['flops_per_step']:.3g}")
    for table in (config, parameters, *([rules] if result["rules"] else []), sizes):
        console.print(table)
    for line in result["init"]:
        console.print(f"init: {line}", highlight=False, soft_wrap=True)
    for warning in result["warnings"]:
        console.print(f"warning: {warning}", style="yellow", highlight=False)


def _bytes(size: int) -> str:
    return next(
        f"{size / 1024**i:,.1f} {unit}"
        for i, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB"))
        if size < 1024 ** (i + 1)
    )
