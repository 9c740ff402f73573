"""The vision transformer's weights in the naming of timm, or of Hugging Face's transformers, for `jaxlab.models.vit`.

Its normalisations add 1e-6 to the variance, as the paper's code and timm do; transformers' configs say 1e-12.
Usage: ``config.init = spec("jaxlab.models.weights.vit:timm", path="vit_small", keep=("params/head/.*",))``; another
image size needs ``resize=("params/positions",)``.
"""

from __future__ import annotations

from jaxlab.core.types import Initialiser, PyTree
from jaxlab.models.weights.resizing import grid
from jaxlab.models.weights.rules import CLASS_TOKEN, THIRDS, THIRDS_TRANSPOSED, UNBATCHED, Family, Rule
from jaxlab.models.weights.torch_layers import convolution, head, linear, norm
from jaxlab.models.weights.transfer import Transfer

LAYER = "params/stack/layers_{i}"
PARTS = ("query", "key", "value")
TIMM_RULES = (
    Rule("cls_token", ("params/class_token",), CLASS_TOKEN),
    Rule("pos_embed", ("params/positions",), UNBATCHED, grid),
    *convolution("patch_embed.proj", "params/patches"),
    *norm("blocks.{i}.norm1", f"{LAYER}/attention_norm"),
    Rule("blocks.{i}.attn.qkv.weight", tuple(f"{LAYER}/attention/{p}/kernel" for p in PARTS), THIRDS_TRANSPOSED),
    Rule("blocks.{i}.attn.qkv.bias", tuple(f"{LAYER}/attention/{part}/bias" for part in PARTS), THIRDS),
    *linear("blocks.{i}.attn.proj", f"{LAYER}/attention/output"),
    *norm("blocks.{i}.norm2", f"{LAYER}/feed_forward_norm"),
    *linear("blocks.{i}.mlp.fc1", f"{LAYER}/feed_forward/up"),
    *linear("blocks.{i}.mlp.fc2", f"{LAYER}/feed_forward/down"),
    *norm("norm", "params/stack/norm"),
    *head("head", "params/head"),
)
THERE = "vit.encoder.layer.{i}"
TRANSFORMERS_RULES = (
    Rule("vit.embeddings.cls_token", ("params/class_token",), CLASS_TOKEN),
    Rule("vit.embeddings.position_embeddings", ("params/positions",), UNBATCHED, grid),
    *convolution("vit.embeddings.patch_embeddings.projection", "params/patches"),
    *norm(f"{THERE}.layernorm_before", f"{LAYER}/attention_norm"),
    *(rule for p in PARTS for rule in linear(f"{THERE}.attention.attention.{p}", f"{LAYER}/attention/{p}")),
    *linear(f"{THERE}.attention.output.dense", f"{LAYER}/attention/output"),
    *norm(f"{THERE}.layernorm_after", f"{LAYER}/feed_forward_norm"),
    *linear(f"{THERE}.intermediate.dense", f"{LAYER}/feed_forward/up"),
    *linear(f"{THERE}.output.dense", f"{LAYER}/feed_forward/down"),
    *norm("vit.layernorm", "params/stack/norm"),
    *head("classifier", "params/head"),
)
TIMM = Family("ViT by timm", (), (), lambda ours: TIMM_RULES)
TRANSFORMERS = Family(
    name="ViT by transformers",
    renames=((r"^(?=(embeddings|encoder|layernorm|pooler)\.)", "vit."),),  # without a head
    ignored=(),
    rules=lambda ours: TRANSFORMERS_RULES,
)


def timm(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from timm's weights in `path`; see `Transfer.load` for the options."""
    return Transfer(TIMM).load(path, keep, drop, resize)


def transformers(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from transformers' weights in `path`; see `Transfer.load` for the options."""
    return Transfer(TRANSFORMERS).load(path, keep, drop, resize)


def save(path: str, variables: PyTree, family: Family = TIMM) -> None:
    """Write ``{"params": …}`` into the folder `path` under timm's names, or those of `TRANSFORMERS`."""
    Transfer(family).save(path, variables)
