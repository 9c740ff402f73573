"""What image models share: the checks of their options, the stems' pools, and a convolution of patches side by side.

Shape letters: B batch, H height, W width, C channels in, F channels out; I × J patches of P × Q pixels.
"""

from __future__ import annotations

import functools
from typing import Any

from flax import linen as nn

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import Array, DataSpec
from jaxlab.models.dense import times
from jaxlab.models.layers import Pool, max_pool


def convolve_patches(
    inputs_BHWC: Array, kernel_PQCF: Array, window_strides: Any, padding: Any, **options: Any
) -> Array:
    """Convolve with a stride of the kernel's own size, without padding: each patch times one matrix.

    Fits the field ``conv_general_dilated`` of `flax.linen.Conv`; a remainder at the edge is dropped.
    """
    rows, columns, channels, features = kernel_PQCF.shape
    assert tuple(window_strides) == (rows, columns), "patches lie side by side"
    assert padding == "VALID", "patches are not padded"
    batch, height, width = inputs_BHWC.shape[0], inputs_BHWC.shape[1] // rows, inputs_BHWC.shape[2] // columns
    x_BHWC = inputs_BHWC[:, : height * rows, : width * columns]
    x_BIPJQC = x_BHWC.reshape(batch, height, rows, width, columns, channels)
    x_BIJP = x_BIPJQC.swapaxes(2, 3).reshape(batch, height, width, rows * columns * channels)
    return times(x_BIJP, kernel_PQCF.reshape(-1, features))


def check_counts(**counts: tuple[int, ...]) -> None:
    """Refuse what is not one or more whole numbers above 0.

    Raises:
      ConfigError: names the option.
    """
    for option, values in counts.items():
        if not values or any(not isinstance(value, int) or value < 1 for value in values):
            shown = values[0] if len(values) == 1 else values
            raise ConfigError(f"config.model.{option}={shown}: expected whole numbers of at least 1")


def check_stages(**counts: tuple[int, ...]) -> None:
    """Refuse options that are not equally many whole numbers above 0, one a stage.

    Raises:
      ConfigError: names the options.
    """
    check_counts(**counts)
    if len({len(values) for values in counts.values()}) > 1:
        shown = " and ".join(f"{option}={values}" for option, values in counts.items())
        raise ConfigError(f"config.model: {shown} must be equally long, one number a stage")


def image_sides(data: DataSpec) -> tuple[int, int] | None:
    """Return height and width of the data's field ``image`` in pixels; None where there is none of this name.

    Raises:
      DataError: the field is no image.
    """
    if "image" not in data.example:
        return None
    shape = data.example["image"].shape
    if len(shape) != 3:
        raise DataError(f"the data's field 'image' has the shape {shape}; the model expects (height, width, channels)")
    return shape[0], shape[1]


def check_side(data: DataSpec, smallest: int, options: str) -> None:
    """Refuse images with a side of fewer than `smallest` pixels.

    Raises:
      ConfigError: names the options that make the network need so many.
    """
    side = min(image_sides(data) or (smallest,))
    if side < smallest:
        raise ConfigError(
            f"{options}: expected images with sides of at least {smallest} pixels, the network's total stride; the "
            f"data's have a side of {side}"
        )


def stem_pool(stem: str, padding: str) -> Pool | None:
    """Return the pool after the first convolution: None for ``small``, 2×2 for ``small_pool``, else ImageNet's 3×3."""
    if stem == "small":
        return None
    if stem == "small_pool":
        return max_pool
    pads = "SAME" if padding == "same" else ((1, 1), (1, 1))
    return functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding=pads)
