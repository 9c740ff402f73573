"""Recurrent layers from source to target text, with attention to the source.

Luong et al. 2015 (arXiv 1508.04025), sections 3 and 3.1: global attention with the scores ``dot`` and ``general``, or
the ``additive`` one of Bahdanau et al. 2014 (arXiv 1409.0473), section A.1.2. There is no input feeding (section 3.3):
attention comes after the recurrence, so that in training all target positions are computed together.
Shape letters: B batch, S source tokens, T target tokens, D embedding, H features, M memory, V vocabulary.
Usage: ``config.model = spec("jaxlab.models.seq2seq_lstm:make", features=256, layers=2)``.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Array, DataSpec
from jaxlab.models.dense import Dense
from jaxlab.models.options import rate, vocabulary, within, word
from jaxlab.models.recurrent import Carry, Stack

SCORES = ("general", "dot", "additive")


class Decoding(NamedTuple):
    """What decoding carries from token to token: the source's states, keys and mask, and the layers' own states."""

    memory: Array
    keys: Array
    mask: Array | None
    carries: tuple[Carry, ...]


class Attention(nn.Module):
    """Weights of source positions by a score of their match with the decoder's state."""

    features: int
    score: str

    def setup(self) -> None:
        """Make the projections that the score has."""
        if self.score != "dot":
            self.key = Dense(self.features, use_bias=False)
        if self.score == "additive":
            self.query = Dense(self.features, use_bias=False)
            self.vector = self.param("vector", nn.initializers.normal(self.features**-0.5), (self.features,))

    def keys(self, memory_BSM: Array) -> Array:
        """Return what of the source the score needs [B, S, H]."""
        return memory_BSM if self.score == "dot" else self.key(memory_BSM)

    def __call__(self, h_BTH: Array, source: Decoding) -> Array:
        """Return the mean of the memory [B, T, M] by weights that add up to 1 over the source's real positions."""
        if self.score == "additive":
            sum_BTSH = jnp.tanh(self.query(h_BTH)[:, :, None] + source.keys[:, None])
            score_BTS = jnp.einsum("BTSH,H->BTS", sum_BTSH, self.vector.astype(sum_BTSH.dtype))
        else:
            score_BTS = jnp.einsum("BTH,BSH->BTS", h_BTH, source.keys)
        score_BTS = score_BTS.astype(jnp.float32)
        if source.mask is None:
            weight_BTS = jax.nn.softmax(score_BTS)
        else:  # a source without tokens has weights of 0, and no nan
            real_B1S = (source.mask > 0)[:, None]
            lowest = jnp.finfo(jnp.float32).min
            weight_BTS = jnp.where(real_B1S, jax.nn.softmax(jnp.where(real_B1S, score_BTS, lowest)), 0)
        self.sow("intermediates", "weights", weight_BTS)
        return jnp.einsum("BTS,BSM->BTM", weight_BTS.astype(source.memory.dtype), source.memory)


class Seq2Seq(nn.Module):
    """An encoder that reads the source, and a decoder that begins with the encoder's last states."""

    vocabulary_size: int
    width: int
    encoder: Stack
    decoder: Stack
    score: str
    shared: bool
    dropout: float

    def setup(self) -> None:
        """Make the parts."""
        self.source_embedding = nn.Embed(self.vocabulary_size, self.width)
        if not self.shared:
            self.target_embedding = nn.Embed(self.vocabulary_size, self.width)
        if self.encoder.bidirectional:
            self.bridge_state = [Dense(self.decoder.features) for _ in range(self.decoder.layers)]
            self.bridge_cell = [Dense(self.decoder.features) for _ in range(self.decoder.layers)]
        self.attention = Attention(self.decoder.features, self.score)
        self.combine = Dense(self.decoder.features, use_bias=False)
        self.head = Dense(self.vocabulary_size)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self,
        source_BS: Array,
        source_mask_BS: Array | None,
        target_in_BT: Array,
        target_mask_BT: Array | None = None,
        *,
        train: bool,
    ) -> dict[str, Array]:
        """Return ``logits`` [B, T, V] of each target token's successor.

        Args:
          source_BS: ids.
          source_mask_BS: 1 a token, 0 padding; None for all tokens.
          target_in_BT: ids of the target up to each position, which begins with a token that stands for the beginning.
          target_mask_BT: 1 a token, 0 padding; None for all tokens.
          train: whether there is dropout.
        """
        source = self.encode(source_BS, source_mask_BS, train=train)
        return {"logits": self._decode(source, target_in_BT, target_mask_BT, train)[0]}

    def encode(self, source_BS: Array, source_mask_BS: Array | None = None, *, train: bool = False) -> Decoding:
        """Return what decoding begins with."""
        x_BSD = self.drop(self.source_embedding(source_BS), deterministic=not train)
        memory_BSM, carries = self.encoder(x_BSD, source_mask_BS, train=train)
        if self.encoder.bidirectional:
            parts = zip(self.bridge_state, self.bridge_cell, carries[::2], carries[1::2], strict=True)
            carries = tuple(_bridged(*part) for part in parts)
        return Decoding(memory_BSM, self.attention.keys(memory_BSM), source_mask_BS, carries)

    def decode_step(self, carry: Decoding, token_B: Array) -> tuple[Array, Decoding]:
        """Return the logits [B, V] of the token after `token_B`, and what to carry on."""
        logits_BTV, carry = self._decode(carry, token_B[:, None], None, False)
        return logits_BTV[:, 0], carry

    def _decode(self, source: Decoding, token_BT: Array, mask_BT: Array | None, train: bool) -> tuple[Array, Decoding]:
        embed = self.source_embedding if self.shared else self.target_embedding
        x_BTD = self.drop(embed(token_BT), deterministic=not train)
        h_BTH, carries = self.decoder(x_BTD, mask_BT, source.carries, train=train)
        context_BTM = self.attention(h_BTH, source)
        h_BTH = jnp.tanh(self.combine(jnp.concatenate([context_BTM, h_BTH], axis=-1)))  # equation 5
        return self.head(self.drop(h_BTH, deterministic=not train)), source._replace(carries=carries)


def _bridged(to_state: nn.Dense, to_cell: nn.Dense, forward: Carry, backward: Carry) -> Carry:
    """Return a layer's first carry from the last ones of both directions, the state within -1 and 1 as any state is."""
    state, *cell = (jnp.concatenate(pair, axis=-1) for pair in zip(forward, backward, strict=True))
    return (jnp.tanh(to_state(state)), *map(to_cell, cell))


def make(
    data: DataSpec,
    vocabulary_size: int = 0,
    cell: str = "lstm",
    width: int = 256,
    features: int = 256,
    layers: int = 1,
    bidirectional: bool = True,
    score: str = "general",
    shared: bool = True,
    dropout: float = 0.2,
    forget_bias: float = 1.0,
) -> Seq2Seq:
    """Return a recurrent model from source to target.

    Args:
      data: its ``vocabulary_size``, which source and target share.
      vocabulary_size: 0 for the data's; more is allowed.
      cell: ``lstm`` or ``gru``.
      width: of the embeddings.
      features: of each layer, in the encoder of each direction.
      layers: of the encoder, and as many of the decoder.
      bidirectional: whether the encoder reads the source in both directions; the decoder then begins with a projection
        of both last states.
      score: ``general``, ``dot`` (for an encoder of one direction) or ``additive``, which takes B · T · S · H numbers.
      shared: whether source and target have one table.
      dropout: of the embeddings, between layers, and before the head.
      forget_bias: of the LSTM's forget gate at the start.

    Raises:
      ConfigError: a value out of range, a word that is none of those, or a dot of states of different widths.
    """
    within("width", width, 1)
    word("score", score, SCORES)
    rate("dropout", dropout)
    if score == "dot" and bidirectional:
        raise ConfigError(
            f"config.model.score='dot': both directions' states are {2 * features} wide, the decoder's {features};"
            " did you mean 'general', or config.model.bidirectional=False?"
        )
    encoder, decoder = (Stack.of(cell, features, layers, both, dropout, forget_bias) for both in (bidirectional, False))
    return Seq2Seq(vocabulary(data, vocabulary_size), width, encoder, decoder, score, shared, dropout)
