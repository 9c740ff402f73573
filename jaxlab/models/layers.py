"""Layers that several families share.

Shape letters: B batch, H height, W width, C channels in, F channels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

PATCHES_MAX_CHANNELS = 512  # beyond it the patches' memory traffic costs more than it saves


def convolve(
    inputs_BHWC: jax.Array, kernel_HWCF: jax.Array, window_strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """Convolve as `jax.lax.conv_general_dilated` does; fits the field of that name of `flax.linen.Conv`.

    On the CPU a plain convolution is written as its patches times one matrix: XLA's convolution is 9 to 20 times slower
    inside a scan there, and no faster outside. The result is the same up to rounding.
    """
    plain = not options.get("feature_group_count", 1) > 1 and all(
        tuple(options.get(name) or (1, 1)) == (1, 1) for name in ("lhs_dilation", "rhs_dilation")
    )
    small = inputs_BHWC.ndim == 4 and kernel_HWCF.shape[2] <= PATCHES_MAX_CHANNELS
    if jax.default_backend() != "cpu" or not plain or not small:
        return jax.lax.conv_general_dilated(inputs_BHWC, kernel_HWCF, window_strides, padding, **options)
    return _patches_convolution(inputs_BHWC, kernel_HWCF, tuple(window_strides), padding)


def _patches_convolution(x_BHWC: jax.Array, kernel_HWCF: jax.Array, strides: Sequence[int], padding: Any) -> jax.Array:
    rows, columns, _, features = kernel_HWCF.shape
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x_BHWC.shape[1:3], (rows, columns), strides, padding)
    x_BHWC = jnp.pad(x_BHWC, ((0, 0), *map(tuple, padding), (0, 0)))
    height = (x_BHWC.shape[1] - rows) // strides[0] + 1
    width = (x_BHWC.shape[2] - columns) // strides[1] + 1
    patches = [
        x_BHWC[:, i : i + (height - 1) * strides[0] + 1 : strides[0], j : j + (width - 1) * strides[1] + 1 : strides[1]]
        for i in range(rows)
        for j in range(columns)
    ]
    x_BHWP = patches[0] if len(patches) == 1 else jnp.concatenate(patches, axis=-1)
    return jnp.einsum("BHWP,PF->BHWF", x_BHWP, kernel_HWCF.reshape(-1, features))


def max_pool(x_BHWC: jax.Array, size: int = 2) -> jax.Array:
    """Return the maximum of each `size` × `size` window, windows side by side; a remainder at the edge is dropped."""
    batch, height, width, channels = x_BHWC.shape
    rows, columns = height // size, width // size
    windows = x_BHWC[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
    return windows.max(axis=(2, 4))


def batch_norm(
    x: jax.Array,
    mask_B: jax.Array | None,
    *,
    train: bool,
    batch_axis: str | None,
    momentum: float = 0.9,
    scale_init: nn.initializers.Initializer = nn.initializers.ones,
) -> jax.Array:
    """Normalise `x` [B, ..., C] by a batch normalisation of the module that calls this (arXiv 1502.03167).

    In training the statistics are those of the whole batch's real examples: rows whose mask is 0 take no part, and
    under pmap `batch_axis` names the mapped axis to average over.
    """
    mask = None if mask_B is None else mask_B.reshape(-1, *(1,) * (x.ndim - 1)) > 0
    norm = nn.BatchNorm(use_running_average=not train, momentum=momentum, axis_name=batch_axis, scale_init=scale_init)
    return norm(x, mask=mask)
