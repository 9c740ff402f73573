"""What a run ran on: versions, code, devices, threads and data, for ``environment.json`` and ``doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax

from jaxlab.core.types import Source

PACKAGES = ("jaxlab", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "ml-collections", "numpy",
            "tensorflow-datasets", "scikit-learn", "pandas", "pyarrow", "sacrebleu")  # fmt: skip
_LONGEST_DIFF = 200_000
_MOST_FACTS = 1000  # of one kind, such as class names


def describe(sources: Mapping[str, Source]) -> dict[str, Any]:
    """Return the receipt of a run's surroundings; XLA's bits on the CPU follow ``threads`` and ``devices``."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(),
        "git": git_state(),
        "devices": devices(),
        "threads": {"cpus": available_cpus(), "NPROC": os.environ.get("NPROC")},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "data": {split: describe_source(source) for split, source in sources.items()},
    }


def describe_source(source: Source) -> dict[str, Any]:
    """Return a source's size, fields and facts."""
    data = source.spec
    fields = {name: f"{x.dtype}{list(x.shape)}" for name, x in data.example.items()}
    return {"size": data.size, "fields": fields, "meta": {name: _plain(value) for name, value in data.meta.items()}}


def versions() -> dict[str, str]:
    """Return the installed version of each package that results may depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def devices() -> dict[str, Any]:
    """Return the backend, and the number and kind of its devices."""
    all_devices = jax.devices()
    return {
        "backend": jax.default_backend(),
        "kind": all_devices[0].device_kind,
        "count": len(all_devices),
        "processes": jax.process_count(),
    }


def available_cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def git_state() -> dict[str, Any]:
    """Return the commit of the working directory's repository and what differs from it; empty outside of one."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    diff = _git("diff", "HEAD") or ""
    return {
        "commit": commit.strip(),
        "dirty": bool(diff),
        "diff": diff[:_LONGEST_DIFF],
        "cut": len(diff) > _LONGEST_DIFF,
    }


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(child) for name, child in value.items()}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    items = [str(item) for item in value]
    more = len(items) - _MOST_FACTS
    return items if more <= 0 else [*items[:_MOST_FACTS], f"and {more} more"]
