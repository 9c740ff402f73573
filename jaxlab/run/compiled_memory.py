"""What a device holds during a step, as XLA's compiler plans it for a mesh of virtual devices; nothing is executed.

Replicas along ``data`` run the same program, so that two of them are compiled, between which gradients are added, and a
model of any size for thousands of chips takes a minute or two where its layers are scanned. The plan is that of XLA's
CPU backend: others fuse more and keep less, and it computes bfloat16 by float32.
Usage: ``plan = Planner(experiment, devices=8)``; ``plan.compiled(rows=2).total``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlab.core.errors import ConfigError, UsageError
from jaxlab.core.mesh import DATA, FSDP
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import PyTree, TrainState
from jaxlab.run.assemble import Experiment
from jaxlab.run.collectives import Travel, collectives
from jaxlab.train.jit import Jit
from jaxlab.train.parallel import mesh_sizes
from jaxlab.train.placement import Placed
from jaxlab.train.window import single, window_shapes

PARTS = ("params", "opt_state", "ema", "model_state")


class Compiled(NamedTuple):
    """A compiled step on one device, in bytes."""

    held: int  # what stays from step to step, and the batch
    temporary: int  # what comes and goes within a step, at most
    travels: Mapping[str, Travel]

    @property
    def total(self) -> int:
        """All of it."""
        return self.held + self.temporary


class Planner:
    """Compiles an experiment's step for a mesh, for batches of any number of rows."""

    def __init__(self, experiment: Experiment, devices: int, *, all_replicas: bool = False) -> None:
        """Make virtual devices, as many as two replicas along ``data`` need.

        Args:
          experiment: whose step is compiled.
          devices: of the whole mesh.
          all_replicas: whether the program is that of the whole mesh after all; rows are then those of all.

        Raises:
          ConfigError: the mesh does not fit so many devices, or is that of pmap.
          UsageError: JAX runs already on fewer devices.
        """
        config = experiment.config
        self.sizes = mesh_sizes(config.parallel.mesh.to_dict(), devices)
        if config.parallel.strategy == "pmap" and devices > 1:
            raise ConfigError("config.parallel.strategy='pmap': plans are made for 'jit', whose memory is the same")
        compiled = self.sizes if all_replicas else {**self.sizes, DATA: min(2, self.sizes[DATA])}
        self._replicas = compiled[DATA]
        needed = math.prod(compiled.values())
        there = virtual_devices(needed)
        self._experiment = experiment
        self.strategy = Jit(there, compiled, config.parallel.rules, config.parallel.offload)
        self.shapes = experiment.abstract_step()

    @property
    def rows(self) -> int:
        """The rows of a batch that one replica has at least: one a microbatch on each device along ``fsdp``."""
        return self.sizes[FSDP] * self._experiment.config.train.grad_accumulation

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of the state's parts on one device; what lies on the host is left out."""
        found = dict.fromkeys(PARTS, 0)
        for placed in self.placed():
            part = placed.name.partition("/")[0]
            if part in found and not placed.on_host:
                found[part] += placed.bytes
        return found

    def placed(self) -> list[Placed]:
        """Return how each array of the state lies."""
        return self.strategy.placement.describe(self.shapes[0])

    def compiled(self, rows: int) -> Compiled:
        """Return the plan for a batch with `rows` on each replica."""
        state, statistics = self.shapes
        window = window_shapes(statistics)
        like = self.strategy.saved_shapes({"state": state, "window": window})
        batch = self._experiment.abstract_batch(rows=rows * self._replicas)
        chunk = {name: self.strategy.chunk_shape((1, *x.shape), x.dtype) for name, x in batch.items()}
        step = self.strategy.compile(single(self._experiment.train_step(None), None), donate=True, shapes=9)
        program = step.lower(like["state"], like["window"], chunk).compile()
        sizes: Any = program.memory_analysis()
        held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        return Compiled(int(held), int(sizes.temp_size_in_bytes), collectives(program.as_text()))


def virtual_devices(count: int) -> list[jax.Device]:
    """Return `count` CPU devices, made now if JAX has not begun.

    Raises:
      UsageError: it has begun, with fewer.
    """
    with contextlib.suppress(RuntimeError):  # JAX has begun: what is there has to do
        jax.config.update("jax_num_cpu_devices", max(count, jax.config.values["jax_num_cpu_devices"]))
    there = jax.devices("cpu")
    if len(there) < count:
        raise UsageError(f"a plan that compiles for {count} devices needs a new process: JAX runs on {len(there)}")
    return there[:count]


def bytes_of(tree: PyTree) -> int:
    """Return the bytes of all arrays of a tree, or of their shapes."""
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def parameter_count(state: TrainState) -> int:
    """Return the numbers of all parameters."""
    return sum(math.prod(x.shape) for x in named_leaves(state.params).values())
