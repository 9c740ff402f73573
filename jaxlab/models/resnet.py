"""Residual networks of basic blocks for small images (He et al. 2016, arXiv 1512.03385, section 4.2).

The stem is one 3×3 convolution, with a 2×2 max pool if wanted; each stage after the first halves height and width. The
last normalisation of each block starts at zero (Goyal et al. 2017, arXiv 1706.02677, section 5.1), and a shortcut that
changes shape averages 2×2 pixels before its 1×1 convolution (ResNet-D; He et al. 2019, arXiv 1812.01187).
Shape letters: B batch, H height, W width, C channels, D features.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from jaxlab.core.types import DataSpec
from jaxlab.models.layers import BatchNorm, convolve, max_pool


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    channels: int
    stride: int
    batch_axis: str | None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, mask_B: jax.Array | None, train: bool) -> jax.Array:
        """Return ``relu(shortcut + residual)``."""
        strides = (self.stride, self.stride)
        y_BHWC = nn.Conv(self.channels, (3, 3), strides, use_bias=False, conv_general_dilated=convolve)(x_BHWC)
        y_BHWC = nn.relu(BatchNorm(self.batch_axis)(y_BHWC, mask_B, train=train))
        y_BHWC = nn.Conv(self.channels, (3, 3), use_bias=False, conv_general_dilated=convolve)(y_BHWC)
        y_BHWC = BatchNorm(self.batch_axis, scale_init=nn.initializers.zeros)(y_BHWC, mask_B, train=train)
        if x_BHWC.shape != y_BHWC.shape:
            x_BHWC = nn.avg_pool(x_BHWC, strides, strides, padding="SAME", count_include_pad=False)
            x_BHWC = nn.Conv(self.channels, (1, 1), use_bias=False, conv_general_dilated=convolve)(x_BHWC)
            x_BHWC = BatchNorm(self.batch_axis)(x_BHWC, mask_B, train=train)
        return nn.relu(x_BHWC + y_BHWC)


class ResNet(nn.Module):
    """`channels` gives each stage's width, `blocks` its number of blocks."""

    classes: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    stem_pool: bool
    dropout: float
    batch_axis: str | None

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, mask_B: jax.Array | None = None, *, train: bool) -> dict[str, jax.Array]:
        """Return ``logits`` [B, classes]."""
        x_BHWC = nn.Conv(self.channels[0], (3, 3), use_bias=False, conv_general_dilated=convolve)(image_BHWC)
        x_BHWC = nn.relu(BatchNorm(self.batch_axis)(x_BHWC, mask_B, train=train))
        if self.stem_pool:
            x_BHWC = max_pool(x_BHWC)
        for stage, (width, blocks) in enumerate(zip(self.channels, self.blocks, strict=True)):
            for block in range(blocks):
                x_BHWC = Block(width, 2 if stage > 0 and block == 0 else 1, self.batch_axis)(x_BHWC, mask_B, train)
        x_BD = nn.Dropout(self.dropout, deterministic=not train)(x_BHWC.mean(axis=(1, 2)))
        return {"logits": nn.Dense(self.classes)(x_BD)}


def make(
    data: DataSpec,
    batch_axis: str | None,
    channels: tuple[int, ...] = (16, 32, 64),
    blocks: tuple[int, ...] = (2, 2, 2),
    stem_pool: bool = False,
    dropout: float = 0.0,
) -> ResNet:
    """Return a ResNet with one output a class of the data; three stages of n blocks are the paper's ResNet-(6n+2)."""
    return ResNet(len(data.classes), channels, blocks, stem_pool, dropout, batch_axis)
