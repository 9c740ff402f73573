"""Attention with many heads as a layer: its projections, and its keys and values while decoding.

Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.2. Knows no layer around it.
Shape letters: B batch, T queries, S keys, D features, N heads of queries, K heads of keys, H a head's width.
Masks are boolean, true where a query may attend, [B, T, S] or 1 in place of a letter.
Usage: ``y_BTD = Attention(...)(x_BTD, None, combine(causal(T), keys(mask_BS)), train=train)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.mesh import BATCH, SEQUENCE, TENSOR, constrain, is_split
from jaxlab.core.types import Array
from jaxlab.models.attend import attend
from jaxlab.models.dense import Dense
from jaxlab.models.positions import rotate

Initializer = nn.initializers.Initializer


class Attention(nn.Module):
    """Queries of `x`, keys and values of `x` itself or of a memory; all heads' outputs are projected to `x`'s width."""

    heads: int
    kv_heads: int
    head_width: int
    bias: bool
    is_causal: bool
    rotary_base: float
    dropout: float
    implementation: str
    kernel_init: Initializer
    output_init: Initializer

    @nn.compact
    def __call__(
        self,
        x_BTD: Array,
        memory_BSD: Array | None = None,
        mask_BTS: Array | None = None,
        positions_BT: Array | None = None,
        slot: Array | None = None,
        *,
        cross: bool = False,
        train: bool,
    ) -> Array:
        """Return [B, T, D].

        Args:
          x_BTD: what asks.
          memory_BSD: what is asked in cross-attention; None while decoding takes the keys that the cache holds.
          mask_BTS: which keys each query may see; while decoding over the cache's S slots, causality included.
          positions_BT: of the tokens, for the rotation; none is turned where `rotary_base` is 0.
          slot: the cache's first free slot; None where all tokens are there at once.
          cross: whether keys and values are the memory's.
          train: whether weights are dropped.
        """
        q_BTNH = self._project("query", x_BTD, self.heads)
        if cross:
            k_BSKH, v_BSKH = self._remembered(memory_BSD, slot)
        else:
            k_BSKH, v_BSKH = (self._project(name, x_BTD, self.kv_heads) for name in ("key", "value"))
            if self.rotary_base:
                q_BTNH, k_BSKH = (rotate(x, positions_BT, self.rotary_base) for x in (q_BTNH, k_BSKH))
            if slot is not None:
                k_BSKH = self._write("cached_key", k_BSKH, slot, mask_BTS.shape[-1])
                v_BSKH = self._write("cached_value", v_BSKH, slot, mask_BTS.shape[-1])
        # a long sequence's queries stay where they are, and its keys and values are gathered
        q_BTNH = constrain(q_BTNH, BATCH, SEQUENCE, TENSOR, None)
        k_BSKH, v_BSKH = (constrain(x, BATCH, None, TENSOR, None) for x in (k_BSKH, v_BSKH))
        drop = nn.Dropout(self.dropout, deterministic=False) if train and self.dropout else None
        out_BTNH = attend(
            q_BTNH, k_BSKH, v_BSKH, mask_BTS, is_causal=self.is_causal and not cross and slot is None,
            implementation=self._implementation(q_BTNH.dtype, slot), drop=drop,
        )  # fmt: skip
        out_BTNH = constrain(out_BTNH, BATCH, SEQUENCE, TENSOR, None)
        out_BTD = out_BTNH.reshape(*x_BTD.shape[:2], -1)
        return Dense(x_BTD.shape[-1], self.bias, kernel_init=self.output_init, name="output")(out_BTD)

    def _project(self, name: str, x_BTD: Array, heads: int) -> Array:
        out = Dense(heads * self.head_width, self.bias, kernel_init=self.kernel_init, name=name)(x_BTD)
        return out.reshape(*x_BTD.shape[:2], heads, self.head_width)

    def _implementation(self, dtype: jnp.dtype, slot: Array | None) -> str:
        """Return the implementation; cuDNN's is for training and evaluation, not for one query at a time."""
        if self.implementation == "einsum" and is_split(SEQUENCE):
            return "xla"  # einsum's joins places and heads, for which XLA would gather the queries
        if self.implementation != "cudnn":
            return self.implementation
        if slot is not None or self.is_initializing():
            return "xla"
        if dtype not in (jnp.bfloat16, jnp.float16):
            raise ConfigError(
                f"config.model.attention='cudnn': cuDNN's attention has no {dtype}; expected "
                "config.train.precision='bfloat16', or config.model.attention='xla'"
            )
        return "cudnn"

    def _write(self, name: str, x_BTKH: Array, slot: Array, slots: int) -> Array:
        """Put the new keys or values into the cache at `slot`; return all of it, [B, S, K, H]."""
        B, _, K, H = x_BTKH.shape
        cache = self.variable("cache", name, jnp.zeros, (B, slots, K, H), x_BTKH.dtype)
        cache.value = jax.lax.dynamic_update_slice(cache.value, x_BTKH.astype(cache.value.dtype), (0, slot, 0, 0))
        return cache.value

    def _remembered(self, memory_BSD: Array | None, slot: Array | None) -> tuple[Array, Array]:
        """Return the memory's keys and values, which decoding computes once and then takes from the cache."""
        names = ("key", "value")
        if memory_BSD is None:
            k_BSKH, v_BSKH = (self.get_variable("cache", f"memory_{name}") for name in names)
            if k_BSKH is None:
                raise ValueError("the first call of decode needs the memory")
            return k_BSKH, v_BSKH
        k_BSKH, v_BSKH = (self._project(name, memory_BSD, self.kv_heads) for name in names)
        if slot is not None:
            self.put_variable("cache", "memory_key", k_BSKH)
            self.put_variable("cache", "memory_value", v_BSKH)
        return k_BSKH, v_BSKH
