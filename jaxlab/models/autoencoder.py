"""A dense autoencoder: what an example loses on its way through few numbers tells how unusual it is (Hinton &
Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks", Science 313).

Shape letters: B batch, D numbers of the embedding, X an example's numbers.
Usage: ``spec("jaxlab.models.autoencoder:make", hidden=(64,), width=8)`` with ``jaxlab.objectives.reconstruct:make``.
"""

from __future__ import annotations

import math

import jax
from flax import linen as nn

from jaxlab.core.types import DataSpec
from jaxlab.models.dense import Dense
from jaxlab.models.options import rate, within


class Perceptron(nn.Module):
    """Hidden layers with ReLU and dropout, then a linear one."""

    hidden: tuple[int, ...]
    width: int
    dropout: float

    @nn.compact
    def __call__(self, x_BD: jax.Array, train: bool) -> jax.Array:
        """Return numbers [B, width]."""
        for width in self.hidden:
            x_BD = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(Dense(width)(x_BD)))
        return Dense(self.width)(x_BD)


class Autoencoder(nn.Module):
    """The decoder's hidden layers are the encoder's in reverse."""

    hidden: tuple[int, ...]
    width: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Return ``embedding`` [B, D] and the ``reconstruction``, shaped like `x` [B, ...]."""
        x_BX = x.reshape(x.shape[0], -1)
        embedding_BD = Perceptron(self.hidden, self.width, self.dropout, name="encoder")(x_BX, train)
        decoder = Perceptron(self.hidden[::-1], math.prod(x.shape[1:]), self.dropout, name="decoder")
        return {"reconstruction": decoder(embedding_BD, train).reshape(x.shape), "embedding": embedding_BD}


def make(data: DataSpec, hidden: tuple[int, ...] = (128, 64), width: int = 16, dropout: float = 0.0) -> Autoencoder:
    """Return an autoencoder for examples of any shape.

    Args:
      data: any.
      hidden: widths of the encoder's layers before the embedding; the decoder has them in reverse.
      width: numbers of the embedding.
      dropout: after each hidden layer.

    Raises:
      ConfigError: a number that cannot be.
    """
    for name, value in (*(("hidden", layer) for layer in hidden), ("width", width)):
        within(name, value, 1)
    rate("dropout", dropout)
    return Autoencoder(hidden, width, dropout)
