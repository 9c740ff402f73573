"""The weights of BERT and its likes, such as MiniLM, in the naming of Hugging Face's transformers.

For `jaxlab.models.encoder:masked`, and for `jaxlab.models.encoder:make`, whose own head begins at random by
``keep=("params/head/.*",)``; what a model lacks, such as the head of the masked language model, is named by ``drop``.
Usage: ``config.init = spec("jaxlab.models.weights.bert:load", path="bert", drop=("cls[.]seq.*",))``.
"""

from __future__ import annotations

from jaxlab.core.types import Initialiser, PyTree
from jaxlab.models.weights.resizing import positions, rows
from jaxlab.models.weights.rules import SAME, Family, Rule
from jaxlab.models.weights.torch_layers import head, linear, norm
from jaxlab.models.weights.transfer import Transfer

TOKENS = "params/encoder/embed/token/embedding"
LAYER, THERE = "params/encoder/stack/layers_{i}", "bert.encoder.layer.{i}"
RULES = (
    Rule("bert.embeddings.word_embeddings.weight", (TOKENS,), SAME, rows),
    Rule("bert.embeddings.position_embeddings.weight", ("params/encoder/embed/position/embedding",), SAME, positions),
    Rule("bert.embeddings.token_type_embeddings.weight", ("params/encoder/type/embedding",), SAME, rows),
    *norm("bert.embeddings.LayerNorm", "params/encoder/norm"),
    *linear(f"{THERE}.attention.self.query", f"{LAYER}/attention/query"),
    *linear(f"{THERE}.attention.self.key", f"{LAYER}/attention/key"),
    *linear(f"{THERE}.attention.self.value", f"{LAYER}/attention/value"),
    *linear(f"{THERE}.attention.output.dense", f"{LAYER}/attention/output"),
    *norm(f"{THERE}.attention.output.LayerNorm", f"{LAYER}/attention_norm"),
    *linear(f"{THERE}.intermediate.dense", f"{LAYER}/feed_forward/up"),
    *linear(f"{THERE}.output.dense", f"{LAYER}/feed_forward/down"),
    *norm(f"{THERE}.output.LayerNorm", f"{LAYER}/feed_forward_norm"),
    *linear("bert.pooler.dense", "params/pooler"),
    *head("classifier", "params/head"),
    *linear("cls.predictions.transform.dense", "params/transform"),
    *norm("cls.predictions.transform.LayerNorm", "params/transform_norm"),
    Rule("cls.predictions.bias", ("params/bias",), SAME, rows),
    Rule("cls.predictions.decoder.weight", (TOKENS,), SAME, rows),  # tied
    Rule("cls.predictions.decoder.bias", ("params/bias",), SAME, rows),  # tied
)
FAMILY = Family(
    name="BERT by transformers",
    renames=(
        (r"^(?=(embeddings|encoder|pooler)\.)", "bert."),  # without a head
        (r"\.gamma$", ".weight"),  # from TensorFlow, as the next
        (r"\.beta$", ".bias"),
    ),
    ignored=(r"bert\.embeddings\.position_ids",),  # 0, 1, 2, …
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
