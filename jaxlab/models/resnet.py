"""Residual networks: ResNet-18 to 152 (He et al. 2016, arXiv 1512.03385), those for small images, and wide ones.

A block is a chain of convolutions beside a shortcut: two of 3×3 (basic), or 1×1, 3×3 and 1×1 (bottleneck), where the
stride is that of the 3×3 ("v1.5"; Goyal et al. 2017, arXiv 1706.02677, section 5.1). Each stage after the first halves
height and width. A shortcut that changes shape is a 1×1 convolution with the block's stride, or one after the mean of
2×2 pixels (ResNet-D; He et al. 2019, arXiv 1812.01187, figure 2c). Wide networks (Zagoruyko & Komodakis 2016, arXiv
1605.07146) normalise and rectify before each convolution (He et al. 2016, arXiv 1603.05027, figure 1b).
Shape letters: B batch, H height, W width, C channels, D features.
Usage: ``config.model = spec("jaxlab.models.resnet:resnet50", stem="small")``.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.mesh import constrain_rows
from jaxlab.core.types import DataSpec
from jaxlab.models.dense import Dense
from jaxlab.models.layers import BatchNorm, convolve
from jaxlab.models.options import rate, word
from jaxlab.models.vision import check_counts, check_side, check_stages, stem_pool

STEM_STRIDES = {"imagenet": 4, "small": 1, "small_pool": 2}
IMAGENET_CHANNELS = (64, 128, 256, 512)


class Convolution(NamedTuple):
    """A bias-free convolution; ``same`` padding is TensorFlow's, ``symmetric`` PyTorch's, the same on both sides."""

    channels: int
    size: int
    stride: int
    padding: str

    def layer(self) -> nn.Conv:
        """Return the layer, named by the module that calls this."""
        padding = "SAME" if self.padding == "same" else self.size // 2
        window, strides = (self.size, self.size), (self.stride, self.stride)
        return nn.Conv(self.channels, window, strides, padding=padding, use_bias=False, conv_general_dilated=convolve)


class Block(nn.Module):
    """Convolutions, each normalised, beside a shortcut; the last normalisation starts at 0 if `zero_init`."""

    convolutions: tuple[Convolution, ...]
    shortcut: str
    zero_init: bool
    dropout: float
    batch_axis: str | None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, mask_B: jax.Array | None, train: bool) -> jax.Array:
        """Return ``relu(shortcut + residual)``."""
        *inner, last = self.convolutions
        y_BHWC = x_BHWC
        for convolution in inner:
            y_BHWC = nn.relu(BatchNorm(self.batch_axis)(convolution.layer()(y_BHWC), mask_B, train=train))
        y_BHWC = last.layer()(nn.Dropout(self.dropout, deterministic=not train)(y_BHWC))
        start = nn.initializers.zeros if self.zero_init else nn.initializers.ones
        y_BHWC = BatchNorm(self.batch_axis, scale_init=start)(y_BHWC, mask_B, train=train)
        if x_BHWC.shape != y_BHWC.shape:
            x_BHWC = _shortcut(self.convolutions, self.shortcut, x_BHWC)
            x_BHWC = BatchNorm(self.batch_axis)(x_BHWC, mask_B, train=train)
        return constrain_rows(nn.relu(x_BHWC + y_BHWC))


class PreactivationBlock(nn.Module):
    """Convolutions, each after a normalisation and a rectifier, beside a shortcut that nothing rectifies."""

    convolutions: tuple[Convolution, ...]
    shortcut: str
    dropout: float
    batch_axis: str | None

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, mask_B: jax.Array | None, train: bool) -> jax.Array:
        """Return ``shortcut + residual``; a shortcut that changes shape starts at the first rectifier."""
        *inner, last = self.convolutions
        first_BHWC = y_BHWC = nn.relu(BatchNorm(self.batch_axis)(x_BHWC, mask_B, train=train))
        for convolution in inner:
            y_BHWC = nn.relu(BatchNorm(self.batch_axis)(convolution.layer()(y_BHWC), mask_B, train=train))
        y_BHWC = last.layer()(nn.Dropout(self.dropout, deterministic=not train)(y_BHWC))
        if x_BHWC.shape != y_BHWC.shape:
            x_BHWC = _shortcut(self.convolutions, self.shortcut, first_BHWC)
        return constrain_rows(x_BHWC + y_BHWC)


def _shortcut(convolutions: tuple[Convolution, ...], kind: str, x_BHWC: jax.Array) -> jax.Array:
    """Return `x_BHWC` in the shape that the convolutions give it."""
    channels, stride = convolutions[-1].channels, max(convolution.stride for convolution in convolutions)
    if kind == "pool":
        mean_BHWC = nn.avg_pool(x_BHWC, (stride,) * 2, (stride,) * 2, padding="SAME", count_include_pad=False)
        x_BHWC, stride = mean_BHWC.astype(x_BHWC.dtype), 1  # the counts that it divides by are float32
    return Convolution(channels, 1, stride, "symmetric").layer()(x_BHWC)


class ResNet(nn.Module):
    """`blocks` gives each stage's number of blocks, `channels` its width, of which `width` multiplies the 3×3's."""

    classes: int
    block: str
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    width: int
    stem: str
    shortcut: str
    preactivation: bool
    zero_init: bool
    dropout: float
    block_dropout: float
    padding: str
    batch_axis: str | None

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, mask_B: jax.Array | None = None, *, train: bool) -> dict[str, jax.Array]:
        """Return ``logits`` [B, classes]; `mask_B` keeps padding out of the batch statistics."""
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x_BHWC = Convolution(self.channels[0], size, stride, self.padding).layer()(image_BHWC)
        pool = stem_pool(self.stem, self.padding)
        if not self.preactivation:
            x_BHWC = nn.relu(BatchNorm(self.batch_axis)(x_BHWC, mask_B, train=train, pool=pool))
        elif pool is not None:
            x_BHWC = pool(x_BHWC)
        for stage, (channels, blocks) in enumerate(zip(self.channels, self.blocks, strict=True)):
            for place in range(blocks):
                convolutions = self._convolutions(channels, 2 if stage > 0 and place == 0 else 1)
                x_BHWC = self._block(convolutions)(x_BHWC, mask_B, train)
        if self.preactivation:
            x_BHWC = nn.relu(BatchNorm(self.batch_axis)(x_BHWC, mask_B, train=train))
        x_BD = nn.Dropout(self.dropout, deterministic=not train)(x_BHWC.mean(axis=(1, 2)))
        return {"logits": constrain_rows(Dense(self.classes)(x_BD))}

    def _convolutions(self, channels: int, stride: int) -> tuple[Convolution, ...]:
        wide, padding = channels * self.width, self.padding
        if self.block == "basic":
            return Convolution(wide, 3, stride, padding), Convolution(wide, 3, 1, padding)
        inner = Convolution(wide, 1, 1, padding), Convolution(wide, 3, stride, padding)
        return *inner, Convolution(4 * channels, 1, 1, padding)

    def _block(self, convolutions: tuple[Convolution, ...]) -> nn.Module:
        if self.preactivation:
            return PreactivationBlock(convolutions, self.shortcut, self.block_dropout, self.batch_axis)
        return Block(convolutions, self.shortcut, self.zero_init, self.block_dropout, self.batch_axis)


def make(
    data: DataSpec,
    batch_axis: str | None,
    block: str = "basic",
    blocks: tuple[int, ...] = (2, 2, 2),
    channels: tuple[int, ...] = (16, 32, 64),
    width: int = 1,
    stem: str = "small",
    shortcut: str = "conv",
    preactivation: bool = False,
    zero_init: bool = True,
    dropout: float = 0.0,
    block_dropout: float = 0.0,
    padding: str = "symmetric",
) -> ResNet:
    """Return a ResNet with one output a class of the data; three stages of n blocks are the paper's ResNet-(6n+2).

    Args:
      data: its ``classes`` give the outputs, its field ``image`` [H, W, C] must be large enough.
      batch_axis: the mapped axis to add batch statistics over, or None.
      block: ``basic``, or ``bottleneck``, which ends in 4 times its stage's channels.
      blocks: blocks of each stage.
      channels: channels of each stage's 3×3 convolutions; the first also the stem's.
      width: a factor of the 3×3's channels alone, not of the stem's nor of those that a bottleneck ends in.
      stem: ``imagenet``, 7×7 with stride 2 and a 3×3 max pool with stride 2; ``small``, 3×3; or ``small_pool``, 3×3 and
        a 2×2 max pool.
      shortcut: ``conv``, or ``pool``, which takes the mean of 2×2 pixels first.
      preactivation: whether normalisation and rectifier come before each convolution and not after.
      zero_init: whether a block's last normalisation starts at 0, the block as its shortcut; not of `preactivation`.
      dropout: rate before the output.
      block_dropout: rate before the last convolution of each block.
      padding: ``symmetric``, as PyTorch, or ``same``, as TensorFlow: they differ at strides above 1.

    Raises:
      ConfigError: an option that cannot be, or an image smaller than the network's total stride.
    """
    word("block", block, ("basic", "bottleneck"))
    word("stem", stem, tuple(STEM_STRIDES))
    word("shortcut", shortcut, ("conv", "pool"))
    word("padding", padding, ("symmetric", "same"))
    rate("dropout", dropout)
    rate("block_dropout", block_dropout)
    check_stages(channels=channels, blocks=blocks)
    check_counts(width=(width,))
    check_side(data, STEM_STRIDES[stem] * 2 ** (len(blocks) - 1), f"config.model.stem={stem!r} and blocks={blocks}")
    return ResNet(
        len(data.classes), block, tuple(blocks), tuple(channels), width, stem, shortcut, preactivation, zero_init,
        dropout, block_dropout, padding, batch_axis,
    )  # fmt: skip


def resnet18(
    data: DataSpec,
    batch_axis: str | None,
    blocks: tuple[int, ...] = (2, 2, 2, 2),
    channels: tuple[int, ...] = IMAGENET_CHANNELS,
    stem: str = "imagenet",
) -> ResNet:
    """Return ResNet-18, 11,689,512 parameters for 1000 classes; ``stem="small"`` suits images of 32 pixels."""
    return make(data, batch_axis, "basic", blocks, channels, stem=stem)


def resnet34(
    data: DataSpec,
    batch_axis: str | None,
    blocks: tuple[int, ...] = (3, 4, 6, 3),
    channels: tuple[int, ...] = IMAGENET_CHANNELS,
    stem: str = "imagenet",
) -> ResNet:
    """Return ResNet-34, 21,797,672 parameters for 1000 classes."""
    return make(data, batch_axis, "basic", blocks, channels, stem=stem)


def resnet50(
    data: DataSpec,
    batch_axis: str | None,
    blocks: tuple[int, ...] = (3, 4, 6, 3),
    channels: tuple[int, ...] = IMAGENET_CHANNELS,
    width: int = 1,
    stem: str = "imagenet",
) -> ResNet:
    """Return ResNet-50 v1.5, 25,557,032 parameters for 1000 classes.

    ``blocks=(3, 4, 23, 3)`` makes it ResNet-101, ``(3, 8, 36, 3)`` ResNet-152, ``width=2`` Wide ResNet-50-2.
    """
    return make(data, batch_axis, "bottleneck", blocks, channels, width, stem)


def wide(
    data: DataSpec, batch_axis: str | None, depth: int = 28, width: int = 10, block_dropout: float = 0.0
) -> ResNet:
    """Return WRN-`depth`-`width` for small images, WRN-28-10 or WRN-40-4; the paper's dropout in the blocks is 0.3.

    Raises:
      ConfigError: a depth that is not 4 more than a multiple of 6.
    """
    if depth < 10 or depth % 6 != 4:
        raise ConfigError(f"config.model.depth={depth}: expected 6 n + 4, such as 16, 28 or 40")
    blocks = ((depth - 4) // 6,) * 3
    return make(data, batch_axis, "basic", blocks, width=width, preactivation=True, block_dropout=block_dropout)
