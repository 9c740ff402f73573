"""Transforms of image fields [B, H, W, C] that resample: crops, rotations and shears, gathered for the whole batch.

A pixel's centre lies at its index plus a half. Knows no file format and no device.
Shape letters: B images, H and W input height and width, Y and X output height and width, C channels, N tries.
Usage: ``data.augment = (spec("jaxlab.data.image_geometry:random_resized_crop", scale=(0.3, 1.0)),)``.
"""

from __future__ import annotations

import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Randomness, Transform
from jaxlab.data.images import OnField, as_pixel

_TRIES = 10


def random_resized_crop(
    field: str = "image",
    size: int | tuple[int, int] | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Transform:
    """Return the transform that cuts a random rectangle out of each image and resizes it bilinearly.

    That of Inception (Szegedy et al. 2014, arXiv 1409.4842, section 6). Where none of ten random shapes fits into the
    image, the largest central rectangle of an allowed ratio is taken.

    Args:
      field: the image field.
      size: height and width of the result, or one number for both; None keeps the images' own.
      scale: smallest and largest share of the area.
      ratio: smallest and largest width : height.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ConfigError(f"random_resized_crop: scale={scale}: expected two shares of the area, the smaller first")
    if not 0 < ratio[0] <= ratio[1]:
        raise ConfigError(f"random_resized_crop: ratio={ratio}: expected two positive numbers, the smaller first")
    sides = (size, size) if isinstance(size, int) else size
    if sides is not None and (len(sides) != 2 or min(sides) < 1):
        raise ConfigError(f"random_resized_crop: size={size}: expected one or two positive numbers")

    def crop(image_BHWC: np.ndarray, randomness: Randomness) -> np.ndarray:
        height, width = image_BHWC.shape[1:3]
        draw_BN2, place_B2 = randomness.uniform(0.0, 1.0, (_TRIES, 2)), randomness.uniform(0.0, 1.0, (2,))
        tall_B, wide_B = _crop_sides(draw_BN2, height, width, scale, ratio)
        centred_B = np.isnan(tall_B)
        tall_B = np.where(centred_B, min(height, width / ratio[0]), tall_B)
        wide_B = np.where(centred_B, min(width, height * ratio[1]), wide_B)
        down_B, right_B = np.where(centred_B[:, None], 0.5, place_B2).T
        top_B, left_B = down_B * (height - tall_B), right_B * (width - wide_B)
        rows, columns = sides or (height, width)
        y_BY = top_B[:, None] + tall_B[:, None] * ((np.arange(rows) + 0.5) / rows)
        x_BX = left_B[:, None] + wide_B[:, None] * ((np.arange(columns) + 0.5) / columns)
        return resample(image_BHWC, y_BY[:, :, None], x_BX[:, None, :])

    return OnField(field, crop)


def _crop_sides(
    draw_BN2: np.ndarray, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return heights and widths [B] of the first try that fits into the image, NaN where none does."""
    area_BN = (scale[0] + draw_BN2[..., 0] * (scale[1] - scale[0])) * height * width
    ratio_BN = ratio[0] * (ratio[1] / ratio[0]) ** draw_BN2[..., 1]
    tall_BN, wide_BN = np.sqrt(area_BN / ratio_BN), np.sqrt(area_BN * ratio_BN)
    slack = 1 + 1e-6  # the whole image fits whatever the rounding
    fits_BN = (tall_BN <= height * slack) & (wide_BN <= width * slack)
    first_B, rows = fits_BN.argmax(axis=1), np.arange(len(draw_BN2))
    fits_B = fits_BN[rows, first_B]
    sides = (np.minimum(tall_BN[rows, first_B], height), np.minimum(wide_BN[rows, first_B], width))
    return np.where(fits_B, sides[0], np.nan), np.where(fits_B, sides[1], np.nan)


def affine(image_BHWC: np.ndarray, matrix_B22: np.ndarray, shift_B2: np.ndarray, fill: float) -> np.ndarray:
    """Return images whose pixel at (x, y) from the centre is the input's at ``matrix @ (x, y) + shift``, bilinearly.

    Args:
      image_BHWC: the images.
      matrix_B22: from output to input coordinates (x, y).
      shift_B2: in pixels (x, y).
      fill: the value of what lies outside.
    """
    height, width = image_BHWC.shape[1:3]
    x_X, y_Y1 = np.arange(width) + 0.5 - width / 2, (np.arange(height) + 0.5 - height / 2)[:, None]
    m, s = matrix_B22[:, :, :, None, None], shift_B2[:, :, None, None]
    x_BYX = m[:, 0, 0] * x_X + m[:, 0, 1] * y_Y1 + s[:, 0] + width / 2
    y_BYX = m[:, 1, 0] * x_X + m[:, 1, 1] * y_Y1 + s[:, 1] + height / 2
    inside_BYX = (x_BYX >= 0) & (x_BYX < width) & (y_BYX >= 0) & (y_BYX < height)
    return np.where(inside_BYX[..., None], resample(image_BHWC, y_BYX, x_BYX), as_pixel("fill", fill, image_BHWC))


def resample(image_BHWC: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the images [B, Y, X, C] at positions `y` and `x`, both broadcastable to [B, Y, X], bilinearly.

    Beyond the outermost pixels' centres their values go on. Whole-numbered dtypes are rounded.
    """
    height, width = image_BHWC.shape[1:3]
    top, down = _neighbours(y, height)
    left, right = _neighbours(x, width)
    pixels = image_BHWC.reshape(len(image_BHWC) * height * width, -1)
    first = np.arange(len(image_BHWC))[:, None, None] * (height * width) + top * width + left
    next_row, next_column = np.where(top < height - 1, width, 0), np.where(left < width - 1, 1, 0)

    def blend(one: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return one + (other - one.astype(np.float32)) * weight[..., None]

    upper = blend(pixels.take(first, axis=0), pixels.take(first + next_column, axis=0), right)
    first += next_row
    lower = blend(pixels.take(first, axis=0), pixels.take(first + next_column, axis=0), right)
    found = blend(upper, lower, down)
    return (np.round(found) if image_BHWC.dtype.kind in "iu" else found).astype(image_BHWC.dtype)


def _neighbours(position: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the pixel before each position and the weight of the one after it."""
    place = np.clip(position - 0.5, 0, size - 1)
    before = place.astype(np.int64)
    return before, (place - before).astype(np.float32)
