"""The Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929): an encoder of an image's patches.

Equations 1 to 4 there, of any size: each patch is projected, a class token may be put first, learned positions are
added; blocks that normalise first encode the tokens; the class token, or the mean of all (Beyer et al. 2022, arXiv
2205.01580), is classified. Between encoder and output is no further layer ("pre-logits"): only pretraining had it.
Shape letters: B batch, H height, W width, C channels, T tokens, D width.
Usage: ``config.model = spec("jaxlab.models.vit:make", width=192, heads=3, patch_size=4, pool="mean")``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models.dense import Dense
from jaxlab.models.options import word
from jaxlab.models.transformer import Stack
from jaxlab.models.transformer_options import Layers
from jaxlab.models.vision import check_counts, convolve_patches, image_sides


class ViT(nn.Module):
    """`layers` are the encoder's."""

    classes: int
    layers: Layers
    patch_size: int
    pool: str
    dropout: float

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Return ``logits`` [B, classes]."""
        width, size = self.layers.width, (self.patch_size, self.patch_size)
        patches = nn.Conv(width, size, size, "VALID", conv_general_dilated=convolve_patches, name="patches")
        x_BHWD = patches(image_BHWC)
        x_BTD = x_BHWD.reshape(x_BHWD.shape[0], -1, width)
        if self.pool == "token":
            token_D = self.param("class_token", nn.initializers.zeros, (width,)).astype(x_BTD.dtype)
            token_B1D = jnp.broadcast_to(token_D, (x_BTD.shape[0], 1, width))
            x_BTD = jnp.concatenate([token_B1D, x_BTD], axis=1)
        positions_TD = self.param("positions", nn.initializers.normal(0.02), x_BTD.shape[1:])
        x_BTD = x_BTD + positions_TD.astype(x_BTD.dtype)
        x_BTD = nn.Dropout(self.dropout, deterministic=not train)(x_BTD)
        x_BTD = Stack(self.layers, name="stack")(x_BTD, train=train)
        x_BD = x_BTD[:, 0] if self.pool == "token" else x_BTD.mean(axis=1)
        return {"logits": Dense(self.classes, kernel_init=nn.initializers.normal(0.02), name="head")(x_BD)}


def make(
    data: DataSpec,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    hidden: int = 0,
    patch_size: int = 16,
    pool: str = "token",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    attention: str = "einsum",
    scan: bool = False,
    remat: str = "none",
) -> ViT:
    """Return a ViT with one output a class of the data; the defaults are S/16, 22,050,664 parameters for 1000 classes.

    Args:
      data: its ``classes`` give the outputs, its field ``image`` [H, W, C] the number of patches.
      width: D, of the tokens: 192 in Ti, 384 in S, 768 in B, 1024 in L.
      depth: the number of blocks: 12, in L 24.
      heads: of the attention; 64 features each in the paper.
      hidden: the width of the blocks' perceptrons; 0 for 4 times `width`.
      patch_size: the side of a patch in pixels; divides the image's height and width.
      pool: what is classified: ``token``, one that is added for it, or ``mean``, of all tokens.
      dropout: rate after the positions, after each attention, and after each layer of a perceptron.
      attention_dropout: rate of the attention's weights.
      stochastic_depth: share of examples that skip the last block in training; less before it, linearly.
      attention: implementation, see `Layers`.
      scan: whether the blocks are one scan, see `Layers`.
      remat: what the backward pass computes again, see `Layers`.

    Raises:
      ConfigError: an option that cannot be, heads that do not divide the width, or a patch size that does not divide
        the image.
    """
    word("pool", pool, ("token", "mean"))
    check_counts(patch_size=(patch_size,))
    _check_patches(data, patch_size)
    layers = Layers(
        width, depth, heads, hidden=hidden, dropout=dropout, hidden_dropout=dropout,
        attention_dropout=attention_dropout, stochastic_depth=stochastic_depth, attention=attention, scan=scan,
        remat=remat,
    )  # fmt: skip
    return ViT(len(data.classes), layers, patch_size, pool, dropout)


def _check_patches(data: DataSpec, patch_size: int) -> None:
    height, width = image_sides(data) or (patch_size, patch_size)
    if height % patch_size or width % patch_size:
        fitting = [n for n in range(1, min(height, width) + 1) if height % n == width % n == 0]
        raise ConfigError(
            f"config.model.patch_size={patch_size}: expected a divisor of the image's sides, {height} and {width}; did "
            f"you mean {min(fitting, key=lambda n: abs(n - patch_size))}?"
        )
