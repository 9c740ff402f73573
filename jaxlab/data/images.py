"""Transforms of image fields [B, H, W, C], vectorised over the batch.

Usage: ``data.augment = (spec("jaxlab.data.images:random_flip"), spec("jaxlab.data.images:random_shift", pixels=2))``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Randomness, Transform

Fields = Mapping[str, np.ndarray]


def rescale(field: str = "image", scale: float = 1 / 255, offset: float = 0.0) -> Transform:
    """Return the transform ``x * scale + offset``, to float32."""
    return _on(field, lambda image_BHWC, _: image_BHWC.astype(np.float32) * np.float32(scale) + np.float32(offset))


def standardise(
    mean: tuple[float, ...], std: tuple[float, ...], field: str = "image", scale: float = 1 / 255
) -> Transform:
    """Return the transform ``(x * scale - mean) / std``, to float32; `mean` and `std` are per channel or one."""
    if len(mean) != len(std) or min(std, default=0.0) <= 0:
        raise ConfigError(f"standardise: mean={mean} and std={std} must be equally long and std positive")
    factor, shift = np.float32(scale) / np.float32(std), np.float32(mean) / np.float32(std)

    def standard(image_BHWC: np.ndarray, _: Randomness) -> np.ndarray:
        if len(mean) not in (1, image_BHWC.shape[-1]):  # broadcasting would make channels of the values
            raise ConfigError(f"standardise: {len(mean)} values for images of {image_BHWC.shape[-1]} channels")
        return image_BHWC.astype(np.float32) * factor - shift

    return _on(field, standard)


def random_flip(field: str = "image", probability: float = 0.5) -> Transform:
    """Return the transform that mirrors each image left to right with the given probability."""

    def flip(image_BHWC: np.ndarray, randomness: Randomness) -> np.ndarray:
        chosen_B = randomness.uniform(0.0, 1.0) < probability
        return np.where(chosen_B[:, None, None, None], image_BHWC[:, :, ::-1], image_BHWC)

    return _on(field, flip)


def random_shift(field: str = "image", pixels: int = 2) -> Transform:
    """Return the transform that moves each image by up to `pixels` a direction, filling with the first pixel's value.

    This is the padded random crop of ResNet training on small images (He et al. 2016, arXiv 1512.03385, section 4.2),
    with the image's corner as background, since after standardising zero is not the background.
    """

    def shift(image_BHWC: np.ndarray, randomness: Randomness) -> np.ndarray:
        batch, height, width, _ = image_BHWC.shape
        down_B, right_B = (randomness.integers(0, 2 * pixels + 1) for _ in range(2))
        padded = np.empty((batch, height + 2 * pixels, width + 2 * pixels, image_BHWC.shape[3]), image_BHWC.dtype)
        padded[:] = image_BHWC[:, :1, :1]
        padded[:, pixels : pixels + height, pixels : pixels + width] = image_BHWC
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
        moved_BCHW = windows[np.arange(batch), down_B, right_B]
        return np.moveaxis(moved_BCHW, 1, 3)

    return _on(field, shift)


def random_erase(
    field: str = "image", probability: float = 0.5, smallest: float = 0.02, largest: float = 0.3
) -> Transform:
    """Return the transform that overwrites a random rectangle of some images with one random value.

    Random erasing (Zhong et al. 2017, arXiv 1708.04896), with the value drawn between the image's own extremes: those
    of the batch would make an image depend on which rows a process reads.

    Args:
      field: the image field.
      probability: of erasing, an image.
      smallest: smallest share of the area that is erased.
      largest: largest share.
    """

    def erase(image_BHWC: np.ndarray, randomness: Randomness) -> np.ndarray:
        height, width = image_BHWC.shape[1:3]
        draw_B6 = randomness.uniform(0.0, 1.0, (6,))
        chosen_B = draw_B6[:, 0] < probability
        area_B = (smallest + draw_B6[:, 1] * (largest - smallest)) * height * width
        ratio_B = np.exp((draw_B6[:, 2] - 0.5) * 2 * np.log(1 / 0.3))  # height : width between 0.3 and 1 / 0.3
        tall_B = np.clip(np.sqrt(area_B * ratio_B), 1, height)
        wide_B = np.clip(np.sqrt(area_B / ratio_B), 1, width)
        top_B, left_B = draw_B6[:, 3] * (height - tall_B), draw_B6[:, 4] * (width - wide_B)
        rows_BH = _between(np.arange(height), top_B, tall_B)
        columns_BW = _between(np.arange(width), left_B, wide_B)
        erased_BHW1 = (chosen_B[:, None, None] & rows_BH[:, :, None] & columns_BW[:, None, :])[..., None]
        low_B, high_B = image_BHWC.min(axis=(1, 2, 3)), image_BHWC.max(axis=(1, 2, 3))
        value_B = (low_B + draw_B6[:, 5] * (high_B - low_B)).astype(image_BHWC.dtype)
        return np.where(erased_BHW1, value_B[:, None, None, None], image_BHWC)

    return _on(field, erase)


def _between(positions: np.ndarray, start_B: np.ndarray, length_B: np.ndarray) -> np.ndarray:
    return (positions >= np.round(start_B)[:, None]) & (positions < np.round(start_B + length_B)[:, None])


def _on(field: str, function: Callable[[np.ndarray, Randomness], np.ndarray]) -> Transform:
    """Return the transform that replaces one field and leaves the others."""

    def transform(fields: Fields, randomness: Randomness) -> Fields:
        if field not in fields:
            raise ConfigError(
                f"a transform of {field!r} is configured, but the data has the fields {', '.join(fields)}"
            )
        return {**fields, field: function(fields[field], randomness)}

    return transform
