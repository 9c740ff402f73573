"""Transforms of image fields [B, H, W, C] that need no resampling, vectorised over the batch.

Those that resample are in `image_geometry`, those of colour in `image_colour`. Knows no file format and no device.
Usage: ``data.augment = (spec("jaxlab.data.images:random_flip"), spec("jaxlab.data.images:random_shift", pixels=2))``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Randomness, Transform

Fields = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class OnField:
    """The transform that replaces one field by a function of it and leaves the others."""

    field: str
    function: Callable[[np.ndarray, Randomness], np.ndarray]

    def __call__(self, fields: Fields, randomness: Randomness) -> Fields:
        """Return the fields with the one replaced."""
        if self.field not in fields:
            raise ConfigError(
                f"a transform of {self.field!r} is configured, but the data has the fields {', '.join(fields)}"
            )
        return {**fields, self.field: self.function(fields[self.field], randomness)}


def check_share(name: str, value: float) -> None:
    """Raise a ConfigError unless the parameter `name` is between 0 and 1."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}={value}: expected a number from 0 to 1")


def rescale(field: str = "image", scale: float = 1 / 255, offset: float = 0.0) -> Transform:
    """Return the transform ``x * scale + offset``, to float32."""
    return OnField(field, lambda image_BHWC, _: image_BHWC.astype(np.float32) * np.float32(scale) + np.float32(offset))


def standardise(
    mean: tuple[float, ...], std: tuple[float, ...], field: str = "image", scale: float = 1 / 255
) -> Transform:
    """Return the transform ``(x * scale - mean) / std``, to float32; `mean` and `std` are per channel or one."""
    if len(mean) != len(std) or min(std, default=0.0) <= 0:
        raise ConfigError(f"standardise: mean={mean} and std={std} must be equally long and std positive")
    factor, shift = np.float32(scale) / np.float32(std), np.float32(mean) / np.float32(std)

    def standard(image_BHWC: np.ndarray, _: Randomness) -> np.ndarray:
        per_channel("standardise", mean, image_BHWC)
        return image_BHWC.astype(np.float32) * factor - shift

    return OnField(field, standard)


def random_flip(field: str = "image", probability: float = 0.5) -> Transform:
    """Return the transform that mirrors each image left to right with the given probability."""

    def flip(image_BHWC: np.ndarray, randomness: Randomness) -> np.ndarray:
        chosen_B = randomness.uniform(0.0, 1.0) < probability
        flipped_BHWC = image_BHWC.copy()
        flipped_BHWC[chosen_B] = image_BHWC[chosen_B].take(np.arange(image_BHWC.shape[2])[::-1], axis=2)
        return flipped_BHWC

    return OnField(field, flip)


def random_shift(field: str = "image", pixels: int = 2, fill: float | tuple[float, ...] | None = None) -> Transform:
    """Return the transform that moves each image by up to `pixels` a direction, which is the padded random crop.

    That of ResNet training on small images (He et al. 2016, arXiv 1512.03385, section 4.2), which pads by 4.

    Args:
      field: the image field.
      pixels: the padding on each side.
      fill: what the uncovered border holds, one number or one a channel; None is the value of the image's own first
        pixel, since after standardising zero is not the background.
    """
    if pixels < 0:
        raise ConfigError(f"random_shift: pixels={pixels}: expected 0 or more")

    def shift(image_BHWC: np.ndarray, randomness: Randomness) -> np.ndarray:
        batch, height, width, channels = image_BHWC.shape
        down_B, right_B = (randomness.integers(0, 2 * pixels + 1) for _ in range(2))
        pixel = image_BHWC[:, 0, 0] if fill is None else as_pixel("random_shift: fill", fill, image_BHWC)[None]
        pixel = np.broadcast_to(pixel, (batch, channels))
        # lines of pixels laid end to end, since NumPy copies long rows many times faster than rows of three values
        lines = np.tile(pixel, (1, width + 2 * pixels))[:, None].repeat(height + 2 * pixels, axis=1)
        lines[:, pixels : pixels + height, pixels * channels : (pixels + width) * channels] = image_BHWC.reshape(
            batch, height, -1
        )
        windows = np.lib.stride_tricks.sliding_window_view(lines, (height, width * channels), axis=(1, 2))
        return windows[np.arange(batch), down_B, right_B * channels].reshape(image_BHWC.shape)

    return OnField(field, shift)


def random_erase(
    field: str = "image",
    probability: float = 0.5,
    smallest: float = 0.02,
    largest: float = 0.3,
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
    value: float | str = "random",
) -> Transform:
    """Return the transform that overwrites a random rectangle of some images.

    Random erasing (Zhong et al. 2017, arXiv 1708.04896). Random values lie between the image's own extremes: those of
    the batch would make an image depend on which rows a process reads.

    Args:
      field: the image field.
      probability: of erasing, an image.
      smallest: smallest share of the area that is erased.
      largest: largest share.
      ratio: smallest and largest height : width of the rectangle.
      value: a number, ``random`` for one random value a rectangle, or ``noise`` for one a pixel and channel.
    """
    check_share("random_erase: probability", probability)
    if not 0 <= smallest <= largest <= 1:
        raise ConfigError(
            f"random_erase: smallest={smallest}, largest={largest}: expected 0 <= smallest <= largest <= 1"
        )
    if not 0 < ratio[0] <= ratio[1]:
        raise ConfigError(f"random_erase: ratio={ratio}: expected two positive numbers, the smaller first")
    if isinstance(value, str) and value not in ("random", "noise"):
        raise ConfigError(
            f"random_erase: value={value!r}: expected a number, 'random' or 'noise'"
            f"{did_you_mean(value, ('random', 'noise'))}"
        )

    def erase(image_BHWC: np.ndarray, randomness: Randomness) -> np.ndarray:
        height, width = image_BHWC.shape[1:3]
        draw_B6 = randomness.uniform(0.0, 1.0, (6,))
        chosen_B = draw_B6[:, 0] < probability
        area_B = (smallest + draw_B6[:, 1] * (largest - smallest)) * height * width
        ratio_B = ratio[0] * (ratio[1] / ratio[0]) ** draw_B6[:, 2]
        tall_B = np.clip(np.sqrt(area_B * ratio_B), 1, height)
        wide_B = np.clip(np.sqrt(area_B / ratio_B), 1, width)
        top_B, left_B = draw_B6[:, 3] * (height - tall_B), draw_B6[:, 4] * (width - wide_B)
        rows_BH = _between(np.arange(height), top_B, tall_B)
        columns_BW = _between(np.arange(width), left_B, wide_B)
        erased_BHW1 = (chosen_B[:, None, None] & rows_BH[:, :, None] & columns_BW[:, None, :])[..., None]
        draw = (
            randomness.uniform(0.0, 1.0, image_BHWC.shape[1:]) if value == "noise" else draw_B6[:, 5, None, None, None]
        )
        flat_B11P = image_BHWC.reshape(len(image_BHWC), 1, 1, -1)
        low, high = (bound(flat_B11P, axis=3, keepdims=True) for bound in (np.min, np.max))
        new = (
            low + draw * (high.astype(np.float32) - low)
            if isinstance(value, str)
            else as_pixel("random_erase: value", value, image_BHWC)
        )
        return np.where(erased_BHW1, new.astype(image_BHWC.dtype), image_BHWC)

    return OnField(field, erase)


def per_channel(name: str, value: float | tuple[float, ...], image_BHWC: np.ndarray) -> np.ndarray:
    """Return the parameter `value` as an array [1] or [C]; a ConfigError where it is neither."""
    values = np.atleast_1d(np.asarray(value))
    if values.shape not in ((1,), image_BHWC.shape[-1:]):  # broadcasting would make channels of the values
        raise ConfigError(f"{name}: {values.size} values for images of {image_BHWC.shape[-1]} channels")
    return values


def as_pixel(name: str, value: float | tuple[float, ...], image_BHWC: np.ndarray) -> np.ndarray:
    """Return the parameter `value` as an array [1] or [C] of the images' dtype; a ConfigError where it does not fit."""
    values = per_channel(name, value, image_BHWC)
    if image_BHWC.dtype.kind in "iu":
        limits = np.iinfo(image_BHWC.dtype)
        if values.min() < limits.min or values.max() > limits.max or (values != np.round(values)).any():
            raise ConfigError(
                f"{name}={value}: expected whole numbers from {limits.min} to {limits.max} for images of "
                f"{image_BHWC.dtype}"
            )
    return values.astype(image_BHWC.dtype)


def _between(positions: np.ndarray, start_B: np.ndarray, length_B: np.ndarray) -> np.ndarray:
    return (positions >= np.round(start_B)[:, None]) & (positions < np.round(start_B + length_B)[:, None])
