"""GPT-2's weights in the naming of Hugging Face's transformers, for `jaxlab.models.decoder:gpt2`.

Usage: ``config.init = spec("jaxlab.models.weights.gpt2:load", path="gpt2")``. The published vocabulary has 50,257
tokens: ``config.model.vocabulary_size=50257``.
"""

from __future__ import annotations

from jaxlab.core.types import Initialiser, PyTree
from jaxlab.models.weights import convert
from jaxlab.models.weights.linear import linear_as_here, norm
from jaxlab.models.weights.rules import THIRDS, Rule, interpolated

LAYER = "params/stack/layers_{i}"
PARTS = ("query", "key", "value")
RULES = (
    Rule("wte.weight", ("params/embed/token/embedding",)),
    Rule("wpe.weight", ("params/embed/position/embedding",), resize=interpolated),
    *norm("h.{i}.ln_1", f"{LAYER}/attention_norm"),
    Rule("h.{i}.attn.c_attn.weight", tuple(f"{LAYER}/attention/{part}/kernel" for part in PARTS), THIRDS),
    Rule("h.{i}.attn.c_attn.bias", tuple(f"{LAYER}/attention/{part}/bias" for part in PARTS), THIRDS),
    *linear_as_here("h.{i}.attn.c_proj", f"{LAYER}/attention/output"),
    *norm("h.{i}.ln_2", f"{LAYER}/feed_forward_norm"),
    *linear_as_here("h.{i}.mlp.c_fc", f"{LAYER}/feed_forward/up"),
    *linear_as_here("h.{i}.mlp.c_proj", f"{LAYER}/feed_forward/down"),
    *norm("ln_f", "params/stack/norm"),
    Rule("lm_head.weight", ()),  # the token embedding once more
    Rule("h.{i}.attn.bias", ()),  # the causal mask
    Rule("h.{i}.attn.masked_bias", ()),
)
FAMILY = convert.Family("GPT-2 by transformers", ((r"^transformer\.", ""),), lambda names: RULES)


def load(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from the weights in `path`; the options are those of `convert.load`."""
    return convert.load(path, FAMILY, keep, drop, resize)


def save(path: str, variables: PyTree) -> None:
    """Write ``{"params": …}`` into the folder `path`, for transformers to read."""
    convert.save(path, variables, FAMILY)
