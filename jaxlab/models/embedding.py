"""Token ids to vectors: a table, what tells the order, and the dropout after it; the same table gives logits.

Knows no layer after it. Shape letters: B batch, T tokens, D features, V vocabulary.
Usage: ``embed = Embedding(...)``; ``x_BTD = embed(tokens_BT, train=train)``; ``logits_BTV = embed.attend(x_BTD)``.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.mesh import TENSOR, constrain
from jaxlab.core.types import Array
from jaxlab.models.attention import Initializer
from jaxlab.models.dense import times
from jaxlab.models.options import fits
from jaxlab.models.positions import Learned, in_order, sinusoidal

ADDED = ("learned", "sinusoidal", "none")


class Table(nn.Embed):
    """A row a token; on a mesh a device has all numbers of its share of the vocabulary while they are used."""

    def __call__(self, tokens_BT: Array) -> Array:
        """Return the tokens' rows [B, T, D]."""
        return jnp.take(self._rows(), tokens_BT, axis=0)

    def attend(self, x_BTD: Array) -> Array:
        """Return the product with every row [B, T, V]."""
        return times(x_BTD, self._rows(), 1)

    def _rows(self) -> Array:
        return constrain(self.embedding, TENSOR, None)


class Embedding(nn.Module):
    """The table's row of each token, scaled, plus its position's.

    `positions` is ``learned``, ``sinusoidal``, or anything else where none is added. `scale` multiplies the rows by
    the square root of D (Vaswani et al. 2017, arXiv 1706.03762, section 3.4).
    """

    vocabulary_size: int
    max_length: int
    width: int
    positions: str
    scale: bool
    dropout: float
    table_init: Initializer

    def setup(self) -> None:
        """Make the tables."""
        self.token = Table(self.vocabulary_size, self.width, embedding_init=self.table_init)
        if self.positions == "learned":
            self.position = Learned(self.max_length, self.width, self.table_init)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, tokens_BT: Array, positions_BT: Array | None = None, *, train: bool) -> Array:
        """Return [B, T, D]; positions count from 0 where none are given."""
        return self.drop(self.add(tokens_BT, positions_BT), deterministic=not train)

    def add(self, tokens_BT: Array, positions_BT: Array | None = None) -> Array:
        """Return the sum [B, T, D] before dropout."""
        fits(tokens_BT.shape[1], self.max_length)
        x_BTD = self.token(tokens_BT)
        if self.scale:
            x_BTD = x_BTD * jnp.asarray(self.width**0.5, x_BTD.dtype)
        if positions_BT is None:
            positions_BT = in_order(tokens_BT)
        if self.positions == "learned":
            return x_BTD + self.position(positions_BT)
        if self.positions == "sinusoidal":
            return x_BTD + sinusoidal(positions_BT, self.width).astype(x_BTD.dtype)
        return x_BTD

    def attend(self, x_BTD: Array) -> Array:
        """Return the logits [B, T, V] by the table itself (Press & Wolf 2017, arXiv 1608.05859)."""
        return self.token.attend(x_BTD)
