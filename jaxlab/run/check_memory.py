"""What the backward pass keeps of the forward pass, found by tracing alone, and what remat would change about it.

Usage: ``activation_bytes(experiment)``; ``{"none": …}`` for a model without remat.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import jax
import numpy as np

from jaxlab.core import rng
from jaxlab.core.config import build
from jaxlab.core.types import Array, Batch, PyTree
from jaxlab.run.assemble import Experiment
from jaxlab.train.apply import Bound
from jaxlab.train.precision import compute_dtype

REMAT = "remat"  # the field of a model's config that chooses what is computed again
POLICIES = ("none", "dots", "full")


def activation_bytes(experiment: Experiment) -> dict[str, int]:
    """Return the bytes of a microbatch's activations that wait for the backward pass, by the model's remat policy.

    Counted on the whole microbatch, before XLA fuses: what a device holds is this over the number of devices, at most.
    A model that has no choice of remat has the one entry ``none``.
    """
    node = experiment.config.model
    if REMAT not in node:
        return {"none": kept_bytes(experiment)}
    return {policy: kept_bytes(with_model_field(experiment, REMAT, policy)) for policy in POLICIES}


def kept_bytes(experiment: Experiment) -> int:
    """Return the bytes of the values that differentiating the loss keeps, beside parameters and batch themselves."""
    train = experiment.config.train
    model, dtype = experiment.make_model(None), compute_dtype(train.precision)
    state = jax.eval_shape(experiment.init)
    batch = experiment.abstract_batch(rows=max(1, train.batch_size // train.grad_accumulation))

    def backward(params: PyTree, model_state: PyTree, batch: Batch, key: Array) -> PyTree:
        def loss(params: PyTree) -> Array:
            return experiment.objective(Bound(model, params, model_state, key, dtype, train=True), batch).total

        return jax.vjp(loss, params)[1]

    key = jax.eval_shape(lambda: rng.key(0, "train", 0))
    traced = jax.make_jaxpr(backward)(state.params, state.model_state, batch, key).jaxpr
    given = {id(variable) for variable in (*traced.invars, *traced.constvars)}
    kept = {id(variable): variable.aval for variable in traced.outvars if id(variable) not in given}
    return sum(math.prod(aval.shape) * _itemsize(aval) for aval in kept.values() if hasattr(aval, "shape"))


def _itemsize(aval: Any) -> int:
    return aval.dtype.itemsize if isinstance(aval.dtype, np.dtype) else 8  # a random key is two words


def with_model_field(experiment: Experiment, name: str, value: Any) -> Experiment:
    """Return the experiment with a field of its model changed; one whose model has no such field as it is."""
    if name not in experiment.config.model:
        return experiment
    config = copy.deepcopy(experiment.config)
    with config.unlocked():
        config.model[name] = value

    def make_model(batch_axis: str | None) -> Any:
        context = {"data": experiment.data, "total_steps": config.train.steps, "batch_axis": batch_axis}
        return build(config.model, path="config.model", **context)

    return experiment._replace(config=config, make_model=make_model)
