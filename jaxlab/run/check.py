"""The ``check`` command: a whole experiment checked in seconds by abstract evaluation, without training."""

from __future__ import annotations

import logging
import math
import os
import shutil
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxlab.core.config import flatten
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import PyTree
from jaxlab.run.assemble import assemble, strategy_of
from jaxlab.run.check_memory import activation_bytes
from jaxlab.run.environment import describe_source
from jaxlab.run.flops import flops_of
from jaxlab.run.hardware import chip
from jaxlab.run.optimizer import rule_matches
from jaxlab.run.overheard import overheard
from jaxlab.run.preflight import preflight


def check(
    config: ConfigDict,
    workdir: str | os.PathLike[str] | None = None,
    devices: int = 0,
    hardware: str = "",
    price: float | None = None,
) -> dict[str, Any]:
    """Return the resolved config, the data, the parameters, the step's cost and warnings.

    Args:
      config: complete.
      workdir: where the run would be written, to compare checkpoints with the free disk; the current folder if None.
      devices: how many the step is compiled for, virtual ones; 0 compiles nothing.
      hardware: a chip's name, for what fits, how fast it may be and what it costs.
      price: of a chip and hour in US dollars, instead of the list's.

    Raises:
      ConfigError, DataError: what would stop the run.
    """
    if hardware:
        chip(hardware)  # a wrong name is told before anything is opened
    experiment = assemble(config)
    planned = preflight(experiment, devices or _asked(config), hardware, price) if devices or hardware else None
    if planned is None:
        strategy_of(config)
    said: list[logging.LogRecord] = []
    with overheard(said):
        experiment.initial_values()
    state, _ = experiment.abstract_step()
    leaves = named_leaves(state.params)
    batch = _bytes(experiment.abstract_batch())
    checkpoint = _bytes(state)
    rules = rule_matches(config.optimizer, state.params)
    result = {
        "config": flatten(config),
        "data": {split: describe_source(source) for split, source in experiment.sources.items()},
        "model_input": {name: f"{x.dtype}{list(x.shape)}" for name, x in experiment.data.example.items()},
        "epochs": config.train.steps * config.train.batch_size / len(experiment.sources["train"]),
        "parameters": {n: {"shape": list(x.shape), "dtype": str(x.dtype), "count": x.size} for n, x in leaves.items()},
        "parameter_count": sum(x.size for x in leaves.values()),
        "bytes": {
            "parameters": _bytes(state.params), "optimizer": _bytes(state.opt_state),
            "model_state": _bytes(state.model_state), "ema": _bytes(state.ema), "batch": batch,
        },
        "init": [line.getMessage() for line in said],
        "rules": {path: [match._asdict() for match in matches] for path, matches in rules.items()},
        "activation_bytes": activation_bytes(experiment),
        "flops_per_step": flops_of(experiment),
        "checkpoint_bytes": checkpoint,
        "free_disk_bytes": shutil.disk_usage(_existing(Path(workdir) if workdir else Path.cwd())).free,
    }  # fmt: skip
    return {**result, "preflight": planned, "warnings": _warnings(config, result)}


def _asked(config: ConfigDict) -> int:
    """Return how many devices the mesh names, an open axis counted as one."""
    return math.prod(size for size in config.parallel.mesh.values() if size > 0)


def _warnings(config: ConfigDict, found: dict[str, Any]) -> list[str]:
    warnings = []
    train = config.train
    needed = found["checkpoint_bytes"] * (train.keep + 2)  # the latest, the best, and the one being written
    if needed > found["free_disk_bytes"]:
        warnings.append(f"checkpoints need {needed:,} bytes, but only {found['free_disk_bytes']:,} are free")
    if found["epochs"] < 1:
        warnings.append(
            f"the run sees only {found['epochs']:.2f} of the training data (config.train.steps={train.steps})"
        )
    if "valid" not in config.data:
        warnings.append("no config.data.valid: no checkpoint is chosen as best")
    if train.eval_every > train.steps:
        warnings.append(
            f"config.train.eval_every={train.eval_every} is more than the {train.steps} steps: only the end is measured"
        )
    warnings += [
        f"{path}: the rule {rule['pattern']!r} decides about no parameter"
        for path, rules in found["rules"].items()
        for rule in rules[:-1]
        if not rule["names"]
    ]
    if train.batch_size > found["data"]["train"]["size"]:
        warnings.append(
            f"config.train.batch_size={train.batch_size} is more than the {found['data']['train']['size']} examples"
        )
    return warnings


def _bytes(tree: PyTree) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _existing(path: Path) -> Path:
    path = path.expanduser().resolve()
    return path if path.exists() else _existing(path.parent)
