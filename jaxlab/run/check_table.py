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
    lies = result["preflight"]["parameters"] if result["preflight"] else {}
    more = ("split over", "bytes a device") if lies else ()
    parameters = Table("parameter", "shape", "count", *more, title=f"{result['parameter_count']:,} parameters")
    for name, leaf in result["parameters"].items():
        cells = (lies[name]["split"], _bytes(lies[name]["bytes"])) if lies else ()
        parameters.add_row(name, " × ".join(map(str, leaf["shape"])) or "scalar", f"{leaf['count']:,}", *cells)
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
    sizes.add_row("FLOPs a step", f"{result['flops_per_step']:.4g} in products and convolutions")
    planned = _planned(result["preflight"]) if result["preflight"] else []
    for table in (config, parameters, *([rules] if result["rules"] else []), sizes, *planned):
        console.print(table)
    for line in result["init"]:
        console.print(f"init: {line}", highlight=False, soft_wrap=True)
    for warning in result["warnings"]:
        console.print(f"warning: {warning}", style="yellow", highlight=False)


def _planned(found: dict[str, Any]) -> list[Table]:
    """Return the tables of a plan: a device's memory, what travels, and on named hardware time and cost."""
    mesh = " × ".join(f"{axis} {size}" for axis, size in found["mesh"].items() if size > 1) or "one device"
    memory = Table("bytes a device", "", title=f"a step on {found['devices']} devices: {mesh}")
    for name, size in found["memory"].items():
        memory.add_row(name, _bytes(size))
    memory.add_row("more with each row of a replica", _bytes(found["bytes_a_row"]))
    for name, reason in found["left_whole"].items():
        memory.add_row(f"left whole: {name}", reason)
    travels = Table("a step sends", "times", "bytes a device", title="communication")
    for kind, travel in found["collectives"].items():
        travels.add_row(kind, f"{travel['count']:,}", _bytes(travel["bytes"]))
    if found["gradients_over_data"]:
        travels.add_row("all-reduce of gradients over data", "1", _bytes(found["gradients_over_data"]))
    flops = Table("FLOPs a step", "", title="computation")
    for name, count in found["flops"].items():
        flops.add_row(name, "not counted" if count is None else f"{count:.4g}")
    return [memory, travels, flops, *([_estimated(found)] if "estimate" in found else [])]


def _estimated(found: dict[str, Any]) -> Table:
    known, hopes = found["hardware"], found["estimate"]
    table = Table("on hardware", "", title=f"{found['devices']} × {known['name']}")
    table.add_row("verdict", "fits" if found["fits"] else "does not fit")
    table.add_row("memory", f"{_bytes(found['memory']['total'])} of {_bytes(found['usable_bytes'])} usable")
    table.add_row("largest batch that fits", f"{found['largest_batch']:,}")
    for change in found.get("would_fit", ()):
        told = f"{_bytes(change['bytes'])}{'' if change['fits'] else ', not enough alone'}"
        table.add_row(f"with {change['change']}", told)
    table.add_row("step", f"{hopes['seconds']:.3g} s (between {hopes['best']:.3g} and {hopes['worst']:.3g})")
    for part in ("compute", "memory", "communication"):
        table.add_row(f"  {part}", f"{hopes[part]:.3g} s")
    table.add_row("MFU", f"{hopes['mfu']:.1%} (between {hopes['mfu_worst']:.1%} and {hopes['mfu_best']:.1%})")
    table.add_row(
        "whole run", f"{found['hours']:.3g} h, ${found['dollars']:,.0f} at ${found['price_an_hour']:g} a chip-hour"
    )
    for assumption in hopes["assumptions"]:
        table.add_row("assumed", assumption)
    return table


def _bytes(size: int) -> str:
    return next(
        f"{size / 1024**i:,.1f} {unit}"
        for i, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB"))
        if size < 1024 ** (i + 1)
    )
