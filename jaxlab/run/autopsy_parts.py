"""The pieces in which a step takes its batch, with the very random keys: microbatches, and under pmap devices' shares.

Usage: ``for part in parts_of(experiment, state, batch): ...``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core import rng
from jaxlab.core.types import Array, Batch, HostBatch, TrainState
from jaxlab.run.assemble import Experiment
from jaxlab.train.step import augmented, blank_padding, microbatches


class Part(NamedTuple):
    """A piece of a batch as the objective sees it, its key, and its name in a sentence."""

    batch: Batch
    key: Array
    name: str


def parts_of(experiment: Experiment, state: TrainState, batch: HostBatch, devices: int = 1) -> Iterator[Part]:
    """Yield the parts of a step's batch; `devices` shared it where the run was by pmap."""
    key = rng.key(experiment.config.seed, "train", state.step)
    pieces = experiment.config.train.grad_accumulation
    whole = {name: jnp.asarray(value) for name, value in batch.items()}
    mapped = experiment.config.parallel.strategy == "pmap"
    for device in range(devices if mapped else 1):
        share = whole if not mapped else {n: np.array_split(x, devices)[device] for n, x in whole.items()}
        own = jax.random.fold_in(key, device) if mapped else key
        of_device = f", on device {device}" if mapped else ""
        if pieces == 1:
            yield Part(augmented(blank_padding(share), experiment.device_augment, own), own, of_device)
            continue
        micro, keys = microbatches(share, pieces), jax.random.split(own, pieces)
        for place in range(pieces):
            padded = {name: x[place] for name, x in micro.items()}
            ready = augmented(blank_padding(padded), experiment.device_augment, keys[place])
            yield Part(ready, keys[place], f", in microbatch {place} of {pieces}{of_device}")
