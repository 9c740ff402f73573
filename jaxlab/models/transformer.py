"""The Transformer's layers, for embedded inputs of any kind: feed-forward, block, and a stack of blocks.

One set serves encoder, decoder and encoder-decoder: Vaswani et al. 2017 (arXiv 1706.03762, section 3) with the options
of its followers: normalisation before the sublayers (Xiong et al. 2020, arXiv 2002.04745) or by root mean square (Zhang
& Sennrich 2019, arXiv 1910.07467), gated feed-forwards (Shazeer 2020, arXiv 2002.05202), stochastic depth (Huang et al.
2016, arXiv 1603.09382). Knows no tokens: see `jaxlab.models.embedding`.
Shape letters: B batch, T tokens, S keys, D width, F hidden width, L layers.
Usage: ``y_BTD = Stack(Layers(width=64, depth=2, heads=4, is_causal=True))(x_BTD, mask_BTS, train=train)``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.mesh import BATCH, SEQUENCE, TENSOR, constrain
from jaxlab.core.types import Array
from jaxlab.models.attention import Attention
from jaxlab.models.dense import Dense
from jaxlab.models.positions import in_order
from jaxlab.models.transformer_options import ACTIVATIONS, GATES, REMAT, Layers


class Context(NamedTuple):
    """What all blocks see beside their input; see `Stack`."""

    mask: Array | None
    positions: Array | None
    memory: Array | None
    memory_mask: Array | None
    slot: Array | None


class FeedForward(nn.Module):
    """Two projections with an activation between, or three where it is gated."""

    layers: Layers

    @nn.compact
    def __call__(self, x_BTD: Array, *, train: bool) -> Array:
        """Return [B, T, D]."""
        layers = self.layers
        activate = ACTIVATIONS[GATES.get(layers.activation, layers.activation)]
        project = functools.partial(Dense, use_bias=layers.bias)
        h_BTF = project(layers.hidden_width, kernel_init=layers.kernel_init, name="up")(x_BTD)
        if layers.activation in GATES:
            gate_BTF = project(layers.hidden_width, kernel_init=layers.kernel_init, name="gate")(x_BTD)
            h_BTF = activate(gate_BTF) * h_BTF
        else:
            h_BTF = activate(h_BTF)
        h_BTF = constrain(h_BTF, BATCH, SEQUENCE, TENSOR)
        h_BTF = nn.Dropout(layers.hidden_dropout, deterministic=not train)(h_BTF)
        return project(x_BTD.shape[-1], kernel_init=layers.output_init, name="down")(h_BTF)


class Block(nn.Module):
    """Self-attention, attention to a memory if there is one, and a feed-forward, each beside a shortcut."""

    layers: Layers
    train: bool

    @nn.compact
    def __call__(self, x_BTD: Array, skip_rate: Array, context: Context) -> tuple[Array, None]:
        """Return the new `x` in the form that a scan wants, with nothing else."""
        layers, train = self.layers, self.train
        inputs = (None, context.mask, context.positions, context.slot)
        attention, feed_forward = self._attention("attention"), FeedForward(layers, name="feed_forward")
        x_BTD = self._beside("attention", lambda x: attention(x, *inputs, train=train), x_BTD, skip_rate)
        if layers.cross:
            cross, memory = self._attention("cross_attention"), (context.memory, context.memory_mask)
            options = {"slot": context.slot, "cross": True, "train": train}
            x_BTD = self._beside("cross_attention", lambda x: cross(x, *memory, **options), x_BTD, skip_rate)
        x_BTD = self._beside("feed_forward", lambda x: feed_forward(x, train=train), x_BTD, skip_rate)
        return x_BTD, None

    def _attention(self, name: str) -> Attention:
        layers = self.layers
        return Attention(
            layers.heads, layers.kv_heads or layers.heads, layers.width // layers.heads, layers.bias, layers.is_causal,
            layers.rotary_base, layers.attention_dropout, layers.attention, layers.kernel_init, layers.output_init,
            name=name,
        )  # fmt: skip

    def _beside(self, name: str, sublayer: Callable[[Array], Array], x_BTD: Array, skip_rate: Array) -> Array:
        """Return `x` plus the sublayer's result, dropped out and for some examples skipped; normalised in between."""
        normalise = self.layers.normalise(f"{name}_norm")
        y_BTD = sublayer(normalise(x_BTD) if self.layers.pre_norm else x_BTD)
        y_BTD = nn.Dropout(self.layers.dropout, deterministic=not self.train)(y_BTD)
        if self.train and self.layers.stochastic_depth:
            shape = (x_BTD.shape[0],) + (1,) * (x_BTD.ndim - 1)
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - skip_rate, shape)
            y_BTD = jnp.where(kept, y_BTD / (1.0 - skip_rate).astype(y_BTD.dtype), 0)
        x_BTD = constrain(x_BTD + y_BTD, BATCH, SEQUENCE, None)
        return x_BTD if self.layers.pre_norm else normalise(x_BTD)


class Stack(nn.Module):
    """L blocks, and where they normalise first, a normalisation of what they leave."""

    layers: Layers

    @nn.compact
    def __call__(
        self,
        x_BTD: Array,
        mask_BTS: Array | None = None,
        *,
        train: bool,
        positions_BT: Array | None = None,
        memory_BSD: Array | None = None,
        memory_mask_BTS: Array | None = None,
        slot: Array | None = None,
    ) -> Array:
        """Return [B, T, D].

        Args:
          x_BTD: embedded inputs of any kind.
          mask_BTS: boolean, true where a position may attend, beside what `is_causal` allows; [B or 1, T or 1, S].
          train: whether there is dropout; evaluation needs no random key.
          positions_BT: where the layers are rotary; None counts from 0.
          memory_BSD: what the blocks' cross-attention reads.
          memory_mask_BTS: which of it a position may see.
          slot: the cache's first free slot while decoding: `mask_BTS` is then over the cache's slots and causal.
        """
        layers = self.layers
        x_BTD = constrain(x_BTD, BATCH, SEQUENCE, None)
        if layers.rotary_base and positions_BT is None:
            positions_BT = in_order(x_BTD)
        context = Context(mask_BTS, positions_BT, memory_BSD, memory_mask_BTS, slot)
        rate_L = jnp.linspace(0.0, layers.stochastic_depth, layers.depth + 1)[1:]  # linear decay, section 3 there
        block = Block
        if layers.remat != "none":
            block = nn.remat(Block, policy=REMAT[layers.remat], prevent_cse=not layers.scan)
        if layers.scan:
            collections = {"params": 0, "cache": 0}
            streams = {"params": True, "dropout": True}
            scanned = nn.scan(block, collections, split_rngs=streams, in_axes=(0, nn.broadcast), length=layers.depth)
            x_BTD, _ = scanned(layers, train, name="layers")(x_BTD, rate_L, context)
        else:
            for place in range(layers.depth):
                x_BTD, _ = block(layers, train, name=f"layers_{place}")(x_BTD, rate_L[place], context)
        return layers.normalise("norm")(x_BTD) if layers.pre_norm else x_BTD
