"""Scaled dot-product attention of given queries, keys and values, and the masks that say who sees whom.

Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.1, with heads that share keys and values as in grouped-query
attention (Ainslie et al. 2023, arXiv 2305.13245). A query that may attend to nothing gets zeros, in every
implementation, so what is masked never shows.
Shape letters: B batch, T queries, S keys, N heads of queries, K heads of keys, G = N / K, H a head's width, U = G × T.
Masks are boolean, true where a query may attend, [B, T, S] or 1 in place of a letter.
Usage: ``out_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, combine(causal(T), keys(mask_BS)))``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxlab.core.types import Array

IMPLEMENTATIONS = ("einsum", "xla", "cudnn")
HIDDEN = -1e30  # far below any score, and finite after it is added to one
PARTS, SHORT = 4, 128  # of the queries of causal attention, and of fewer it is all one part


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
    T, einsum = q_BTNH.shape[1], implementation == "einsum" or drop is not None
    parts = PARTS if is_causal and T >= SHORT else 1
    may_see_nothing = mask_BTS is not None
    if is_causal and (mask_BTS is not None or einsum):
        mask_BTS, is_causal = combine(causal(T), mask_BTS), False
    if einsum:
        out_BTNH = _einsum_attention(q_BTNH, k_BSKH, v_BSKH, mask_BTS, drop, parts)
    else:
        multiple = 2 if implementation == "cudnn" else 1  # its gradient takes no odd numbers of places
        out_BTNH = fused_attention(q_BTNH, k_BSKH, v_BSKH, mask_BTS, is_causal, implementation, multiple)
    if not may_see_nothing:
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
    q_BTNH: Array,
    k_BSKH: Array,
    v_BSKH: Array,
    mask_BTS: Array | None,
    drop: Callable[[Array], Array] | None,
    parts: int,
) -> Array:
    """Attend part by part of the queries, where there are several, each to the keys up to its own end: it is causal.

    Four parts are five eighths of the scores, and smaller ones: a decoder's attention takes half the time on the CPU.
    """
    if parts == 1:
        return _weighted(q_BTNH, k_BSKH, v_BSKH, mask_BTS, drop)
    T = q_BTNH.shape[1]
    ends = [T * part // parts for part in range(1, parts + 1)]
    # not slices: the gradient of one is the whole, zeros about it
    q_parts, k_parts, v_parts = (jnp.split(x, ends[:-1], axis=1) for x in (q_BTNH, k_BSKH, v_BSKH))
    outs = []
    for part, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        k, v = (jnp.concatenate(x[: part + 1], axis=1) for x in (k_parts, v_parts))
        outs.append(_weighted(q_parts[part], k, v, mask_BTS[:, begin:end, :end], drop))
    return jnp.concatenate(outs, axis=1)


def _weighted(
    q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask_BTS: Array | None, drop: Callable[[Array], Array] | None
) -> Array:
    """Attend with heads before places and one division an output: a third less time on the CPU than `jax.nn`'s.

    The T outputs are divided by the sum of the exp(score), not the T × S weights, which is the same and saves a pass,
    forward and backward. So does a scale of queries in place of scores, in float32: bfloat16 would round them again.
    """
    B, T, N, H = q_BTNH.shape
    exact = q_BTNH.dtype == jnp.float32
    q_BTNH, scale = (q_BTNH * H**-0.5, 1.0) if exact else (q_BTNH, H**-0.5)
    q_BNTH, k_BKSH, v_BKSH = (x.swapaxes(1, 2) for x in (q_BTNH, k_BSKH, v_BSKH))
    K, S = k_BKSH.shape[1:3]
    score_BKUS = jnp.einsum("BKUH,BKSH->BKUS", q_BNTH.reshape(B, K, -1, H), k_BKSH, preferred_element_type=jnp.float32)
    if mask_BTS is not None:  # added: the gradient of a choice would be one more pass
        bias_BTS = jnp.broadcast_to(jnp.where(mask_BTS, 0.0, HIDDEN), (len(mask_BTS), T, S))
        score_BKUS += jnp.tile(bias_BTS, (1, N // K, 1))[:, None]
    highest_BKU1 = jax.lax.stop_gradient(score_BKUS.max(axis=-1, keepdims=True))
    weight_BKUS = jnp.exp((score_BKUS - highest_BKU1) * scale)
    total_BKU1 = weight_BKUS.sum(axis=-1, keepdims=True)
    weight_BKUS = weight_BKUS.astype(v_BKSH.dtype)
    if drop is not None:
        weight_BKUS = drop(weight_BKUS)
    sum_BKUH = jnp.einsum("BKUS,BKSH->BKUH", weight_BKUS, v_BKSH, preferred_element_type=jnp.float32)
    return (sum_BKUH / total_BKU1).astype(v_BKSH.dtype).reshape(B, N, T, H).swapaxes(1, 2)
