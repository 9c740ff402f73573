"""Which examples are at fault: the rows of a tensor, or those whose loss is not finite though they stand alone.

Shape letters: D devices, B rows of a device's piece.
Usage: ``examples_of(part, bad)`` of `rows_of_tensor` or `rows_alone`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core.types import Batch, PyTree, TrainState
from jaxlab.run.autopsy_parts import Part, Pieces
from jaxlab.train.probe import Sighting

_MOST_SHOWN = 20
_MOST_ROWS = 256  # each is a pass over a batch of its own: of more rows it is not cheap


def rows_of_tensor(part: Part, seen: Sighting) -> np.ndarray | None:
    """Return which real rows [B] or [D, B] a tensor's bad numbers belong to; None where that tells nothing."""
    real = np.asarray(part.batch["mask"]) > 0
    bad = np.zeros(real.shape, bool)
    own = bad if bad.ndim == 1 else bad[seen.device]
    if seen.rows.shape != own.shape:
        return None
    own[:] = seen.rows
    bad &= real
    return None if not bad.any() or (bad == real).all() else bad


def rows_alone(
    pieces: Pieces, state: TrainState, model_state: PyTree, part: Part, batch: Batch, backward: bool
) -> np.ndarray | None:
    """Return of which real rows the loss, or with `backward` the gradient, is not finite though there is no other.

    The row takes the places of all others as well, of which only its own counts, so that shapes and random numbers stay
    what they were, and no other row can spoil a sum. None where there are too many rows to try.
    """
    mask = np.asarray(part.batch["mask"])
    if mask.size > _MOST_ROWS:
        return None
    function = pieces.gradients() if backward else pieces.totals()

    @jax.jit
    def sound(batch: Batch, index: tuple[jax.Array, ...]) -> jax.Array:
        alone = {name: jnp.broadcast_to(x[index], x.shape) for name, x in batch.items()}
        alone["mask"] = jnp.zeros_like(batch["mask"]).at[index].set(batch["mask"][index])
        found = function(state.params, model_state, alone, part.key)
        leaves = [found[0][0], found[1]] if backward else found[0]
        return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(leaves)]).all()

    bad = np.zeros(mask.shape, bool)
    for index in zip(*np.nonzero(mask > 0), strict=True):
        bad[index] = not sound(batch, tuple(jnp.asarray(i) for i in index))
    return bad


def examples_of(part: Part, bad: np.ndarray | None) -> dict[str, Any]:
    """Return ``examples``, the ids at fault, ``rows``, where they stood in the batch, and ``blame``, in words."""
    if bad is None:
        return no_examples("which examples it comes from was not found out")
    real = np.asarray(part.batch["mask"]) > 0
    if not bad.any():
        return no_examples("of no example alone: it takes several together")
    blame = "of every example" if (bad == real).all() else "of these examples"
    return examples(np.asarray(part.batch["id"])[bad], part.rows[bad], blame)


def examples(ids: np.ndarray, rows: np.ndarray, blame: str) -> dict[str, Any]:
    """Return the facts about some examples."""
    order = np.argsort(rows, kind="stable")
    shown = [[int(x) for x in values[order][:_MOST_SHOWN]] for values in (np.asarray(ids), np.asarray(rows))]
    return {"examples": shown[0], "rows": shown[1], "examples_n": len(ids), "blame": blame}


def no_examples(blame: str = "") -> Mapping[str, Any]:
    """Return the facts where no example is at fault."""
    return {"examples": [], "rows": [], "examples_n": 0, "blame": blame}
