"""The Transformer that maps a source text to a target text.

"Attention Is All You Need", Vaswani et al. 2017 (arXiv 1706.03762), section 3: sinusoidal positions, normalisation
after each sum, ReLU, one table for source, target and output; each of these can be chosen otherwise.
Shape letters: B batch, S source tokens, T target tokens, D features, V vocabulary.
Usage: ``config.model = spec("jaxlab.models.encoder_decoder:make", width=256, depth=3)``.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.types import Array, DataSpec
from jaxlab.models.attend import keys
from jaxlab.models.attention import Initializer
from jaxlab.models.dense import Dense
from jaxlab.models.embedding import ADDED, Embedding
from jaxlab.models.options import fits, rows_fit, vocabulary, word
from jaxlab.models.slots import Slots, nan_beyond
from jaxlab.models.transformer import Stack
from jaxlab.models.transformer_options import Layers


class EncoderDecoder(nn.Module):
    """A stack that reads the source, and a causal one that reads its result as it writes the target."""

    vocabulary_size: int
    max_length: int
    encoder_layers: Layers
    decoder_layers: Layers
    positions: str
    shared: bool
    tied: bool
    embedding_dropout: float
    table_init: Initializer

    def setup(self) -> None:
        """Make the parts."""
        options = (
            self.vocabulary_size, self.max_length, self.encoder_layers.width, self.positions, True,
            self.embedding_dropout, self.table_init,
        )  # fmt: skip
        self.embed = Embedding(*options)
        if not self.shared:
            self.target_embed = Embedding(*options)
        self.encoder, self.decoder, self.slots = Stack(self.encoder_layers), Stack(self.decoder_layers), Slots()
        if not self.tied:
            self.head = Dense(self.vocabulary_size, use_bias=False, kernel_init=self.decoder_layers.kernel_init)

    def __call__(
        self, source_BS: Array, source_mask_BS: Array | None, target_in_BT: Array, *, train: bool
    ) -> dict[str, Array]:
        """Return ``logits`` [B, T, V] of each target token's successor.

        Args:
          source_BS: ids.
          source_mask_BS: 1 a token, 0 padding; None for all tokens.
          target_in_BT: ids of the target, shifted right: a first token, then each one known. Padding comes last.
          train: whether there is dropout.
        """
        memory_BSD = self.encode(source_BS, source_mask_BS, train=train)["hidden"]
        x_BTD = self._target()(target_in_BT, train=train)
        mask_B1S = None if source_mask_BS is None else keys(source_mask_BS)
        return {
            "logits": self._logits(self.decoder(x_BTD, memory_BSD=memory_BSD, memory_mask_BTS=mask_B1S, train=train))
        }

    def encode(self, source_BS: Array, source_mask_BS: Array | None = None, *, train: bool = False) -> dict[str, Array]:
        """Return ``hidden`` [B, S, D], the memory that the decoder reads."""
        mask_B1S = None if source_mask_BS is None else keys(source_mask_BS)
        return {"hidden": self.encoder(self.embed(source_BS, train=train), mask_B1S, train=train)}

    def decode(
        self,
        target_BT: Array,
        target_mask_BT: Array | None = None,
        memory_BSD: Array | None = None,
        memory_mask_BS: Array | None = None,
        *,
        capacity: int = 0,
    ) -> dict[str, Array]:
        """Return ``logits`` [B, T, V] of the next T target tokens, given all that earlier calls have put in the cache.

        As `jaxlab.models.decoder.Decoder.decode`. The first call takes the memory, whose keys and values are computed
        then and never again; those that follow leave it out.

        Args:
          target_BT: ids.
          target_mask_BT: 1 a token, 0 padding; None for all tokens.
          memory_BSD: what `encode` returned, in the first call.
          memory_mask_BS: the source's mask, in the first call; None for all tokens.
          capacity: slots of the cache that the first call makes; 0 for `max_length`.
        """
        fits(capacity or target_BT.shape[1], self.max_length)
        if target_mask_BT is None:
            target_mask_BT = jnp.ones(target_BT.shape, bool)
        if memory_BSD is not None:
            everything = jnp.ones(memory_BSD.shape[:2], bool)
            self.put_variable("cache", "memory_mask", everything if memory_mask_BS is None else memory_mask_BS > 0)
        slot, positions_BT, mask_BTS = self.slots(target_mask_BT, capacity or self.max_length)
        memory_mask_BS = self.get_variable("cache", "memory_mask")
        memory_mask_B1S = None if memory_mask_BS is None else keys(memory_mask_BS)
        x_BTD = self.decoder(
            self._target()(target_BT, positions_BT, train=False), mask_BTS, positions_BT=positions_BT,
            memory_BSD=memory_BSD, memory_mask_BTS=memory_mask_B1S, slot=slot, train=False,
        )  # fmt: skip
        return {"logits": nan_beyond(self._logits(x_BTD), slot, mask_BTS.shape[-1])}

    def _target(self) -> Embedding:
        return self.embed if self.shared else self.target_embed

    def _logits(self, x_BTD: Array) -> Array:
        return self._target().attend(x_BTD) if self.tied else self.head(x_BTD)


def make(
    data: DataSpec,
    vocabulary_size: int = 0,
    max_length: int = 512,
    width: int = 512,
    depth: int = 6,
    heads: int = 8,
    hidden: int = 0,
    norm: str = "layer",
    epsilon: float = 1e-6,
    pre_norm: bool = False,
    activation: str = "relu",
    positions: str = "sinusoidal",
    shared: bool = True,
    tied: bool = True,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    attention: str = "einsum",
    scan: bool = False,
    remat: str = "none",
) -> EncoderDecoder:
    """Return a Transformer from source to target; the defaults are the paper's base model.

    Embeddings start with variance
    1 / width, as they are multiplied by its square root; projections by Glorot's uniform, as in the authors' code.

    Options beside those of `jaxlab.models.transformer_options.Layers`:
      data: its ``vocabulary_size``, which source and target share, and the length of its ``source`` and ``target``.
      vocabulary_size: 0 for the data's; more is allowed, as published weights have.
      max_length: the most tokens a source or a target may have.
      depth: blocks of the encoder, and as many of the decoder.
      positions: ``sinusoidal``, ``learned``, ``rotary`` (within source and target) or ``none``.
      shared: whether source and target have one table of tokens, and of positions if they are learned.
      tied: whether the target's table gives the logits, or a head of its own.
      dropout: of the embeddings and of each sublayer's result.

    Raises:
      ConfigError: a value that does not fit the others or the data.
    """
    word("positions", positions, (*ADDED, "rotary"))
    rows_fit(data, "source|target|tokens", max_length)
    encoder = Layers(
        width=width, depth=depth, heads=heads, hidden=hidden, norm=norm, epsilon=epsilon, pre_norm=pre_norm,
        activation=activation, rotary_base=10000.0 if positions == "rotary" else 0.0, dropout=dropout,
        attention_dropout=attention_dropout, stochastic_depth=stochastic_depth, attention=attention, scan=scan,
        remat=remat,
    )  # fmt: skip
    decoder = dataclasses.replace(encoder, is_causal=True, cross=True)
    table_init = nn.initializers.normal(width**-0.5)
    size = vocabulary(data, vocabulary_size)
    return EncoderDecoder(size, max_length, encoder, decoder, positions, shared, tied, dropout, table_init)
