"""The bookkeeping of decoding's cache: which slots hold tokens, and the rows that go on.

Shape letters: B rows, T new tokens, S slots, K heads of keys, H a head's width, D features, N rows taken.
Usage: ``slot, positions_BT, mask_BTS = Slots()(token_mask_BT, slots)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.types import Array, PyTree


class Slots(nn.Module):
    """The cache's bookkeeping: which slots are filled with tokens, and how many tokens each row has had.

    Collection ``cache``: ``slot`` [] the first free slot, the same for all rows; ``length`` [B] the tokens of each row
    so far; ``filled`` [B, S] the slots that hold a token. Rows of different lengths are padded on either side: padding
    takes a slot that nothing attends to, and no position.
    """

    @nn.compact
    def __call__(self, token_mask_BT: Array, slots: int) -> tuple[Array, Array, Array]:
        """Take T more slots; return the first of them, the tokens' positions [B, T] and the mask [B, T, S]."""
        B, T = token_mask_BT.shape
        if slots < T:
            raise ValueError(f"{T} tokens at once do not fit into a cache of {slots} slots")
        first = self.variable("cache", "slot", jnp.zeros, (), jnp.int32)
        length_B = self.variable("cache", "length", jnp.zeros, (B,), jnp.int32)
        filled_BS = self.variable("cache", "filled", jnp.zeros, (B, slots), bool)
        slot, real_BT = first.value, token_mask_BT > 0
        filled_BS.value = jax.lax.dynamic_update_slice(filled_BS.value, real_BT, (0, slot))
        positions_BT = jnp.maximum(length_B.value[:, None] + jnp.cumsum(real_BT, axis=1) - 1, 0)
        seen_TS = jnp.arange(filled_BS.value.shape[1]) <= slot + jnp.arange(T)[:, None]
        length_B.value = length_B.value + real_BT.sum(axis=1, dtype=jnp.int32)
        first.value = slot + T
        return slot, positions_BT, filled_BS.value[:, None] & seen_TS


def nan_beyond(result_BTD: Array, slot: Array, slots: int) -> Array:
    """Return the result of T tokens from `slot` on, or nan where they did not fit into the cache's `slots`."""
    return jnp.where(slot + result_BTD.shape[1] > slots, jnp.nan, result_BTD)


def take_rows(cache: PyTree, rows_N: Array) -> PyTree:
    """Return the cache of the given rows, which may repeat: beams that go on, or each prompt several times."""
    axes = {"cached_key": -4, "cached_value": -4, "memory_key": -4, "memory_value": -4}

    def take(path: tuple[jax.tree_util.DictKey, ...], leaf: Array) -> Array:
        return leaf if leaf.ndim == 0 else jnp.take(leaf, rows_N, axis=axes.get(path[-1].key, 0))

    return jax.tree_util.tree_map_with_path(take, cache)
