"""Texts by LSTM or GRU: a classifier, in both directions, and a language model.

Classifier: Graves & Schmidhuber 2005 in both directions, read out at the ends or by pooling over time (Collobert et al.
2011, arXiv 1103.0398, section 3.3). Language model: Zaremba et al. 2014 (arXiv 1409.2329), dropout beside the
recurrence only; the embedding's table may give the logits (Press & Wolf 2017, arXiv 1608.05859).
Shape letters: B batch, T tokens, D embedding, H features, V vocabulary, C classes.
Usage: ``config.model = spec("jaxlab.models.lstm:make", cell="gru", features=128)``.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Array, DataSpec
from jaxlab.models.dense import Dense
from jaxlab.models.options import rate, vocabulary, within, word
from jaxlab.models.recurrent import Carry, Stack

POOLING = ("last", "mean", "max")


class Classifier(nn.Module):
    """Embedding, recurrent layers, one vector a text, and one output a class."""

    vocabulary_size: int
    classes: int
    width: int
    stack: Stack
    pooling: str
    dropout: float

    @nn.compact
    def __call__(self, tokens_BT: Array, token_mask_BT: Array | None = None, *, train: bool) -> dict[str, Array]:
        """Return ``logits`` [B, C]; of a row without tokens they are the same as of any other such row."""
        x_BTD = nn.Embed(self.vocabulary_size, self.width, name="embedding")(tokens_BT)
        x_BTD = nn.Dropout(self.dropout, deterministic=not train)(x_BTD)
        y_BTH, carries = self.stack(x_BTD, token_mask_BT, train=train)
        x_BH = pool(y_BTH, carries[-2 if self.stack.bidirectional else -1 :], token_mask_BT, self.pooling)
        x_BH = nn.Dropout(self.dropout, deterministic=not train)(x_BH)
        return {"logits": Dense(self.classes, name="head")(x_BH)}


def pool(y_BTH: Array, carries: tuple[Carry, ...], mask_BT: Array | None, pooling: str) -> Array:
    """Return one vector a row [B, H]: each direction's last state, or the mean or maximum over real steps, else 0."""
    if pooling == "last":
        return jnp.concatenate([carry[0] for carry in carries], axis=-1)
    real_BT1 = jnp.ones((*y_BTH.shape[:2], 1), bool) if mask_BT is None else (mask_BT > 0)[..., None]
    if pooling == "mean":
        total_BH = jnp.sum(y_BTH, axis=1, dtype=jnp.float32)
        return (total_BH / jnp.maximum(real_BT1.sum(axis=1), 1)).astype(y_BTH.dtype)
    largest_BH = jnp.max(jnp.where(real_BT1, y_BTH, -jnp.inf), axis=1)
    return jnp.where(real_BT1.any(axis=1), largest_BH, 0)


class Language(nn.Module):
    """Embedding, recurrent layers in one direction, and logits of each next token."""

    vocabulary_size: int
    width: int
    stack: Stack
    tied: bool
    dropout: float

    def setup(self) -> None:
        """Make the parts."""
        self.embed = nn.Embed(self.vocabulary_size, self.width)
        self.drop = nn.Dropout(self.dropout)
        self.bias = self.param("bias", nn.initializers.zeros, (self.vocabulary_size,))
        if not self.tied:
            self.head = Dense(self.vocabulary_size, use_bias=False)

    def __call__(self, tokens_BT: Array, token_mask_BT: Array | None = None, *, train: bool) -> dict[str, Array]:
        """Return ``logits`` [B, T, V] of each token's successor.

        Args:
          tokens_BT: ids. The documents of a packed row are read as one text.
          token_mask_BT: 1 a token, 0 padding; None for all tokens.
          train: whether there is dropout.
        """
        return {"logits": self._logits(tokens_BT, token_mask_BT, None, train)[0]}

    def decode_step(self, carries: tuple[Carry, ...] | None, token_B: Array) -> tuple[Array, tuple[Carry, ...]]:
        """Return the next token's logits [B, V], and what to carry on; None begins."""
        logits_BTV, carries = self._logits(token_B[:, None], None, carries, False)
        return logits_BTV[:, 0], carries

    def _logits(
        self, tokens_BT: Array, mask_BT: Array | None, carries: tuple[Carry, ...] | None, train: bool
    ) -> tuple[Array, tuple[Carry, ...]]:
        x_BTD = self.drop(self.embed(tokens_BT), deterministic=not train)
        x_BTH, carries = self.stack(x_BTD, mask_BT, carries, train=train)
        x_BTH = self.drop(x_BTH, deterministic=not train)
        return (self.embed.attend(x_BTH) if self.tied else self.head(x_BTH)) + self.bias, carries


def make(
    data: DataSpec,
    vocabulary_size: int = 0,
    cell: str = "lstm",
    width: int = 128,
    features: int = 128,
    layers: int = 1,
    bidirectional: bool = True,
    pooling: str = "max",
    dropout: float = 0.3,
    forget_bias: float = 1.0,
) -> Classifier:
    """Return a classifier of texts with one output a class of the data.

    Args:
      data: its ``classes`` and ``vocabulary_size``.
      vocabulary_size: 0 for the data's; more is allowed.
      cell: ``lstm`` or ``gru``.
      width: of the embedding.
      features: of each layer in each direction.
      layers: how many, one on the other.
      bidirectional: whether each reads the text in both directions.
      pooling: ``last``, the state after the last token of each direction; ``mean`` or ``max`` over the tokens.
      dropout: of the embedding, between layers, and before the head.
      forget_bias: of the LSTM's forget gate at the start.

    Raises:
      ConfigError: a value out of range, or a word that is none of those.
    """
    within("width", width, 1)
    word("pooling", pooling, POOLING)
    stack = Stack.of(cell, features, layers, bidirectional, dropout, forget_bias)
    return Classifier(vocabulary(data, vocabulary_size), len(data.classes), width, stack, pooling, dropout)


def language(
    data: DataSpec,
    vocabulary_size: int = 0,
    cell: str = "lstm",
    width: int = 256,
    features: int = 256,
    layers: int = 2,
    tied: bool = False,
    dropout: float = 0.2,
    forget_bias: float = 1.0,
) -> Language:
    """Return a language model with one output a token id; arguments as those of `make`.

    `tied` lets the embedding's table give the logits, for which `width` and `features` must be equal.

    Raises:
      ConfigError: a value out of range, or a tied table of another width than the features.
    """
    within("width", width, 1)
    rate("dropout", dropout)
    if tied and width != features:
        raise ConfigError(
            f"config.model.width={width}: a tied table needs the width of the features; did you mean {features}?"
        )
    stack = Stack.of(cell, features, layers, False, dropout, forget_bias)
    return Language(vocabulary(data, vocabulary_size), width, stack, tied, dropout)
