"""ResNet's weights in the naming of torchvision and timm, or of Hugging Face's transformers.

For `jaxlab.models.resnet` with its defaults of padding, shortcut and stem. Our blocks are numbered through, theirs by
stage: a stage begins where a block's shortcut has a convolution.
Usage: ``config.init = spec("jaxlab.models.weights.resnet:timm", path="resnet50", keep=("params/Dense_0/.*",))``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from jaxlab.core.types import Initialiser, PyTree
from jaxlab.models.weights.rules import Family, Rule
from jaxlab.models.weights.torch_layers import batch_norm, convolution, head
from jaxlab.models.weights.transfer import Transfer


class Naming(NamedTuple):
    """How a library calls a convolution and its normalisation: the stem's, a block's, and its shortcut's."""

    stem: tuple[str, str]
    block: str
    inner: Callable[[int], tuple[str, str]]
    shortcut: tuple[str, str]
    head: str
    first_stage: int


TIMM_NAMING = Naming(
    stem=("conv1", "bn1"),
    block="layer{stage}.{block}",
    inner=lambda place: (f"conv{place + 1}", f"bn{place + 1}"),
    shortcut=("downsample.0", "downsample.1"),
    head="fc",
    first_stage=1,
)
TRANSFORMERS_NAMING = Naming(
    stem=("resnet.embedder.embedder.convolution", "resnet.embedder.embedder.normalization"),
    block="resnet.encoder.stages.{stage}.layers.{block}",
    inner=lambda place: (f"layer.{place}.convolution", f"layer.{place}.normalization"),
    shortcut=("shortcut.convolution", "shortcut.normalization"),
    head="classifier.1",
    first_stage=0,
)


def _rules(naming: Naming, ours: Collection[str]) -> Iterator[Rule]:
    """Yield the rules for a model with the names `ours`."""
    yield from convolution(naming.stem[0], "params/Conv_0")
    yield from batch_norm(naming.stem[1], "BatchNorm_0")
    depth = 3 if "params/Block_0/Conv_3/kernel" in ours else 2  # beside the shortcut's, which a bottleneck always has
    number, stage, block = 0, naming.first_stage, 0
    while f"params/Block_{number}/Conv_0/kernel" in ours:
        if number and f"params/Block_{number}/Conv_{depth}/kernel" in ours:
            stage, block = stage + 1, 0
        there = naming.block.format(stage=stage, block=block)
        for place in range(depth + 1):
            weight, norm = naming.shortcut if place == depth else naming.inner(place)
            yield from convolution(f"{there}.{weight}", f"params/Block_{number}/Conv_{place}")
            yield from batch_norm(f"{there}.{norm}", f"Block_{number}/BatchNorm_{place}")
        number, block = number + 1, block + 1
    yield from head(naming.head, "params/Dense_0")


COUNTERS = (r".*\.num_batches_tracked",)
TIMM = Family("ResNet by torchvision and timm", (), COUNTERS, lambda ours: tuple(_rules(TIMM_NAMING, ours)))
TRANSFORMERS = Family(
    name="ResNet by transformers",
    renames=((r"^(?=(embedder|encoder)\.)", "resnet."),),  # without a head
    ignored=COUNTERS,
    rules=lambda ours: tuple(_rules(TRANSFORMERS_NAMING, ours)),
)


def timm(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from torchvision's or timm's weights in `path`; see `Transfer.load` for the options."""
    return Transfer(TIMM).load(path, keep, drop, resize)


def transformers(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from transformers' weights in `path`; see `Transfer.load` for the options."""
    return Transfer(TRANSFORMERS).load(path, keep, drop, resize)


def save(path: str, variables: PyTree, family: Family = TIMM) -> None:
    """Write ``params`` and ``batch_stats`` into the folder `path` under torchvision's names, or by `TRANSFORMERS`."""
    Transfer(family).save(path, variables)
