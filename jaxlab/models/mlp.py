"""A multilayer perceptron over all of an example's numbers.

Shape letters: B batch, D features, C classes.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from jaxlab.core.mesh import constrain_rows
from jaxlab.core.types import DataSpec
from jaxlab.models.dense import Dense
from jaxlab.models.layers import BatchNorm


class MLP(nn.Module):
    """Dense layers with ReLU between; optional batch normalisation and dropout after each hidden layer."""

    classes: int
    hidden: tuple[int, ...]
    dropout: float
    batch_norm: bool
    batch_axis: str | None

    @nn.compact
    def __call__(self, x: jax.Array, mask_B: jax.Array | None = None, *, train: bool) -> dict[str, jax.Array]:
        """Return ``logits`` [B, C] for `x` [B, ...]."""
        x_BD = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x_BD = Dense(width, use_bias=not self.batch_norm)(x_BD)
            if self.batch_norm:
                x_BD = BatchNorm(self.batch_axis)(x_BD, mask_B, train=train)
            x_BD = constrain_rows(nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x_BD)))
        return {"logits": constrain_rows(Dense(self.classes)(x_BD))}


def make(
    data: DataSpec,
    batch_axis: str | None,
    hidden: tuple[int, ...] = (128, 128),
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> MLP:
    """Return an MLP with one output a class of the data."""
    return MLP(len(data.classes), hidden, dropout, batch_norm, batch_axis)
