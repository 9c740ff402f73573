"""What a run cost: parameters, operations of all its steps, seconds. Usage: ``of_runs([folder, ...])``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlab.core import record
from jaxlab.core.errors import DataError
from jaxlab.train import manifest

_PARAMETERS = "state/params/"


def of_runs(folders: Sequence[Path], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the cost of a run, in the mean over those of an arm.

    Args:
      folders: of finished runs of one config but for the seed.
      known: an earlier result for the same config, whose operations need not be counted again.
    """
    config = record.read_config(folders[0])
    return {
        "parameters": parameters(folders[0]),
        "flops": known["flops"] if known else flops(folders[0]),
        "seconds": sum(_seconds(folder) for folder in folders) / len(folders),
        "steps": config.train.steps,
    }


def parameters(folder: Path) -> int:
    """Return how many numbers the run's parameters are, from the latest checkpoint's list of leaves.

    Raises:
      DataError: the run has no checkpoint.
    """
    steps = [path for path in (folder / record.CHECKPOINTS).glob("*") if path.name.isdigit()]
    found = manifest.read(max(steps, key=lambda path: int(path.name))) if steps else None
    if found is None:
        raise DataError(f"{folder / record.CHECKPOINTS} holds no checkpoint that says how large the model is")
    return sum(math.prod(shape) for name, (shape, _) in found.leaves.items() if name.startswith(_PARAMETERS))


def flops(folder: Path) -> float:
    """Return the operations of all steps of a run: matrix products and convolutions, forward and backward."""
    from jaxlab.run.assemble import assemble
    from jaxlab.run.flops import flops_of

    config = record.trusted_config(folder)
    experiment = assemble(config, ("train",), record.read_learnt(folder))
    return flops_of(experiment) * config.train.steps


def _seconds(folder: Path) -> float:
    """Return the wall seconds of a run's training; those of seeds that shared a program are shared among them."""
    together = record.read_json(folder / record.ENVIRONMENT).get("seeds", [])
    shared = len(together) if record.read_json(folder / record.ENVIRONMENT).get("form") == "together" else 1
    return record.read_json(folder / record.SUMMARY)["wall"] / max(1, shared)
