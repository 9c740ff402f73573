"""The weights of BERT and its likes, such as MiniLM, in the naming of Hugging Face's transformers.

For `jaxlab.models.encoder:masked`, and for `jaxlab.models.encoder:make`, whose own head begins at random by
``keep=("params/head/.*",)``; what a model lacks, such as the masked language model's head, is named by ``drop``.
Usage: ``config.init = spec("jaxlab.models.weights.bert:load", path="bert", drop=("cls[.].*",))``.
"""

from __future__ import annotations

from jaxlab.core.types import Initialiser, PyTree
from jaxlab.models.weights import convert
from jaxlab.models.weights.linear import linear, norm
from jaxlab.models.weights.rules import Rule, interpolated

ENCODER, LAYER = "params/encoder", "params/encoder/stack/layers_{i}"
RULES = (
    Rule("embeddings.word_embeddings.weight", (f"{ENCODER}/embed/token/embedding",)),
    Rule("embeddings.position_embeddings.weight", (f"{ENCODER}/embed/position/embedding",), resize=interpolated),
    Rule("embeddings.token_type_embeddings.weight", (f"{ENCODER}/type/embedding",)),
    *norm("embeddings.LayerNorm", f"{ENCODER}/norm"),
    *linear("encoder.layer.{i}.attention.self.query", f"{LAYER}/attention/query"),
    *linear("encoder.layer.{i}.attention.self.key", f"{LAYER}/attention/key"),
    *linear("encoder.layer.{i}.attention.self.value", f"{LAYER}/attention/value"),
    *linear("encoder.layer.{i}.attention.output.dense", f"{LAYER}/attention/output"),
    *norm("encoder.layer.{i}.attention.output.LayerNorm", f"{LAYER}/attention_norm"),
    *linear("encoder.layer.{i}.intermediate.dense", f"{LAYER}/feed_forward/up"),
    *linear("encoder.layer.{i}.output.dense", f"{LAYER}/feed_forward/down"),
    *norm("encoder.layer.{i}.output.LayerNorm", f"{LAYER}/feed_forward_norm"),
    *linear("pooler.dense", "params/pooler"),
    *linear("classifier", "params/head"),
    *linear("cls.predictions.transform.dense", "params/transform"),
    *norm("cls.predictions.transform.LayerNorm", "params/transform_norm"),
    Rule("cls.predictions.bias", ("params/bias",)),
    Rule("cls.predictions.decoder.weight", ()),  # the token embedding once more
    Rule("cls.predictions.decoder.bias", ()),  # the bias once more
    Rule("embeddings.position_ids", ()),  # 0, 1, 2, …
)
RENAMES = ((r"^bert\.", ""), (r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))  # the last two: weights from TensorFlow
FAMILY = convert.Family("BERT by transformers", RENAMES, lambda names: RULES)


def load(
    path: str, keep: tuple[str, ...] = (), drop: tuple[str, ...] = (), resize: tuple[str, ...] = ()
) -> Initialiser:
    """Return the initialiser from the weights in `path`; the options are those of `convert.load`."""
    return convert.load(path, FAMILY, keep, drop, resize)


def save(path: str, variables: PyTree) -> None:
    """Write ``{"params": …}`` into the folder `path`, for transformers to read."""
    convert.save(path, variables, FAMILY)
