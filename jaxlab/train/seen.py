"""A rolling hash of the example ids that training has seen, made within the compiled step: proof of the data's order.

Integers wrap, so that sums over rows and devices have no order: one device or many, `jit` or `pmap`, hash alike.
Shape letters: B rows of a batch on a device.
Usage: ``ids = roll(ids, batch["id"], batch_axis=None)``, once a step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlab.core.types import Array

_FNV_PRIME = 0x01000193  # Fowler, Noll and Vo: makes the order of steps count
_GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio: tells places apart


def roll(ids: Array, id_B: Array, batch_axis: str | None) -> Array:
    """Return the hash, uint32, after one more batch; `ids` is the hash before it, 0 at the beginning.

    Args:
      ids: uint32.
      id_B: the batch's ids, or under pmap those of this device.
      batch_axis: the mapped axis, or None.
    """
    place_B = jnp.arange(id_B.shape[0], dtype=jnp.uint32)
    if batch_axis is not None:
        place_B = place_B + jax.lax.axis_index(batch_axis).astype(jnp.uint32) * id_B.shape[0]
    mixed_B = _mix(id_B.astype(jnp.uint32) + place_B * jnp.uint32(_GOLDEN))
    total = jnp.sum(mixed_B, dtype=jnp.uint32)
    if batch_axis is not None:
        total = jax.lax.psum(total, batch_axis)
    return ids * jnp.uint32(_FNV_PRIME) + total


def _mix(x: Array) -> Array:
    """Return each uint32 with its bits mixed (lowbias32: Wellons 2018, "Prospecting for Hash Functions")."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
