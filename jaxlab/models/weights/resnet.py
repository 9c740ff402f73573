"""ResNet's weights in the naming of torchvision and timm, or of Hugging Face's transformers, for `jaxlab.models.resnet`.

The blocks of a stage are counted on the side that is read: ours are numbered through, theirs by stage.
Usage: ``config.init = spec("jaxlab.models.weights.resnet:timm", path="resnet50", keep=("params/Dense_0/.*",))``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from jaxlab.core.types import Initialiser, PyTree
from jaxlab.models.weights import convert
from jaxlab.models.weights.linear import batch_norm, convolution, linear
from jaxlab.models.weights.rules import Rule

TIMM_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.conv(\d+)\.weight")
TRANSFORMERS_BLOCK = re.compile(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.weight")


def _blocks(names: Iterable[str], pattern: re.Pattern[str]) -> tuple[list[tuple[int, int]], int]:
    """Return (stage, block) of all blocks, in order, and how many convolutions each has beside its shortcut."""
    found = [tuple(map(int, match.groups())) for match in map(pattern.fullmatch, names) if match]
    return sorted({(stage, block) for stage, block, _ in found}), len({place for *_, place in found})


def _timm_rules(names: Iterable[str]) -> Iterator[Rule]:
    blocks, depth = _blocks(names, TIMM_BLOCK)
    yield from itertools.chain(convolution("conv1", "params/Conv_0"), batch_norm("bn1", "BatchNorm_0"))
    for number, (stage, block) in enumerate(blocks):
        there, here = f"layer{stage}.{block}", f"Block_{number}"
        for place in range(depth):
            yield from convolution(f"{there}.conv{place + 1}", f"params/{here}/Conv_{place}")
            yield from batch_norm(f"{there}.bn{place + 1}", f"{here}/BatchNorm_{place}")
        yield from convolution(f"{there}.downsample.0", f"params/{here}/Conv_{depth}")
        yield from batch_norm(f"{there}.downsample.1", f"{here}/BatchNorm_{depth}")
    yield from linear("fc", "params/Dense_0")


def _transformers_rules(names: Iterable[str]) -> Iterator[Rule]:
    blocks, depth = _blocks(names, TRANSFORMERS_BLOCK)
    yield from convolution("embedder.embedder.convolution", "params/Conv_0")
    yield from batch_norm("embedder.embedder.normalization", "BatchNorm_0")
    for number, (stage, block) in enumerate(blocks):
        there, here = f"encoder.stages.{stage}.layers.{block}", f"Block_{number}"
        for place in range(depth):
            yield from convolution(f"{there}.layer.{place}.convolution", f"params/{here}/Conv_{place}")
            yield from batch_norm(f"{there}.layer.{place}.normalization", f"{here}/BatchNorm_{place}")
        yield from convolution(f"{there}.shortcut.convolution", f"params/{here}/Conv_{depth}")
        yield from batch_norm(f"{there}.shortcut.normalization", f"{here}/BatchNorm_{depth}")
    yield from linear("classifier.1", "params/Dense_0")


BY_TIMM = convert.Family("ResNet by torchvision and timm", (), lambda names: tuple(_timm_rules(names)))
BY_TRANSFORMERS = convert.Family(
    "ResNet by transformers", ((r"^resnet\.", ""),), lambda names: tuple(_transformers_rules(names))
)


def timm(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from torchvision's or timm's weights in `path`; see `convert.load` for the options."""
    return convert.load(path, BY_TIMM, keep, drop, resize)


def transformers(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from transformers' weights in `path`; see `convert.load` for the options."""
    return convert.load(path, BY_TRANSFORMERS, keep, drop, resize)


def save(path: str, variables: PyTree, blocks: tuple[int, ...]) -> None:
    """Write ``params`` and ``batch_stats`` into the folder `path` under torchvision's names.

    Args:
      path: made if need be.
      variables: of a ResNet with one shortcut convolution a stage at most.
      blocks: a stage, as the model's.
    """
    depth = 2 + any(re.search(r"Conv_3", name) for name in variables["params"].get("Block_0", {}))
    stages = [(stage, block) for stage, count in enumerate(blocks, 1) for block in range(count)]
    names = [f"layer{s}.{b}.conv{place + 1}.weight" for s, b in stages for place in range(depth)]
    convert.save(path, variables, BY_TIMM._replace(rules=lambda _: tuple(_timm_rules(names))))
