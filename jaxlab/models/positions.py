"""What tells a Transformer the order of its tokens: sinusoids, a learned table, or a rotation of queries and keys.

Shape letters: B batch, T tokens, D features, N heads, H a head's width, P positions.
Usage: ``x_BTD += sinusoidal(positions_BT, D)``; `rotate` is called by the attention.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.types import Array


def in_order(tokens_BT: Array) -> Array:
    """Return the positions [B, T] 0, 1, 2 ... of each row."""
    return jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape[:2])


def sinusoidal(positions_BT: Array, width: int) -> Array:
    """Return [B, T, width] float32: sines in the even features, cosines in the odd ones.

    Vaswani et al. 2017 (arXiv 1706.03762), section 3.5; the wavelengths go from 2 pi to 10000 times that.
    """
    rate_D = 10000.0 ** (-jnp.arange(0, width, 2) / width)
    angle_BTD = positions_BT[..., None].astype(jnp.float32) * rate_D
    pair_BTD2 = jnp.stack([jnp.sin(angle_BTD), jnp.cos(angle_BTD)], axis=-1)
    return pair_BTD2.reshape(*positions_BT.shape, -1)[..., :width]


def rotate(x_BTNH: Array, positions_BT: Array, base: float = 10000.0) -> Array:
    """Return the heads' features turned in pairs by angles proportional to the position.

    Rotary embedding (Su et al. 2021, arXiv 2104.09864, section 3.4.2): the product of a query and a key so turned
    depends on their distance alone. Feature h is paired with h + H / 2 and not with its neighbour as in the paper: the
    same up to a permutation of a projection's columns, and the layout of published weights.
    """
    half = x_BTNH.shape[-1] // 2
    rate_H = base ** (-jnp.arange(half) / half)
    angle_BTNH = positions_BT[..., None, None].astype(jnp.float32) * rate_H
    cos, sin = jnp.cos(angle_BTNH), jnp.sin(angle_BTNH)
    a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)


class Learned(nn.Module):
    """A table with a row a position, as GPT-2 and BERT have."""

    max_length: int
    width: int
    table_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, positions_BT: Array) -> Array:
        """Return the positions' rows [B, T, D]."""
        table_PD = self.param("embedding", self.table_init, (self.max_length, self.width))
        return jnp.take(table_PD, positions_BT, axis=0)
