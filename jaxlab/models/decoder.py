"""Decoder-only language models: GPT-2, and one with the choices of its successors.

GPT-2: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3. The modern one is
LLaMA's (Touvron et al. 2023, arXiv 2302.13971, section 2.2): RMS norm first, SwiGLU, rotary positions, no bias; with
grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245).
Shape letters: B batch, T tokens, D features, V vocabulary, S slots of the cache.
Usage: ``config.model = spec("jaxlab.models.decoder:make", width=256, depth=4)``.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.types import Array, DataSpec
from jaxlab.models.attend import same_segment
from jaxlab.models.dense import Dense
from jaxlab.models.embedding import ADDED, Embedding
from jaxlab.models.options import fits, rows_fit, vocabulary, within, word
from jaxlab.models.slots import Slots, nan_beyond
from jaxlab.models.transformer import Stack
from jaxlab.models.transformer_options import Layers

STD = 0.02  # GPT-2's, of all weights


class Decoder(nn.Module):
    """Embedding, causal blocks, and logits by the embedding's table or by a head of its own."""

    vocabulary_size: int
    max_length: int
    layers: Layers
    positions: str
    embedding_dropout: float
    tied: bool

    def setup(self) -> None:
        """Make the parts."""
        self.embed = Embedding(
            self.vocabulary_size, self.max_length, self.layers.width, self.positions, False, self.embedding_dropout,
            self.layers.kernel_init,
        )  # fmt: skip
        self.stack = Stack(self.layers)
        self.slots = Slots()
        if not self.tied:
            self.head = Dense(self.vocabulary_size, use_bias=False, kernel_init=self.layers.kernel_init)

    def __call__(
        self, tokens_BT: Array, segments_BT: Array | None = None, positions_BT: Array | None = None, *, train: bool
    ) -> dict[str, Array]:
        """Return ``logits`` [B, T, V] of each token's successor.

        Args:
          tokens_BT: ids.
          segments_BT: the document of each token of a packed row, 0 padding; documents do not see each other.
          positions_BT: places within the document; None counts from 0.
          train: whether there is dropout.
        """
        mask_BTS = None if segments_BT is None else same_segment(segments_BT)
        x_BTD = self.embed(tokens_BT, positions_BT, train=train)
        return {"logits": self._logits(self.stack(x_BTD, mask_BTS, positions_BT=positions_BT, train=train))}

    def decode(self, tokens_BT: Array, token_mask_BT: Array | None = None, *, capacity: int = 0) -> dict[str, Array]:
        """Return ``logits`` [B, T, V] of the next T tokens, given all those that earlier calls have put in the cache.

        T is any number in each call: a prompt at once, then token by token. Needs ``mutable=["cache"]``; the first call
        makes the cache. Rows of different lengths are padded on either side, the mask 0 there: padding has no influence
        and no position. Tokens beyond the cache's capacity give nan.

        Args:
          tokens_BT: ids.
          token_mask_BT: 1 a token, 0 padding; None for all tokens.
          capacity: slots S of the cache that the first call makes; 0 for `max_length`.
        """
        fits(capacity or tokens_BT.shape[1], self.max_length)
        if token_mask_BT is None:
            token_mask_BT = jnp.ones(tokens_BT.shape, bool)
        slot, positions_BT, mask_BTS = self.slots(token_mask_BT, capacity or self.max_length)
        x_BTD = self.embed(tokens_BT, positions_BT, train=False)
        x_BTD = self.stack(x_BTD, mask_BTS, positions_BT=positions_BT, slot=slot, train=False)
        return {"logits": nan_beyond(self._logits(x_BTD), slot, mask_BTS.shape[-1])}

    def _logits(self, x_BTD: Array) -> Array:
        return self.embed.attend(x_BTD) if self.tied else self.head(x_BTD)


def make(
    data: DataSpec,
    vocabulary_size: int = 0,
    max_length: int = 1024,
    width: int = 384,
    depth: int = 6,
    heads: int = 6,
    kv_heads: int = 2,
    hidden: int = 0,
    norm: str = "rms",
    epsilon: float = 1e-6,
    pre_norm: bool = True,
    activation: str = "swiglu",
    bias: bool = False,
    positions: str = "rotary",
    rotary_base: float = 10000.0,
    tied: bool = True,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    attention: str = "einsum",
    scan: bool = False,
    remat: str = "none",
) -> Decoder:
    """Return a decoder with one output a token id; the defaults are LLaMA's choices with grouped-query attention.

    Options beside those of `jaxlab.models.transformer_options.Layers`:
      data: its ``vocabulary_size``, and the length of its ``tokens``.
      vocabulary_size: 0 for the data's; more is allowed, as published weights have.
      max_length: the most tokens a row may have, prompt and continuation together.
      positions: ``rotary``, ``learned``, ``sinusoidal`` or ``none``.
      rotary_base: the longest wavelength is 2 pi times this.
      tied: whether the embedding's table gives the logits, or a head of its own.
      dropout: of the embeddings and of each sublayer's result.

    Raises:
      ConfigError: a value that does not fit the others or the data.
    """
    word("positions", positions, ("rotary", *ADDED))
    within("rotary_base", rotary_base, 1)
    rows_fit(data, "tokens", max_length)
    output_std = STD / (2 * max(depth, 1)) ** 0.5  # 2 L sublayers add up: GPT-2, section 2.3
    layers = Layers(
        width=width, depth=depth, heads=heads, kv_heads=kv_heads, hidden=hidden, is_causal=True, norm=norm,
        epsilon=epsilon, pre_norm=pre_norm, activation=activation, bias=bias,
        rotary_base=rotary_base if positions == "rotary" else 0.0, dropout=dropout,
        attention_dropout=attention_dropout, stochastic_depth=stochastic_depth, attention=attention, scan=scan,
        remat=remat, kernel_init=nn.initializers.normal(STD), output_init=nn.initializers.normal(output_std),
    )  # fmt: skip
    return Decoder(vocabulary(data, vocabulary_size), max_length, layers, positions, dropout, tied)


def gpt2(
    data: DataSpec,
    vocabulary_size: int = 0,
    max_length: int = 1024,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    attention: str = "einsum",
    scan: bool = False,
    remat: str = "none",
) -> Decoder:
    """Return GPT-2 of any size; with 50,257 tokens the defaults are the small one's 124,439,808 parameters.

    See `make` for the options.
    """
    return make(
        data, vocabulary_size, max_length, width, depth, heads, kv_heads=0, norm="layer", epsilon=1e-5,
        activation="gelu_tanh", bias=True, positions="learned", dropout=dropout,
        attention_dropout=attention_dropout, attention=attention, scan=scan, remat=remat,
    )  # fmt: skip
