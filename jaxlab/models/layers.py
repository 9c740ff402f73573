"""Layers that several families share.

Shape letters: B batch, H height, W width, C channels in, F channels out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.models.dense import times

Pool = Callable[[jax.Array], jax.Array]
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
    return times(x_BHWP, kernel_HWCF.reshape(-1, features))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x_BHWC: jax.Array, size: int = 2) -> jax.Array:
    """Return the maximum of each `size` × `size` window, windows side by side; a remainder at the edge is dropped.

    By comparing slices, and a gradient that goes to the first largest entry of a window: on the CPU a reduce-window's
    gradient takes 10 times as long. Reverse mode only.
    """
    return _max_pool(x_BHWC, size)[0]


def _max_pool(x_BHWC: jax.Array, size: int) -> tuple[jax.Array, tuple[jax.Array, tuple[int, int]]]:
    """Return what the pool holds, and for the gradient each window's largest entry as row * size + column."""
    height, width = x_BHWC.shape[1:3]
    rows, columns = height // size * size, width // size * size
    slices = [x_BHWC[:, i:rows:size, j:columns:size] for i in range(size) for j in range(size)]
    largest, place = slices[0], jnp.zeros(slices[0].shape, jnp.uint8)
    for index, entry in enumerate(slices[1:], 1):
        place = jnp.where(entry > largest, jnp.uint8(index), place)
        largest = jnp.maximum(largest, entry)
    return largest, (place, (height, width))


def _max_pool_gradient(
    size: int, kept: tuple[jax.Array, tuple[int, int]], gradient_BHWC: jax.Array
) -> tuple[jax.Array]:
    place_BHWC, (height, width) = kept
    batch, rows, columns, channels = gradient_BHWC.shape
    index = jnp.arange(size * size, dtype=jnp.uint8).reshape(size, 1, size, 1)
    spread = jnp.where(place_BHWC[:, :, None, :, None] == index, gradient_BHWC[:, :, None, :, None], 0)
    flat = spread.reshape(batch, rows * size, columns * size, channels)
    return (jnp.pad(flat, ((0, 0), (0, height - rows * size), (0, width - columns * size), (0, 0))),)


max_pool.defvjp(_max_pool, _max_pool_gradient)


class BatchNorm(nn.Module):
    """Batch normalisation over the real examples of the whole batch (Ioffe & Szegedy 2015, arXiv 1502.03167).

    As `flax.linen.BatchNorm`, names and defaults included, but exact for uneven masks on several devices: under pmap,
    where `batch_axis` names the mapped axis, sums and counts are added and divided once; flax averages averages.
    """

    batch_axis: str | None
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, mask_B: jax.Array | None, *, train: bool, pool: Pool | None = None) -> jax.Array:
        """Return the pool of the normalised `x` [B, ..., C].

        Args:
          x: to be normalised.
          mask_B: rows whose mask is 0 take no part in the statistics; None for none such.
          train: whether the statistics are `x`'s own, and the running ones follow them.
          pool: a maximum over places, None for none. It is taken before the scale and the shift, which keep the order
            (or reverse it, where the scale is negative): the same values, of which fewer are computed.
        """
        channels = (x.shape[-1],)
        mean_C = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var_C = self.variable("batch_stats", "var", jnp.ones, channels)
        scale_C = self.param("scale", self.scale_init, channels)
        bias_C = self.param("bias", nn.initializers.zeros, channels)
        mean, var = mean_C.value, var_C.value
        if train:
            mean, var = self._moments(x, mask_B)
            mean_C.value = self.momentum * mean_C.value + (1 - self.momentum) * mean
            var_C.value = self.momentum * var_C.value + (1 - self.momentum) * var
        scale = jax.lax.rsqrt(var + self.epsilon) * scale_C
        shift = bias_C - mean * scale
        if pool is not None:
            sign = jnp.where(scale < 0, -1, 1)
            x, scale = pool(x * sign.astype(x.dtype)), scale * sign
        return (x * scale + shift).astype(x.dtype)  # its gradient reads x once less than (x - mean)

    def _moments(self, x: jax.Array, mask_B: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Return mean [C] and variance [C] in float32, the variance as E[x²] - E[x]², in one pass."""
        x = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        count = jnp.asarray(math.prod(x.shape[:-1]), jnp.float32)
        if mask_B is not None:
            weight = mask_B.reshape(-1, *(1,) * (x.ndim - 1))
            x, count = x * weight, count * mask_B.mean()
        sums = (x.sum(axes), jnp.square(x).sum(axes), count)
        if self.batch_axis is not None:
            sums = jax.lax.psum(sums, self.batch_axis)
        total_C, square_C, count = sums
        count = jnp.maximum(count, 1.0)
        mean_C = total_C / count
        return mean_C, jnp.maximum(square_C / count - jnp.square(mean_C), 0.0)
