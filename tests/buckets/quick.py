"""The tiny network for runs in buckets, with leases that are lost within seconds, and looks at what changed as often.

Usage: ``jaxlab train --config=tests/buckets/quick.py:slow --workdir=s3://…``.
"""

from __future__ import annotations

from typing import Any

import tiny
from jax._src.lib import xla_client
from ml_collections import ConfigDict

from jaxlab.core.config import spec
from jaxlab.run import lease, mirrored

lease.BEAT, lease.GONE, lease._SETTLED, mirrored.EVERY = 0.5, 5.0, 0.5, 0.5


def get_config() -> ConfigDict:
    """Return the network, whose steps take as long as they do."""
    config = tiny.cnn()
    config.train.update({"steps": 60, "eval_every": 22, "checkpoint_every": 20, "keep": 9})
    return config


def slow() -> ConfigDict:
    """Return the same, to be disturbed."""
    config = get_config()
    config.hooks.slow = spec("process_plugins:slow_hook", seconds=0.6)
    return config


def fsdp() -> ConfigDict:
    """Return the network with its parameters spread over two devices."""
    config = get_config()
    config.parallel.mesh.update({"data": 1, "fsdp": 2})
    return config


def slow_fsdp() -> ConfigDict:
    """Return the same, to be disturbed."""
    config = slow()
    config.parallel.mesh.update({"data": 1, "fsdp": 2})
    return config


def swapped() -> ConfigDict:
    """Return `fsdp` where JAX numbers the two processes' devices the other way round, as it may on a TPU pod."""
    made = xla_client.make_cpu_client

    def make_swapped(**given: Any) -> Any:
        given["node_id"] = given["num_nodes"] - 1 - given["node_id"]
        return made(**given)

    xla_client.make_cpu_client = make_swapped
    return fsdp()


def slow_swapped() -> ConfigDict:
    """Return the same, to be disturbed."""
    swapped()
    return slow_fsdp()
