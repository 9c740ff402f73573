"""The vision transformer's weights in the naming of timm, or of Hugging Face's transformers, for `jaxlab.models.vit`.

Usage: ``config.init = spec("jaxlab.models.weights.vit:timm", path="vit_small", keep=("params/head/.*",))``; another
image size needs ``resize=("params/positions",)``.
"""

from __future__ import annotations

from jaxlab.core.types import Initialiser, PyTree
from jaxlab.models.weights import convert
from jaxlab.models.weights.linear import convolution, linear, norm
from jaxlab.models.weights.rules import CLASS_TOKEN, THIRDS, THIRDS_TRANSPOSED, UNBATCHED, Rule, interpolated_grid

LAYER = "params/stack/layers_{i}"
PARTS = ("query", "key", "value")
TIMM = (
    Rule("cls_token", ("params/class_token",), CLASS_TOKEN),
    Rule("pos_embed", ("params/positions",), UNBATCHED, interpolated_grid),
    *convolution("patch_embed.proj", "params/patches"),
    *norm("blocks.{i}.norm1", f"{LAYER}/attention_norm"),
    Rule("blocks.{i}.attn.qkv.weight", tuple(f"{LAYER}/attention/{p}/kernel" for p in PARTS), THIRDS_TRANSPOSED),
    Rule("blocks.{i}.attn.qkv.bias", tuple(f"{LAYER}/attention/{part}/bias" for part in PARTS), THIRDS),
    *linear("blocks.{i}.attn.proj", f"{LAYER}/attention/output"),
    *norm("blocks.{i}.norm2", f"{LAYER}/feed_forward_norm"),
    *linear("blocks.{i}.mlp.fc1", f"{LAYER}/feed_forward/up"),
    *linear("blocks.{i}.mlp.fc2", f"{LAYER}/feed_forward/down"),
    *norm("norm", "params/stack/norm"),
    *linear("head", "params/head"),
)
TRANSFORMERS = (
    Rule("embeddings.cls_token", ("params/class_token",), CLASS_TOKEN),
    Rule("embeddings.position_embeddings", ("params/positions",), UNBATCHED, interpolated_grid),
    *convolution("embeddings.patch_embeddings.projection", "params/patches"),
    *norm("encoder.layer.{i}.layernorm_before", f"{LAYER}/attention_norm"),
    *(r for p in PARTS for r in linear(f"encoder.layer.{{i}}.attention.attention.{p}", f"{LAYER}/attention/{p}")),
    *linear("encoder.layer.{i}.attention.output.dense", f"{LAYER}/attention/output"),
    *norm("encoder.layer.{i}.layernorm_after", f"{LAYER}/feed_forward_norm"),
    *linear("encoder.layer.{i}.intermediate.dense", f"{LAYER}/feed_forward/up"),
    *linear("encoder.layer.{i}.output.dense", f"{LAYER}/feed_forward/down"),
    *norm("layernorm", "params/stack/norm"),
    *linear("classifier", "params/head"),
)
BY_TIMM = convert.Family("ViT by timm", (), lambda names: TIMM)
BY_TRANSFORMERS = convert.Family("ViT by transformers", ((r"^vit\.", ""),), lambda names: TRANSFORMERS)


def timm(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from timm's weights in `path`; the options are those of `convert.load`."""
    return convert.load(path, BY_TIMM, keep, drop, resize)


def transformers(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from transformers' weights in `path`; the options are those of `convert.load`."""
    return convert.load(path, BY_TRANSFORMERS, keep, drop, resize)


def save(path: str, variables: PyTree) -> None:
    """Write ``{"params": …}`` into the folder `path` under timm's names."""
    convert.save(path, variables, BY_TIMM)
