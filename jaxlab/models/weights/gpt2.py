"""GPT-2's weights in the naming of Hugging Face's transformers, for `jaxlab.models.decoder:gpt2`.

Usage: ``config.init = spec("jaxlab.models.weights.gpt2:load", path="gpt2")``. The published vocabulary has 50,257
tokens: ``config.model.vocabulary_size=50257``.
"""

from __future__ import annotations

from jaxlab.core.types import Initialiser, PyTree
from jaxlab.models.weights.resizing import positions, rows
from jaxlab.models.weights.rules import SAME, THIRDS, Family, Rule
from jaxlab.models.weights.torch_layers import linear_as_here, norm
from jaxlab.models.weights.transfer import Transfer

TOKENS = "params/embed/token/embedding"
LAYER, THERE = "params/stack/layers_{i}", "transformer.h.{i}"
PARTS = ("query", "key", "value")
RULES = (
    Rule("transformer.wte.weight", (TOKENS,), SAME, rows),
    Rule("lm_head.weight", (TOKENS,), SAME, rows),  # the same once more
    Rule("transformer.wpe.weight", ("params/embed/position/embedding",), SAME, positions),
    *norm(f"{THERE}.ln_1", f"{LAYER}/attention_norm"),
    Rule(f"{THERE}.attn.c_attn.weight", tuple(f"{LAYER}/attention/{part}/kernel" for part in PARTS), THIRDS),
    Rule(f"{THERE}.attn.c_attn.bias", tuple(f"{LAYER}/attention/{part}/bias" for part in PARTS), THIRDS),
    *linear_as_here(f"{THERE}.attn.c_proj", f"{LAYER}/attention/output"),
    *norm(f"{THERE}.ln_2", f"{LAYER}/feed_forward_norm"),
    *linear_as_here(f"{THERE}.mlp.c_fc", f"{LAYER}/feed_forward/up"),
    *linear_as_here(f"{THERE}.mlp.c_proj", f"{LAYER}/feed_forward/down"),
    *norm("transformer.ln_f", "params/stack/norm"),
)
FAMILY = Family(
    name="GPT-2 by transformers",
    renames=((r"^(?=(wte|wpe|h|ln_f)\.)", "transformer."),),  # without a head
    ignored=(r".*\.attn\.(masked_)?bias",),  # the causal mask
    rules=lambda ours: RULES,
)


def load(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from the weights in `path`; see `Transfer.load` for the options."""
    return Transfer(FAMILY).load(path, keep, drop, resize)


def save(path: str, variables: PyTree) -> None:
    """Write ``{"params": …}`` into the folder `path`, for transformers to read."""
    Transfer(FAMILY).save(path, variables)
