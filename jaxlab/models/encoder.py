"""Bidirectional encoders: BERT, with its masked language model, and a classifier of texts.

BERT: Devlin et al. 2018 (arXiv 1810.04805), section 3; in its code the weights start from a truncated normal.
Shape letters: B batch, T tokens, D features, V vocabulary, C classes.
Usage: ``config.model = spec("jaxlab.models.encoder:make", width=128, depth=2)``.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.types import Array, DataSpec
from jaxlab.models.attend import keys
from jaxlab.models.attention import Initializer
from jaxlab.models.dense import Dense
from jaxlab.models.embedding import ADDED, Embedding
from jaxlab.models.options import rows_fit, vocabulary, within, word
from jaxlab.models.transformer import Stack
from jaxlab.models.transformer_options import Layers

INIT: Initializer = nn.initializers.truncated_normal(0.02)


class Encoder(nn.Module):
    """Embeddings of tokens, positions and types, normalised, and blocks that see the whole row."""

    vocabulary_size: int
    max_length: int
    layers: Layers
    positions: str
    types: int
    embedding_norm: bool
    embedding_dropout: float

    def setup(self) -> None:
        """Make the parts."""
        self.embed = Embedding(
            self.vocabulary_size, self.max_length, self.layers.width, self.positions, False, self.embedding_dropout,
            self.layers.kernel_init,
        )  # fmt: skip
        if self.types:
            self.type = nn.Embed(self.types, self.layers.width, embedding_init=self.layers.kernel_init)
        if self.embedding_norm:
            self.norm = self.layers.normalise()
        self.stack = Stack(self.layers)

    def __call__(
        self, tokens_BT: Array, token_mask_BT: Array | None = None, types_BT: Array | None = None, *, train: bool
    ) -> Array:
        """Return the hidden features [B, T, D]; padding, where the mask is 0, is seen by no token."""
        x_BTD = self.embed.add(tokens_BT)
        if self.types:
            x_BTD = x_BTD + self.type(jnp.zeros_like(tokens_BT) if types_BT is None else types_BT)
        if self.embedding_norm:
            x_BTD = self.norm(x_BTD)
        x_BTD = self.embed.drop(x_BTD, deterministic=not train)
        return self.stack(x_BTD, None if token_mask_BT is None else keys(token_mask_BT), train=train)

    def attend(self, x_BTD: Array) -> Array:
        """Return the logits [B, T, V] by the embedding's table."""
        return self.embed.attend(x_BTD)


class Masked(nn.Module):
    """An encoder with BERT's pooler and its head of the masked language model, each if wanted."""

    encoder: Encoder
    pooler: bool
    head: bool

    @nn.compact
    def __call__(
        self, tokens_BT: Array, token_mask_BT: Array | None = None, segments_BT: Array | None = None, *, train: bool
    ) -> dict[str, Array]:
        """Return ``hidden`` [B, T, D], ``pooled`` [B, D] and ``logits`` [B, T, V].

        Args:
          tokens_BT: ids.
          token_mask_BT: 1 a token, 0 padding; None for all tokens.
          segments_BT: the type of each token, as 0 in the first and 1 in the second sentence; None for 0.
          train: whether there is dropout.
        """
        layers = self.encoder.layers
        x_BTD = self.encoder(tokens_BT, token_mask_BT, segments_BT, train=train)
        outputs = {"hidden": x_BTD}
        if self.pooler:
            outputs["pooled"] = pool_first(x_BTD, layers)
        if self.head:
            x_BTD = nn.gelu(Dense(layers.width, kernel_init=INIT, name="transform")(x_BTD), approximate=False)
            x_BTD = layers.normalise("transform_norm")(x_BTD)
            bias_V = self.param("bias", nn.initializers.zeros, (self.encoder.vocabulary_size,))
            outputs["logits"] = self.encoder.attend(x_BTD) + bias_V
        return outputs


class Classifier(nn.Module):
    """An encoder and one output a class, of the first token or of the mean over all tokens."""

    encoder: Encoder
    classes: int
    pooling: str
    dropout: float

    @nn.compact
    def __call__(
        self, tokens_BT: Array, token_mask_BT: Array | None = None, segments_BT: Array | None = None, *, train: bool
    ) -> dict[str, Array]:
        """Return ``logits`` [B, C]; arguments as those of `Masked`. A row without tokens has a mean of 0."""
        x_BTD = self.encoder(tokens_BT, token_mask_BT, segments_BT, train=train)
        first = self.pooling == "first"
        x_BD = pool_first(x_BTD, self.encoder.layers) if first else masked_mean(x_BTD, token_mask_BT)
        x_BD = nn.Dropout(self.dropout, deterministic=not train)(x_BD)
        return {"logits": Dense(self.classes, kernel_init=self.encoder.layers.kernel_init, name="head")(x_BD)}


def pool_first(x_BTD: Array, layers: Layers) -> Array:
    """Return BERT's pooler's view [B, D] of the first token, inside a compact module that shall own it."""
    return nn.tanh(Dense(layers.width, kernel_init=layers.kernel_init, name="pooler")(x_BTD[:, 0]))


def masked_mean(x_BTD: Array, token_mask_BT: Array | None) -> Array:
    """Return the mean [B, D] over the tokens, added up in float32."""
    if token_mask_BT is None:
        return x_BTD.mean(axis=1)
    weight_BT1 = (token_mask_BT > 0)[..., None].astype(jnp.float32)
    total_BD = jnp.sum(x_BTD * weight_BT1, axis=1)
    return (total_BD / jnp.maximum(weight_BT1.sum(axis=1), 1.0)).astype(x_BTD.dtype)


def make(
    data: DataSpec,
    vocabulary_size: int = 0,
    max_length: int = 512,
    width: int = 256,
    depth: int = 4,
    heads: int = 4,
    hidden: int = 0,
    norm: str = "layer",
    epsilon: float = 1e-12,
    pre_norm: bool = False,
    activation: str = "gelu",
    positions: str = "learned",
    types: int = 2,
    pooling: str = "mean",
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    stochastic_depth: float = 0.0,
    attention: str = "einsum",
    scan: bool = False,
    remat: str = "none",
) -> Classifier:
    """Return a classifier of texts with one output a class of the data; the defaults are a small BERT's choices.

    Options beside those of `jaxlab.models.transformer_options.Layers`:
      data: its ``classes`` and ``vocabulary_size``, and the length of its ``tokens``.
      vocabulary_size: 0 for the data's; more is allowed, as published weights have.
      max_length: the most tokens a row may have.
      positions: ``learned``, ``sinusoidal``, ``rotary`` or ``none``.
      types: kinds of segments, whose embedding is added; 0 for none.
      pooling: ``mean`` over the tokens, or ``first``, the first token's by BERT's pooler: let the data begin with one
        that stands for the whole, as [CLS].
      dropout: of the embeddings, of each sublayer's result and of the pooled features.

    Raises:
      ConfigError: a value that does not fit the others or the data.
    """
    word("pooling", pooling, ("mean", "first"))
    layers = Layers(
        width=width, depth=depth, heads=heads, hidden=hidden, norm=norm, epsilon=epsilon, pre_norm=pre_norm,
        activation=activation, rotary_base=10000.0 if positions == "rotary" else 0.0, dropout=dropout,
        attention_dropout=attention_dropout, stochastic_depth=stochastic_depth,
        attention=attention, scan=scan, remat=remat, kernel_init=INIT, output_init=INIT,
    )  # fmt: skip
    return Classifier(
        _encoder(data, vocabulary_size, max_length, layers, positions, types), len(data.classes), pooling, dropout
    )


def masked(
    data: DataSpec,
    vocabulary_size: int = 0,
    max_length: int = 512,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int = 0,
    types: int = 2,
    pooler: bool = True,
    head: bool = True,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    attention: str = "einsum",
    scan: bool = False,
    remat: str = "none",
) -> Masked:
    """Return BERT of any size; the base one without `head` has 109,482,240 parameters with 30,522 tokens.

    Options beside those of `make`:
      data: its ``vocabulary_size``, and the length of its ``tokens``.
      pooler: whether there is ``pooled``, which the masked language model does not train.
      head: whether there are ``logits``, by a transformation, the embedding's table and a bias.

    Raises:
      ConfigError: a value that does not fit the others or the data.
    """
    layers = Layers(
        width=width, depth=depth, heads=heads, hidden=hidden, epsilon=1e-12, pre_norm=False, dropout=dropout,
        attention_dropout=attention_dropout, attention=attention, scan=scan,
        remat=remat, kernel_init=INIT, output_init=INIT,
    )  # fmt: skip
    return Masked(_encoder(data, vocabulary_size, max_length, layers, "learned", types), pooler, head)


def _encoder(
    data: DataSpec, vocabulary_size: int, max_length: int, layers: Layers, positions: str, types: int
) -> Encoder:
    word("positions", positions, ("rotary", *ADDED))
    within("types", types, 0)
    rows_fit(data, "tokens", max_length)
    size = vocabulary(data, vocabulary_size)
    return Encoder(size, max_length, layers, positions, types, not layers.pre_norm, layers.dropout)
