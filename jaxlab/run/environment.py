"""What a run ran on: versions, code, devices, threads and data, for ``environment.json`` and ``doctor``.

The receipt is enough for ``jaxlab reproduce``, so long as its code and data can still be had.
Usage: ``record.write_json(workdir / record.ENVIRONMENT, describe(sources))``.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxlab.core.types import Source
from jaxlab.run.code import git_state
from jaxlab.run.fingerprints import data_fingerprint, own_modules, package_folder, package_hash

PACKAGES = ("jaxlab", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "ml-collections", "numpy",
            "scipy", "tensorflow-datasets", "scikit-learn", "pandas", "pillow", "pyarrow", "tokenizers",
            "sacrebleu")  # fmt: skip
SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable")
_VARIABLES = ("JAX_", "XLA_", "NPROC", "OMP_NUM_THREADS", "CUBLAS_", "NCCL_", "NVIDIA_TF32_")  # how names begin
_MOST_FACTS = 1000  # of one kind, such as class names


def describe(sources: Mapping[str, Source]) -> dict[str, Any]:
    """Return the receipt of a run's surroundings; XLA's bits on the CPU follow ``threads``, ``cpu`` and ``devices``."""
    return {
        "command": sys.argv,
        "cwd": str(Path.cwd()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu(),
        "packages": versions(),
        "git": git_state(),
        "jaxlab": {"folder": str(package_folder()), "sha256": package_hash()},
        "modules": own_modules(),
        "devices": devices(),
        "threads": threads(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "settings": {name: _plain(jax.config.values[name]) for name in SETTINGS if name in jax.config.values},
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
        "data": {split: describe_source(source) for split, source in sources.items()},
    }


def describe_source(source: Source) -> dict[str, Any]:
    """Return a source's size, fields, facts and what tells its rows from others."""
    data = source.spec
    fields = {name: f"{x.dtype}{list(x.shape)}" for name, x in data.example.items()}
    facts = {name: _plain(value) for name, value in data.meta.items()}
    return {"size": data.size, "fields": fields, "meta": facts, "rows": data_fingerprint(source)}


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


def threads() -> dict[str, Any]:
    """Return the processors that this process may use, what ``NPROC`` asks for, and so the threads of XLA's pool."""
    cpus, asked = available_cpus(), os.environ.get("NPROC")
    return {"cpus": cpus, "NPROC": asked, "pool": int(asked) if asked and asked.isdigit() else cpus}


def available_cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu() -> str:
    """Return the processor's name, as XLA makes other code for other ones."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(child) for name, child in value.items()}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    items = [str(item) for item in value]
    more = len(items) - _MOST_FACTS
    return items if more <= 0 else [*items[:_MOST_FACTS], f"and {more} more"]
