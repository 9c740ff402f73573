"""The same bits again on a GPU, for ``config.deterministic``: what XLA needs is set before JAX finds its devices.

On a CPU and a TPU, XLA gives the same bits for the same program, devices and threads anyway.
"""

from __future__ import annotations

import logging
import os

import jax

from jaxlab.core.errors import UsageError

_log = logging.getLogger("jaxlab")
FLAGS = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_exclude_nondeterministic_ops=true")


def make_deterministic() -> None:
    """Add the flags to this process's ``XLA_FLAGS``; a program that has no deterministic form fails to compile.

    Costs what XLA's choice of the fastest kernels by trial gains, and atomic additions: scatters, such as the gradient
    of an embedding, become sorts.

    Raises:
      UsageError: JAX has its devices already, which read the flags as they began.
    """
    given = os.environ.get("XLA_FLAGS", "").split()
    lacking = [flag for flag in FLAGS if flag not in given]
    if not lacking:
        return
    if _has_devices():
        raise UsageError(
            "config.deterministic=true has to be set before JAX finds its devices, which it has done; start a new "
            f"process, or set XLA_FLAGS='{' '.join(FLAGS)}' before"
        )
    os.environ["XLA_FLAGS"] = " ".join([*given, *lacking])


def say_cost() -> None:
    """Log what determinism costs on the devices at hand."""
    kind = jax.default_backend()
    costs = "kernels chosen by trial, and sorts for atomic additions" if kind == "gpu" else "nothing"
    _log.info("config.deterministic=true costs, on this %s: %s", kind, costs)


def _has_devices() -> bool:
    """Say whether JAX has devices: only then it refuses to change how many it would make of a CPU."""
    count = jax.config.jax_num_cpu_devices
    try:
        jax.config.update("jax_num_cpu_devices", 1 if count != 1 else 2)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", count)
    return False
