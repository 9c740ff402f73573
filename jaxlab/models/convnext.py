"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545): a convolutional network with the shape of a Transformer.

A block (figure 4) is a 7×7 convolution of each channel alone, then a multilayer perceptron of each pixel, scaled and
added to its input. The stem, and a 2×2 convolution before each stage after the first, cut the image into patches that
lie side by side. Whole blocks are skipped at random, the later the more often (Huang et al. 2016, arXiv 1603.09382).
Shape letters: B batch, H height, W width, C channels in, F channels out, D features.
Usage: ``config.model = spec("jaxlab.models.convnext:make", channels=(32, 64), blocks=(2, 2), patch_size=2)``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.mesh import constrain_rows
from jaxlab.core.types import DataSpec
from jaxlab.models.dense import Dense
from jaxlab.models.options import rate, within
from jaxlab.models.vision import check_counts, check_side, check_stages, convolve_patches

START = nn.initializers.truncated_normal(0.02)


def convolve_channels(
    inputs_BHWC: jax.Array, kernel_HWCF: jax.Array, window_strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """Convolve each channel alone, with stride 1; fits the field ``conv_general_dilated`` of `flax.linen.Conv`.

    On the CPU as a sum of shifted images, a row of the kernel at a time, which compiles sooner than all at once: XLA's
    grouped convolution is 15 to 20 times slower inside a scan there.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(inputs_BHWC, kernel_HWCF, window_strides, padding, **options)
    height, width = inputs_BHWC.shape[1:3]
    rows, columns, _, _ = kernel_HWCF.shape
    x_BHWC = jnp.pad(inputs_BHWC, ((0, 0), *padding, (0, 0)))

    def add_row(sum_BHWF: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        place, kernel_WCF = row
        slice_BHWC = jax.lax.dynamic_slice_in_dim(x_BHWC, place, height, axis=1)
        return sum_BHWF + sum(slice_BHWC[:, :, j : j + width] * kernel_WCF[j, 0] for j in range(columns)), None

    return jax.lax.scan(add_row, jnp.zeros_like(inputs_BHWC), (jnp.arange(rows), kernel_HWCF))[0]


class Block(nn.Module):
    """Space, then channels: a depthwise convolution, and a perceptron of four times the width."""

    kernel_size: int
    layer_scale: float
    skip_rate: float

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, train: bool) -> jax.Array:
        """Return ``x + residual``."""
        channels, size = x_BHWC.shape[-1], (self.kernel_size, self.kernel_size)
        y_BHWC = nn.Conv(
            channels, size, padding=self.kernel_size // 2, feature_group_count=channels, kernel_init=START,
            conv_general_dilated=convolve_channels,
        )(x_BHWC)  # fmt: skip
        y_BHWC = _norm()(y_BHWC)
        y_BHWC = nn.gelu(Dense(4 * channels, kernel_init=START)(y_BHWC), approximate=False)
        y_BHWC = Dense(channels, kernel_init=START)(y_BHWC)
        if self.layer_scale:
            scale_C = self.param("layer_scale", nn.initializers.constant(self.layer_scale), (channels,))
            y_BHWC = y_BHWC * scale_C.astype(y_BHWC.dtype)
        y_BHWC = nn.Dropout(self.skip_rate, broadcast_dims=(1, 2, 3), deterministic=not train)(y_BHWC)
        return constrain_rows(x_BHWC + y_BHWC)


class ConvNeXt(nn.Module):
    """`blocks` gives each stage's number of blocks, `channels` its width."""

    classes: int
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    patch_size: int
    kernel_size: int
    layer_scale: float
    stochastic_depth: float
    dropout: float

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Return ``logits`` [B, classes]."""
        rates = iter(np.linspace(0, self.stochastic_depth, sum(self.blocks)).tolist())
        x_BHWC = image_BHWC
        for stage, (channels, blocks) in enumerate(zip(self.channels, self.blocks, strict=True)):
            if stage == 0:
                x_BHWC = _norm()(_patches(channels, self.patch_size)(x_BHWC))
            else:
                x_BHWC = _patches(channels, 2)(_norm()(x_BHWC))
            for _ in range(blocks):
                x_BHWC = Block(self.kernel_size, self.layer_scale, next(rates))(x_BHWC, train)
        x_BD = _norm()(x_BHWC.mean(axis=(1, 2)))
        x_BD = nn.Dropout(self.dropout, deterministic=not train)(x_BD)
        return {"logits": Dense(self.classes, kernel_init=START)(x_BD)}


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(1e-6, use_fast_variance=False)


def _patches(channels: int, size: int) -> nn.Conv:
    """Return the layer that turns each patch of `size` × `size` pixels into one, a remainder at the edge dropped."""
    window = (size, size)
    return nn.Conv(channels, window, window, padding="VALID", kernel_init=START, conv_general_dilated=convolve_patches)


def make(
    data: DataSpec,
    blocks: tuple[int, ...] = (3, 3, 9, 3),
    channels: tuple[int, ...] = (96, 192, 384, 768),
    patch_size: int = 4,
    kernel_size: int = 7,
    layer_scale: float = 1e-6,
    stochastic_depth: float = 0.1,
    dropout: float = 0.0,
) -> ConvNeXt:
    """Return a ConvNeXt with one output a class of the data; the defaults are ConvNeXt-T, 28,589,128 for 1000 classes.

    Args:
      data: its ``classes`` give the outputs, its field ``image`` [H, W, C] must be large enough.
      blocks: blocks of each stage.
      channels: channels of each stage.
      patch_size: the side in pixels of the patches that the stem cuts.
      kernel_size: the side of the blocks' convolutions, odd.
      layer_scale: what the factor of each channel of each residual starts at (Touvron et al. 2021, arXiv 2103.17239);
        0 for no factors.
      stochastic_depth: share of examples that skip the last block in training; the first block's is 0, between them it
        grows evenly.
      dropout: rate before the output.

    Raises:
      ConfigError: an option that cannot be, or an image smaller than the network's total stride.
    """
    check_stages(blocks=blocks, channels=channels)
    check_counts(patch_size=(patch_size,), kernel_size=(kernel_size,))
    if kernel_size % 2 == 0:
        raise ConfigError(
            f"config.model.kernel_size={kernel_size}: expected an odd number; did you mean {kernel_size + 1}?"
        )
    within("layer_scale", layer_scale, 0)
    rate("stochastic_depth", stochastic_depth)
    rate("dropout", dropout)
    check_side(data, patch_size * 2 ** (len(blocks) - 1), f"config.model.patch_size={patch_size} and blocks={blocks}")
    return ConvNeXt(
        len(data.classes), tuple(blocks), tuple(channels), patch_size, kernel_size, layer_scale, stochastic_depth,
        dropout,
    )  # fmt: skip
