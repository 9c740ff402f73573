"""RandAugment: a few random operations of one common strength on each image, vectorised over the batch.

Knows no file format and no device. Shape letters: B images, H height, W width, C channels, L layers.
Usage: ``data.augment = (spec("jaxlab.data.rand_augment:make", layers=2, magnitude=9),)``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Randomness, Transform
from jaxlab.data import image_colour as colour
from jaxlab.data.image_geometry import affine

Operation = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A function of uint8 images [B, H, W, C], strengths [B] (1 is the strongest of AutoAugment) and signs [B]."""


def make(
    layers: int = 2,
    magnitude: float = 9.0,
    field: str = "image",
    fill: int = 128,
    black: colour.Level = None,
    white: colour.Level = None,
) -> Transform:
    """Return the transform that applies `layers` operations, each drawn from 14, to each image.

    RandAugment (Cubuk et al. 2019, arXiv 1909.13719): identity, autocontrast, equalise, rotate, solarise, saturation,
    posterise, contrast, brightness, sharpness, and shear and translate along x and y. Every operation that has a
    strength leaves the image at magnitude 0 and grows with it.

    Args:
      layers: operations an image; they may repeat.
      magnitude: 0 to 30; 10 is the strongest setting of AutoAugment, beyond it the ranges go on.
      field: the image field.
      fill: the byte (0 to 255) of what rotating, shearing and translating uncover; 0 suits a black background.
      black: the value of black, one number or one a channel; None is 0.
      white: the value of white; None is 255 for uint8, else 1. Images pass through 256 levels between the two.
    """
    if layers < 0 or layers != int(layers):
        raise ConfigError(f"rand_augment: layers={layers}: expected 0, 1, 2 or more")
    if not 0 <= magnitude <= 30:
        raise ConfigError(f"rand_augment: magnitude={magnitude}: expected a number from 0 to 30")
    if fill not in range(256):
        raise ConfigError(f"rand_augment: fill={fill}: expected a byte, 0 to 255")
    operations = list(make_operations(fill).values())

    def augment(byte_BHWC: np.ndarray, randomness: Randomness) -> np.ndarray:
        choice_BL = randomness.integers(0, len(operations), (layers,))
        sign_BL = 1 - 2 * randomness.integers(0, 2, (layers,))
        strength_B = np.full(len(byte_BHWC), magnitude / 10, np.float32)
        result = byte_BHWC.copy()
        for choice_B, sign_B in zip(choice_BL.T, sign_BL.T, strict=True):
            for kind, operation in enumerate(operations):
                rows = np.flatnonzero(choice_B == kind)
                if len(rows):
                    result[rows] = operation(result[rows], strength_B[rows], sign_B[rows])
        return result

    return colour.on_bytes(field, augment, black, white)


def make_operations(fill: int = 128) -> dict[str, Operation]:
    """Return the 14 operations by name; `fill` is the byte of what is uncovered."""
    moves = {name: functools.partial(_move, kind=name, fill=fill) for name in _MOVES}
    return {
        "identity": lambda image, strength, sign: image,
        "autocontrast": lambda image, strength, sign: colour.autocontrast(image),
        "equalise": lambda image, strength, sign: colour.equalise(image),
        "posterise": lambda image, strength, sign: colour.posterise(image, np.maximum(8 - np.round(4 * strength), 1)),
        "solarise": lambda image, strength, sign: colour.solarise(image, 256 * (1 - strength)),
        "brightness": lambda image, strength, sign: colour.adjust_brightness(image, _factor(strength, sign)),
        "contrast": lambda image, strength, sign: colour.adjust_contrast(image, _factor(strength, sign)),
        "saturation": lambda image, strength, sign: colour.adjust_saturation(image, _factor(strength, sign)),
        "sharpness": lambda image, strength, sign: colour.adjust_sharpness(image, _factor(strength, sign)),
        **moves,
    }


_MOVES = {"rotate": np.pi / 6, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331}
"""The largest angle, slope or share of the side of AutoAugment (Cubuk et al. 2018, arXiv 1805.09501, table 6)."""


def _factor(strength_B: np.ndarray, sign_B: np.ndarray) -> np.ndarray:
    return np.maximum(1 + 0.9 * strength_B * sign_B, 0)


def _move(image_BHWC: np.ndarray, strength_B: np.ndarray, sign_B: np.ndarray, *, kind: str, fill: int) -> np.ndarray:
    """Return the images rotated, sheared or translated."""
    amount_B = _MOVES[kind] * strength_B * sign_B
    matrix_B22, shift_B2 = np.tile(np.eye(2), (len(amount_B), 1, 1)), np.zeros((len(amount_B), 2))
    if kind == "rotate":
        cosine, sine = np.cos(amount_B), np.sin(amount_B)
        matrix_B22 = np.stack([cosine, -sine, sine, cosine], axis=1).reshape(-1, 2, 2)
    elif kind == "shear_x":
        matrix_B22[:, 0, 1] = amount_B
    elif kind == "shear_y":
        matrix_B22[:, 1, 0] = amount_B
    else:
        axis = ("translate_x", "translate_y").index(kind)
        shift_B2[:, axis] = amount_B * image_BHWC.shape[2 - axis]
    return affine(image_BHWC, matrix_B22, shift_B2, fill)
