"""What is not finite: states that must not be saved, and steps that are left out, decided without the host.

Leaving steps out costs a look at every gradient and update, and a choice between two values for every number of the
state; only the policy ``skip`` pays it. Usage: ``state, statistics = left_out(finite, before, after, statistics, 10)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxlab.core.types import Array, PyTree, Statistics, TrainState


def is_finite(*trees: PyTree) -> Array:
    """Return whether the norm of every tree is finite: one that overflows is not."""
    return jnp.isfinite(jnp.stack([optax.tree.norm(tree) for tree in trees])).all()


def left_out(
    finite: Array, before: TrainState, after: TrainState, statistics: Statistics, limit: int
) -> tuple[TrainState, Statistics]:
    """Return `after` where the step is finite, else `before` with only its step counted, and what the window sees.

    The statistics gain ``skipped``: its mean is the share of steps left out. The step after `limit` in a row is left
    out as well, but seen as a loss that is not a number, by which the loop ends the run.

    Args:
      finite: whether the step's loss, gradient and update are; the same on every device.
      before: the state that the step began from.
      after: the state that it made.
      statistics: of the step.
      limit: how many steps in a row may be left out.
    """
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    in_a_row = jnp.where(finite, 0, before.skipped + 1)
    given_up = in_a_row > limit
    seen = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), statistics)
    loss = {name: jnp.where(given_up, jnp.nan, x) for name, x in seen["loss"].items()}
    skipped = {"sum": (~finite & ~given_up).astype(jnp.float32), "weight": jnp.ones(())}
    return kept.replace(step=after.step, skipped=in_a_row), {**seen, "loss": loss, "skipped": skipped}


def intact(state: TrainState) -> Array:
    """Return whether every number of the parameters and of the model's state is finite."""
    leaves = [x for x in jax.tree.leaves((state.params, state.model_state)) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves] or [jnp.bool_(True)]).all()
