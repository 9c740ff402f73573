"""Changes of the colours of image fields [B, H, W, C], of 1 or 3 channels, vectorised over the batch.

The single operations are functions of bytes; a transform applies them to other dtypes through `on_bytes`. Knows no file
format and no device. Shape letters: B images, H height, W width, C channels, V the 256 byte values.
Usage: ``data.augment = (spec("jaxlab.data.image_colour:colour_jitter", brightness=0.2),)``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import Randomness, Transform
from jaxlab.data.images import OnField, per_channel

Level = float | tuple[float, ...] | None
_LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R 601-2


def colour_jitter(
    field: str = "image",
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.0,
    black: Level = None,
    white: Level = None,
) -> Transform:
    """Return the transform that changes brightness, contrast, saturation and hue, in an order random for each image.

    Args:
      field: the image field.
      brightness: the factor lies between 1 - brightness, at least 0, and 1 + brightness; 0 leaves it.
      contrast: likewise.
      saturation: likewise; of no effect on one channel.
      hue: largest turn either way, as a share of the circle, at most 0.5; of no effect on one channel.
      black: the value of black, one number or one a channel; None is 0.
      white: the value of white; None is 255 for uint8, else 1.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    for name, strength in strengths.items():
        if not 0 <= strength <= (0.5 if name == "hue" else np.inf):
            raise ConfigError(f"colour_jitter: {name}={strength}: expected 0 or more, and at most 0.5 for the hue")
    operations = (adjust_brightness, adjust_contrast, adjust_saturation, turn_hue)

    def jitter(byte_BHWC: np.ndarray, randomness: Randomness) -> np.ndarray:
        draw_B4, order_B4 = randomness.uniform(-1.0, 1.0, (4,)), randomness.uniform(0.0, 1.0, (4,)).argsort(axis=1)
        amount_B4 = draw_B4 * np.float32(list(strengths.values()))
        amount_B4[:, :3] = np.maximum(1 + amount_B4[:, :3], 0)
        result = byte_BHWC.copy()
        for turn in range(4):
            for kind, (operation, strength) in enumerate(zip(operations, strengths.values(), strict=True)):
                rows = np.flatnonzero(order_B4[:, turn] == kind)
                if strength and len(rows):
                    result[rows] = operation(result[rows], amount_B4[rows, kind])
        return result

    return on_bytes(field, jitter, black, white)


def on_bytes(
    field: str, function: Callable[[np.ndarray, Randomness], np.ndarray], black: Level, white: Level
) -> OnField:
    """Return the transform that applies a function of uint8 images to a field of any dtype, by way of 256 levels.

    Raises:
      DataError: when called: neither 1 nor 3 channels, or values beyond black and white.
    """

    def transform(image_BHWC: np.ndarray, randomness: Randomness) -> np.ndarray:
        if image_BHWC.ndim != 4 or image_BHWC.shape[3] not in (1, 3):
            raise DataError(f"field {field!r} has shape {image_BHWC.shape}; expected images of 1 or 3 channels")
        if image_BHWC.dtype == np.uint8 and black is None and white is None:
            return function(image_BHWC, randomness)
        top = 255.0 if image_BHWC.dtype == np.uint8 else 1.0
        low = per_channel("black", 0.0 if black is None else black, image_BHWC).astype(np.float32)
        step = (per_channel("white", top if white is None else white, image_BHWC) - low).astype(np.float32) / 255
        if (step <= 0).any():
            raise ConfigError(f"black={black}, white={white}: white must be above black")
        level_BHWC = (image_BHWC - low) / step
        if level_BHWC.size and not (level_BHWC.min() > -0.5 and level_BHWC.max() < 255.5):
            raise DataError(
                f"field {field!r} holds values from {image_BHWC.min()} to {image_BHWC.max()}; expected none beyond "
                f"black={low.tolist()} and white={(low + 255 * step).tolist()}: give the transform black= and white=, "
                "after standardising -mean/std and (1-mean)/std"
            )
        found = function(np.round(level_BHWC).astype(np.uint8), randomness) * step + low
        return (np.round(found) if image_BHWC.dtype.kind in "iu" else found).astype(image_BHWC.dtype)

    return OnField(field, transform)


def adjust_brightness(byte_BHWC: np.ndarray, factor_B: np.ndarray) -> np.ndarray:
    """Return the images mixed with black: a factor of 0 is black, 1 the image, more is brighter."""
    return _blend(np.float32(0), byte_BHWC, factor_B)


def adjust_contrast(byte_BHWC: np.ndarray, factor_B: np.ndarray) -> np.ndarray:
    """Return the images mixed with their mean grey, 0 being nothing but that."""
    return _blend(np.round(_grey(byte_BHWC).mean(axis=(1, 2, 3), keepdims=True)), byte_BHWC, factor_B)


def adjust_saturation(byte_BHWC: np.ndarray, factor_B: np.ndarray) -> np.ndarray:
    """Return the images mixed with their grey selves, 0 being those."""
    return _blend(_grey(byte_BHWC), byte_BHWC, factor_B) if byte_BHWC.shape[3] == 3 else byte_BHWC


def adjust_sharpness(byte_BHWC: np.ndarray, factor_B: np.ndarray) -> np.ndarray:
    """Return the images mixed with what a 3×3 kernel of ones, 5 in the middle, smooths; the border stays."""
    if min(byte_BHWC.shape[1:3]) < 3:
        return byte_BHWC
    values = byte_BHWC.astype(np.float32)
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    smooth = values.copy()
    smooth[:, 1:-1, 1:-1] += (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] - 9 * values[:, 1:-1, 1:-1]) / 13
    return _blend(np.round(smooth), byte_BHWC, factor_B)


def turn_hue(byte_BHWC: np.ndarray, turn_B: np.ndarray) -> np.ndarray:
    """Return the images with the hue moved by a share of the circle, lightest value and saturation kept."""
    if byte_BHWC.shape[3] != 3:
        return byte_BHWC
    values = byte_BHWC.astype(np.float32)
    red, green, blue = np.moveaxis(values, 3, 0)
    high, low = values.max(axis=3), values.min(axis=3)
    spread = np.where(high > low, high - low, 1)
    sixth = np.where(
        high == red,
        (green - blue) / spread,
        np.where(high == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    places = [n + sixth + 6 * turn_B.astype(np.float32)[:, None, None] for n in (5, 3, 1)]
    places = [place - 6 * np.floor(place / 6) for place in places]
    parts = [high - (high - low) * np.clip(np.minimum(place, 4 - place), 0, 1) for place in places]
    return np.round(np.stack(parts, axis=3)).astype(np.uint8)


def posterise(byte_BHWC: np.ndarray, bits_B: np.ndarray) -> np.ndarray:
    """Return the images with only the first `bits_B` bits of each value kept, 8 being all."""
    keep_B = (0xFF << (8 - bits_B.astype(np.int64)) & 0xFF).astype(np.uint8)
    return byte_BHWC & keep_B[:, None, None, None]


def solarise(byte_BHWC: np.ndarray, threshold_B: np.ndarray) -> np.ndarray:
    """Return the images with the values from `threshold_B` on inverted."""
    return np.where(byte_BHWC >= threshold_B[:, None, None, None], 255 - byte_BHWC, byte_BHWC)


def autocontrast(byte_BHWC: np.ndarray) -> np.ndarray:
    """Return the images with each channel stretched to 0 … 255."""
    low_BC1, high_BC1 = (bound(bound(byte_BHWC, 1), 1)[..., None].astype(np.float32) for bound in (np.min, np.max))
    level_V = np.arange(256, dtype=np.float32)
    stretched_BCV = np.clip((level_V - low_BC1) * (255 / np.where(high_BC1 > low_BC1, high_BC1 - low_BC1, 1)), 0, 255)
    return _look_up(np.where(high_BC1 > low_BC1, stretched_BCV, level_V), _entries(byte_BHWC))


def equalise(byte_BHWC: np.ndarray) -> np.ndarray:
    """Return the images with each channel's values spread so that all are about equally frequent."""
    batch, height, width, channels = byte_BHWC.shape
    place_BHWC = _entries(byte_BHWC)
    count_BCV = np.bincount(place_BHWC.ravel(), minlength=batch * channels * 256).reshape(batch, channels, 256)
    brightest_BC1 = byte_BHWC.max(axis=1).max(axis=1)[..., None].astype(np.int64)
    step_BC1 = (height * width - np.take_along_axis(count_BCV, brightest_BC1, axis=2)) // 255
    before_BCV = count_BCV.cumsum(axis=2) - count_BCV
    table_BCV = np.minimum((step_BC1 // 2 + before_BCV) // np.maximum(step_BC1, 1), 255)
    return _look_up(np.where(step_BC1 > 0, table_BCV, np.arange(256)), place_BHWC)


def _entries(byte_BHWC: np.ndarray) -> np.ndarray:
    """Return for each value its place in a table [B, C, V]."""
    batch, _, width, channels = byte_BHWC.shape
    first = 256 * np.arange(batch * channels).reshape(batch, 1, channels)
    return (np.tile(first, (1, 1, width)) + byte_BHWC.reshape(batch, -1, width * channels)).reshape(byte_BHWC.shape)


def _look_up(table_BCV: np.ndarray, place_BHWC: np.ndarray) -> np.ndarray:
    return np.round(table_BCV).astype(np.uint8).ravel().take(place_BHWC)


def _grey(byte_BHWC: np.ndarray) -> np.ndarray:
    """Return the luma [B, H, W, 1] float32, in whole numbers."""
    if byte_BHWC.shape[3] == 1:
        return byte_BHWC.astype(np.float32)
    return np.round(byte_BHWC @ _LUMA)[..., None]


def _blend(base: np.ndarray, byte_BHWC: np.ndarray, factor_B: np.ndarray) -> np.ndarray:
    mixed = base + (byte_BHWC - base) * factor_B.astype(np.float32)[:, None, None, None]
    return np.round(np.clip(mixed, 0, 255)).astype(np.uint8)
