"""A plain convolutional network: blocks of 3×3 convolutions, each block ending in a 2×2 max pool, then dense layers.

Shape letters: B batch, H height, W width, C channels, D features.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.mesh import constrain_rows
from jaxlab.core.types import DataSpec
from jaxlab.models.dense import Dense
from jaxlab.models.layers import BatchNorm, convolve, max_pool
from jaxlab.models.vision import check_stages


class CNN(nn.Module):
    """`channels` gives each block's width, `depth` its number of convolutions."""

    classes: int
    channels: tuple[int, ...]
    depth: tuple[int, ...]
    hidden: tuple[int, ...]
    dropout: float
    batch_norm: bool
    global_pool: bool
    batch_axis: str | None

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, mask_B: jax.Array | None = None, *, train: bool) -> dict[str, jax.Array]:
        """Return ``logits`` [B, classes]."""
        x_BHWC = image_BHWC
        for width, depth in zip(self.channels, self.depth, strict=True):
            for place in range(1, depth + 1):
                x_BHWC = nn.Conv(width, (3, 3), use_bias=not self.batch_norm, conv_general_dilated=convolve)(x_BHWC)
                pool = max_pool if place == depth else None  # before the rectifier, which keeps the order
                if self.batch_norm:
                    x_BHWC = BatchNorm(self.batch_axis)(x_BHWC, mask_B, train=train, pool=pool)
                elif pool is not None:
                    x_BHWC = pool(x_BHWC)
                x_BHWC = nn.relu(x_BHWC)
            x_BHWC = constrain_rows(x_BHWC)
        x_BD = x_BHWC.mean(axis=(1, 2)) if self.global_pool else x_BHWC.reshape(x_BHWC.shape[0], -1)
        for width in self.hidden:
            x_BD = nn.relu(Dense(width)(nn.Dropout(self.dropout, deterministic=not train)(constrain_rows(x_BD))))
        x_BD = constrain_rows(nn.Dropout(self.dropout, deterministic=not train)(x_BD))
        return {"logits": constrain_rows(Dense(self.classes)(x_BD))}


def make(
    data: DataSpec,
    batch_axis: str | None,
    channels: tuple[int, ...] = (32, 64),
    depth: tuple[int, ...] = (1, 1),
    hidden: tuple[int, ...] = (),
    dropout: float = 0.0,
    batch_norm: bool = True,
    global_pool: bool = False,
) -> CNN:
    """Return a CNN with one output a class of the data.

    Raises:
      ConfigError: `channels` and `depth` are not equally many numbers above 0, or the image is too small for so many.
    """
    check_stages(channels=channels, depth=depth)
    smallest = min(data.example["image"].shape[:2]) if "image" in data.example else 2 ** len(channels)
    if smallest < 2 ** len(channels):
        raise ConfigError(f"config.model.channels={channels}: an image side of {smallest} cannot be halved so often")
    return CNN(len(data.classes), channels, depth, hidden, dropout, batch_norm, global_pool, batch_axis)
