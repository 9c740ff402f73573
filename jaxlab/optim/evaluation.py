"""The parameters to evaluate, where an optimizer trains others than those that are meant to be used.

Schedule-free methods (Defazio et al. 2024, arXiv 2405.15682) take gradients at points y and promise their bounds for
an average x; sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412) stands at a perturbed point every
other step. Both keep what leads back in their state, where `parameters` looks for it, however deep it is nested.
Usage: ``make_eval_step(..., parameters=evaluation.parameters)``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxlab.core.types import PyTree, TrainState


def parameters(state: TrainState) -> PyTree:
    """Return the moving average if the run keeps one, else the point that the optimizer means, else the parameters."""
    if state.ema is not None:
        return state.ema
    params = state.params
    for held in states_of(state.opt_state, contrib.ScheduleFreeState, contrib.SAMState):
        params = _restored(params, held)
    return params


def kind_of(state: TrainState) -> str:
    """Return which parameters those are: ``ema``, the ``optimizer``'s, or the ``raw`` ones."""
    if state.ema is not None:
        return "ema"
    return "optimizer" if states_of(state.opt_state, contrib.ScheduleFreeState, contrib.SAMState) else "raw"


def states_of(opt_state: PyTree, *kinds: type) -> list[Any]:
    """Return the outermost parts of an optimizer's state that are of these types."""
    parts = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, kinds))
    return [part for part in parts if isinstance(part, kinds)]


def _restored(params: PyTree, held: Any) -> PyTree:
    """Return the parameters with those that an optimizer holds another point for replaced by it."""
    if isinstance(held, contrib.SAMState):
        away = held.steps_since_sync != 0
        return _where_held(lambda p, c: jnp.where(away, c, p), params, held.cache) if held.cache is not None else params
    return _where_held(lambda y, z: (y - (1.0 - held.b1) * z) / held.b1, params, held.z)


def _where_held(restore: Any, params: PyTree, held: PyTree) -> PyTree:
    """Apply `restore` to the parameters that the optimizer has; a masked one has some other optimizer."""
    return jax.tree.map(
        lambda h, p: p if isinstance(h, optax.MaskedNode) else restore(p, h).astype(p.dtype),
        held, params, is_leaf=lambda part: isinstance(part, optax.MaskedNode),
    )  # fmt: skip
