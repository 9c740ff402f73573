"""Scaled dot-product attention with many heads, its masks, and its keys and values while decoding.

Vaswani et al. 2017 (arXiv 1706.03762), section 3.2; heads that share keys and values as in grouped-query attention
(Ainslie et al. 2023, arXiv 2305.13245). A query that may attend to nothing gets zeros, in every implementation, so what
is masked never shows. Knows no layer around it.
Shape letters: B batch, T queries, S keys, D features, N heads of queries, K heads of keys, G = N / K, H a head's width,
U = G × T. Masks are boolean, true where a query may attend, [B, T, S] or 1 in place of a letter.
Usage: ``y_BTD = Attention(...)(x_BTD, None, combine(causal(T), keys(mask_BS)), train=train)``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.mesh import BATCH, SEQUENCE, TENSOR, constrain, is_split
from jaxlab.core.types import Array
from jaxlab.models.dense import Dense
from jaxlab.models.positions import rotate

IMPLEMENTATIONS = ("einsum", "xla", "cudnn")
HIDDEN = -1e30  # far below any score, and finite after it is added to one
Initializer = nn.initializers.Initializer


def causal(length: int) -> Array:
    """Return the mask [1, T, T] that lets each position see itself and those before it."""
    return jnp.tril(jnp.ones((1, length, length), bool))


def keys(mask_BS: Array) -> Array:
    """Return the mask [B, 1, S] that hides padded keys, whose `mask_BS` is 0."""
    return (mask_BS > 0)[:, None, :]


def same_segment(segments_BT: Array) -> Array:
    """Return the mask [B, T, T] that keeps the documents of a packed row apart; padding, 0, is one of them."""
    return segments_BT[:, :, None] == segments_BT[:, None, :]


def combine(*masks: Array | None) -> Array | None:
    """Return where all the given masks are true, or None where none is given."""
    result = None
    for mask_BTS in masks:
        if mask_BTS is not None:
            result = mask_BTS if result is None else result & mask_BTS
    return result


def attend(
    q_BTNH: Array,
    k_BSKH: Array,
    v_BSKH: Array,
    mask_BTS: Array | None = None,
    *,
    is_causal: bool = False,
    implementation: str = "einsum",
    drop: Callable[[Array], Array] | None = None,
) -> Array:
    """Return the values [B, T, N, H] weighted by the softmax of the scaled scores, which is taken in float32.

    Args:
      q_BTNH: queries; query head n reads key head ``n // (N / K)``.
      k_BSKH: keys.
      v_BSKH: values.
      mask_BTS: which keys a query may attend to; None for all.
      is_causal: whether, beside the mask, a query sees only keys up to its own place; T must be S.
      implementation: ``einsum``, written out here, or ``xla`` or ``cudnn`` of `jax.nn.dot_product_attention`.
      drop: dropout of the attention weights. `jax.nn.dot_product_attention` has none, so ``einsum`` does the work.
    """
    if is_causal and (mask_BTS is not None or implementation == "einsum" or drop is not None):
        mask_BTS, is_causal = combine(causal(q_BTNH.shape[1]), mask_BTS), False
    if implementation == "einsum" or drop is not None:
        out_BTNH = _einsum_attention(q_BTNH, k_BSKH, v_BSKH, mask_BTS, drop)
    else:
        multiple = 2 if implementation == "cudnn" else 1  # its gradient takes no odd numbers of places
        out_BTNH = fused_attention(q_BTNH, k_BSKH, v_BSKH, mask_BTS, is_causal, implementation, multiple)
    if mask_BTS is None:
        return out_BTNH
    return jnp.where(mask_BTS.any(axis=-1)[..., None, None], out_BTNH, 0)


def fused_attention(
    q_BTNH: Array,
    k_BSKH: Array,
    v_BSKH: Array,
    mask_BTS: Array | None,
    is_causal: bool,
    implementation: str,
    multiple: int,
) -> Array:
    """Attend by `jax.nn.dot_product_attention`, with queries and keys filled up to a `multiple` of places."""
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    more_T, more_S = -T % multiple, -S % multiple
    mask_BNTS = lengths_B = None
    if mask_BTS is not None:  # cuDNN broadcasts B and N alone
        mask_BTS = jnp.broadcast_to(mask_BTS, (len(mask_BTS), T, S))
        mask_BNTS = jnp.pad(mask_BTS, ((0, 0), (0, more_T), (0, more_S)))[:, None]
    elif more_S and not is_causal:  # causality hides the keys at the end by itself
        lengths_B = jnp.full(len(k_BSKH), S, jnp.int32)
    q_BTNH = jnp.pad(q_BTNH, ((0, 0), (0, more_T), (0, 0), (0, 0)))
    k_BSKH, v_BSKH = (jnp.pad(x, ((0, 0), (0, more_S), (0, 0), (0, 0))) for x in (k_BSKH, v_BSKH))
    out_BTNH = jax.nn.dot_product_attention(
        q_BTNH, k_BSKH, v_BSKH, mask=mask_BNTS, is_causal=is_causal, key_value_seq_lengths=lengths_B,
        implementation=implementation,
    )  # fmt: skip
    return out_BTNH[:, :T]


def _einsum_attention(
    q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask_BTS: Array | None, drop: Callable[[Array], Array] | None
) -> Array:
    """Attend with heads before places and one division an output: a third less time on the CPU than `jax.nn`'s.

    exp(score) is multiplied with the values before it is divided by its sum, which is the same and saves a pass over
    all T × S weights, forward and backward.
    """
    B, T, N, H = q_BTNH.shape
    q_BKUH = q_BTNH.swapaxes(1, 2).reshape(B, k_BSKH.shape[2], -1, H)
    k_BKSH, v_BKSH = k_BSKH.swapaxes(1, 2), v_BSKH.swapaxes(1, 2)
    score_BKUS = jnp.einsum("BKUH,BKSH->BKUS", q_BKUH, k_BKSH, preferred_element_type=jnp.float32)
    if mask_BTS is not None:  # added: the gradient of a choice would be one more pass
        bias_BTS = jnp.broadcast_to(jnp.where(mask_BTS, 0.0, HIDDEN), (len(mask_BTS), T, k_BSKH.shape[1]))
        score_BKUS += jnp.tile(bias_BTS, (1, N // k_BSKH.shape[2], 1))[:, None]
    highest_BKU1 = jax.lax.stop_gradient(score_BKUS.max(axis=-1, keepdims=True))
    weight_BKUS = jnp.exp((score_BKUS - highest_BKU1) * H**-0.5)
    total_BKU1 = weight_BKUS.sum(axis=-1, keepdims=True)
    weight_BKUS = weight_BKUS.astype(v_BSKH.dtype)
    if drop is not None:
        weight_BKUS = drop(weight_BKUS)
    sum_BKUH = jnp.einsum("BKUS,BKSH->BKUH", weight_BKUS, v_BKSH, preferred_element_type=jnp.float32)
    out_BKUH = (sum_BKUH / total_BKU1).astype(v_BSKH.dtype)
    return out_BKUH.reshape(B, N, T, H).swapaxes(1, 2)


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
            return "xla"  # `_einsum_attention` joins places and heads, for which XLA would gather the queries
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
