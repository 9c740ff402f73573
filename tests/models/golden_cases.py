"""Tiny models whose weights are a formula of their foreign names, for the golden values derived from transformers.

The same weights are made with transformers (`scripts/golden_values.py`) and without (`test_golden`).
Usage: ``weights = {name: formula(name, shape) for name, shape in shapes.items()}``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxlab.core.types import DataSpec
from jaxlab.models import decoder, encoder, resnet, vit
from jaxlab.models.weights import bert, gpt2
from jaxlab.models.weights import resnet as resnet_weights
from jaxlab.models.weights import vit as vit_weights
from jaxlab.models.weights.rules import Family

FILE = Path(__file__).with_name("golden.json")
REGENERATE = "if transformers' own values have changed: pip install -e '.[oracle]' && python scripts/golden_values.py"
VOCABULARY, LENGTH, SIDE = 20, 7, 32
CLASSES = {"classes": ("a", "b", "c")}
TEXT = DataSpec({"tokens": jax.ShapeDtypeStruct((LENGTH,), np.int32)}, 10, {"vocabulary_size": VOCABULARY, **CLASSES})
IMAGES = DataSpec({"image": jax.ShapeDtypeStruct((SIDE, SIDE, 3), np.float32)}, 10, CLASSES)
TOKENS_BT = 1 + np.arange(2 * LENGTH, dtype=np.int32).reshape(2, LENGTH) * 3 % (VOCABULARY - 1)  # not BERT's padding
MASK_BT = (np.arange(LENGTH) < np.array([[LENGTH - 2], [LENGTH]])).astype(np.float32)
SEGMENTS_BT = (np.arange(2 * LENGTH, dtype=np.int32).reshape(2, LENGTH) % 3 == 2).astype(np.int32)
SIZES = {"width": 8, "depth": 2, "heads": 2}


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers between -1 and 1 that look random, other ones for each name."""
    place = np.arange(np.prod(shape, dtype=int)) * 12.9898 + sum(name.encode())
    return (2 * (np.sin(place) * 43758.5453 % 1) - 1).reshape(shape).astype(np.float32)


IMAGES_BHWC = noise("image", (2, SIDE, SIDE, 3))


class Case(NamedTuple):
    """Our model, its naming, its inputs, and what counts of its results."""

    model: nn.Module
    family: Family
    inputs: tuple[np.ndarray, ...]
    mask: np.ndarray | None = None


def _resnet(block: str) -> nn.Module:
    return resnet.make(IMAGES, None, block=block, blocks=(2, 1), channels=(4, 6), stem="imagenet")


CASES = {
    "gpt2": Case(decoder.gpt2(TEXT, max_length=LENGTH, **SIZES), gpt2.FAMILY, (TOKENS_BT,)),
    "bert": Case(
        encoder.masked(TEXT, max_length=LENGTH, pooler=False, **SIZES), bert.FAMILY, (TOKENS_BT, MASK_BT, SEGMENTS_BT),
        MASK_BT[..., None],
    ),
    "bert_classifier": Case(
        encoder.make(TEXT, max_length=LENGTH, pooling="first", **SIZES), bert.FAMILY, (TOKENS_BT, MASK_BT, SEGMENTS_BT)
    ),
    "vit": Case(vit.make(IMAGES, patch_size=8, **SIZES), vit_weights.TRANSFORMERS, (IMAGES_BHWC,)),
    "resnet_basic": Case(_resnet("basic"), resnet_weights.TRANSFORMERS, (IMAGES_BHWC,)),
    "resnet_bottleneck": Case(_resnet("bottleneck"), resnet_weights.TRANSFORMERS, (IMAGES_BHWC,)),
}  # fmt: skip


def formula(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers that keep the size of what they multiply; around 1 for scales and variances, small for biases."""
    if len(shape) > 1:
        return noise(name, shape) * np.float32(2 / np.prod(shape[1:]) ** 0.5)
    around = 1 if name.endswith(("weight", "running_var")) else 0
    return noise(name, shape) * np.float32(0.3) + np.float32(around)


def weighted(values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Return the fixed weights of the sum of logits whose gradient is taken; 0 where the mask is."""
    weights = np.cos(np.arange(values.size, dtype=np.float32)).reshape(values.shape)
    return weights if mask is None else weights * mask


def summary(gradient: np.ndarray) -> list[float]:
    """Return a sum over the gradient that each entry enters with its own weight, and its norm."""
    gradient = gradient.astype(np.float64)
    return [float(f"{x:.7g}") for x in (np.sum(gradient * weighted(gradient)), np.linalg.norm(gradient))]
