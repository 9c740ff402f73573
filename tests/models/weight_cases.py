"""One tiny model a family of foreign weights, with and without a scan over its layers, and what reads and writes it.

Usage: ``case = CASES["gpt2"]``; ``case.save(folder, variables_of(case.model))``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxlab.core.tree import named_leaves
from jaxlab.core.types import DataSpec, Initialiser
from jaxlab.models import decoder, encoder, resnet, vit
from jaxlab.models.weights import bert, gpt2
from jaxlab.models.weights import resnet as resnet_weights
from jaxlab.models.weights import vit as vit_weights

VOCABULARY, LENGTH, SIDE, CLASSES = 50, 16, 32, 3
TEXT = DataSpec(
    {"tokens": jax.ShapeDtypeStruct((LENGTH,), np.int32)}, 10,
    {"vocabulary_size": VOCABULARY, "classes": ("a", "b", "c")},
)  # fmt: skip
IMAGES = DataSpec({"image": jax.ShapeDtypeStruct((SIDE, SIDE, 3), np.float32)}, 10, {"classes": ("a", "b", "c")})
TOKENS_BT = np.random.default_rng(0).integers(0, VOCABULARY, (2, LENGTH)).astype(np.int32)
IMAGES_BHWC = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
TRANSFORMER = {"width": 12, "depth": 2, "heads": 2}


class Case(NamedTuple):
    """A model, its input, and the pair of functions."""

    model: nn.Module
    inputs: np.ndarray
    load: Callable[..., Initialiser]
    save: Callable[..., None]


def _vit_by_transformers(path: str, variables: Any) -> None:
    vit_weights.save(path, variables, vit_weights.TRANSFORMERS)


def _resnet_by_transformers(path: str, variables: Any) -> None:
    resnet_weights.save(path, variables, resnet_weights.TRANSFORMERS)


def _resnet(block: str, blocks: tuple[int, ...]) -> nn.Module:
    return resnet.make(IMAGES, None, block=block, blocks=blocks, channels=(4, 6, 8)[: len(blocks)], stem="imagenet")


BASIC, BOTTLENECK = _resnet("basic", (1, 2, 2)), _resnet("bottleneck", (2, 1))
CASES = {
    **{
        f"{name}{' scanned' * scan}": case
        for scan in (False, True)
        for name, case in {
            "gpt2": Case(
                decoder.gpt2(TEXT, max_length=LENGTH, scan=scan, **TRANSFORMER), TOKENS_BT, gpt2.load, gpt2.save
            ),
            "bert": Case(
                encoder.masked(TEXT, max_length=LENGTH, scan=scan, **TRANSFORMER), TOKENS_BT, bert.load, bert.save
            ),
            "bert classifier": Case(
                encoder.make(TEXT, max_length=LENGTH, pooling="first", scan=scan, **TRANSFORMER),
                TOKENS_BT, bert.load, bert.save,
            ),
            "vit by timm": Case(
                vit.make(IMAGES, patch_size=8, scan=scan, **TRANSFORMER),
                IMAGES_BHWC, vit_weights.timm, vit_weights.save,
            ),
            "vit by transformers": Case(
                vit.make(IMAGES, patch_size=8, scan=scan, **TRANSFORMER),
                IMAGES_BHWC, vit_weights.transformers, _vit_by_transformers,
            ),
        }.items()
    },
    "resnet by timm": Case(BASIC, IMAGES_BHWC, resnet_weights.timm, resnet_weights.save),
    "bottleneck by timm": Case(BOTTLENECK, IMAGES_BHWC, resnet_weights.timm, resnet_weights.save),
    "resnet by transformers": Case(BASIC, IMAGES_BHWC, resnet_weights.transformers, _resnet_by_transformers),
    "bottleneck by transformers": Case(BOTTLENECK, IMAGES_BHWC, resnet_weights.transformers, _resnet_by_transformers),
}  # fmt: skip


def shapes_of(model: nn.Module, inputs: np.ndarray) -> Any:
    """Return the shapes of all variables."""
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), inputs)


def variables_of(model: nn.Module, inputs: np.ndarray, seed: int = 0) -> Any:
    """Return random variables, all leaves different, variances positive."""
    generator = np.random.default_rng(seed)
    shapes = shapes_of(model, inputs)
    drawn = [
        generator.uniform(0.5, 1.5, x.shape).astype(np.float32)
        if name.endswith(("scale", "var"))
        else generator.normal(0, 0.2, x.shape).astype(np.float32)
        for name, x in named_leaves(shapes).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), drawn)
