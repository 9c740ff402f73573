"""The ``doctor`` command: what this machine has, and what would go wrong on it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from jaxlab.run import environment

_TIGHT_BYTES = 2 * 2**30


def doctor() -> dict[str, Any]:
    """Return the machine's devices, versions and warnings, having run one computation on a device."""
    import jax
    import jax.numpy as jnp

    began = time.monotonic()
    value = float(jax.jit(lambda x: (x @ x).sum())(jnp.ones((64, 64))))
    devices = environment.devices()
    free = shutil.disk_usage(Path.cwd()).free
    result = {
        "python": sys.version.split()[0],
        "packages": environment.versions(),
        "devices": devices,
        "cpus": environment.available_cpus(),
        "computes": value == 64.0**3,
        "first_computation_seconds": round(time.monotonic() - began, 2),
        "free_disk_gib": round(free / 2**30, 1),
        "tfds_data_dir": os.environ.get("TFDS_DATA_DIR", str(Path("~/tensorflow_datasets").expanduser())),
        "warnings": [],
    }
    result["warnings"] = _warnings(result, free)
    return result


def _warnings(found: dict[str, Any], free: int) -> list[str]:
    warnings = []
    if not found["computes"]:
        warnings.append("a 64×64 matrix product on the device gave a wrong sum")
    if found["devices"]["backend"] == "cpu" and (shutil.which("nvidia-smi") or Path("/dev/accel0").exists()):
        warnings.append("there is an accelerator, but JAX uses the CPU: install jaxlab[cuda12], [cuda13] or [tpu]")
    if found["devices"]["backend"] == "cpu" and found["devices"]["count"] > 1:
        warnings.append(
            "several virtual CPU devices: each step waits for the one before, since jax 0.10 deadlocks otherwise"
        )
    if importlib.util.find_spec("tensorflow"):
        warnings.append(
            "TensorFlow is installed; jaxlab does not use it, and it may take the GPU's memory when imported"
        )
    if free < _TIGHT_BYTES:
        warnings.append(f"only {free / 2**30:.1f} GiB free on this disk")
    return warnings
