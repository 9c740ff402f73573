"""A recurrent autoencoder of windows of a series: one network reads a window into a vector, another writes it again.

For anomalies in series, Malhotra et al. 2016 (arXiv 1607.00148, section 2): trained on normal windows alone, it writes
others badly; as there, the window is written from its end. The decoder sees the vector at each step and nothing that it
wrote (Srivastava et al. 2015, arXiv 1502.04681, section 2.2), so training and evaluation do the same.
Shape letters: B batch, T steps, F values a step, H features, D numbers of the embedding.
Usage: ``spec("jaxlab.models.sequence_autoencoder:make", width=8)`` with ``jaxlab.objectives.reconstruct:make`` and its
``inputs=("past",)``; of a mask besides, ``inputs=("past", "past_mask"), target_mask="past_mask"``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models.dense import Dense
from jaxlab.models.options import within, word
from jaxlab.models.recurrent import Stack


class SequenceAutoencoder(nn.Module):
    """The encoder's last state becomes the embedding, which is the decoder's input at every step."""

    encoder: Stack
    decoder: Stack
    width: int

    @nn.compact
    def __call__(self, x_BTF: jax.Array, mask_BT: jax.Array | None = None, *, train: bool) -> dict[str, jax.Array]:
        """Return the ``reconstruction`` [B, T, F], 0 at padding, and the ``embedding`` [B, D].

        Args:
          x_BTF: windows; at padding they may hold anything.
          mask_BT: 1 a step, 0 padding on any side; None for all steps.
          train: whether there is dropout.
        """
        _, carries = self.encoder(x_BTF, mask_BT, train=train)
        embedding_BD = Dense(self.width, name="embedding")(carries[-1][0])
        same_BTD = jnp.broadcast_to(embedding_BD[:, None], (*x_BTF.shape[:2], self.width))
        backwards_BT = None if mask_BT is None else mask_BT[:, ::-1]
        y_BTH, _ = self.decoder(same_BTD, backwards_BT, train=train)
        y_BTF = Dense(x_BTF.shape[-1], name="head")(y_BTH[:, ::-1])
        if mask_BT is not None:
            y_BTF = jnp.where((mask_BT > 0)[..., None], y_BTF, 0)
        return {"reconstruction": y_BTF, "embedding": embedding_BD}


def make(
    data: DataSpec,
    field: str = "past",
    cell: str = "lstm",
    features: int = 64,
    layers: int = 1,
    width: int = 16,
    dropout: float = 0.0,
    forget_bias: float = 1.0,
) -> SequenceAutoencoder:
    """Return an autoencoder of windows of any length; it is called with the windows and perhaps their mask.

    Args:
      data: has the field.
      field: windows [B, T, F], as `jaxlab.data.windows.make` gives them.
      cell: ``lstm`` or ``gru``.
      features: of each layer.
      layers: how many the encoder has, and the decoder, one on the other.
      width: numbers of the embedding.
      dropout: between layers.
      forget_bias: of an LSTM's forget gates at the start.

    Raises:
      ConfigError: a field that is not there or holds no windows, no such cell, or a number that cannot be.
    """
    word("field", field, tuple(data.example))
    shape = data.example[field].shape
    if len(shape) != 2:
        raise ConfigError(
            f"config.model.field={field!r}: has {len(shape)} axes a row; expected two, of steps and values"
        )
    within("width", width, 1)
    encoder, decoder = (Stack.of(cell, features, layers, False, dropout, forget_bias) for _ in range(2))
    return SequenceAutoencoder(encoder, decoder, width)
