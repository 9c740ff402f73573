"""Additive metrics of tokens, exact for any batch size and number of devices: means over tokens, not over rows.

Each reads the outputs of `jaxlab.objectives.language` or `jaxlab.objectives.seq2seq`.
Shape letters: B batch, T tokens, V vocabulary.
Usage: ``config.metrics.bits = spec("jaxlab.metrics.language:bits_per_byte")``.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Array, Batch, DataSpec, Metric, Outputs, PyTree
from jaxlab.metrics.sums import mean, quotient, weighted_sum


def token_accuracy() -> Metric:
    """Return the share of tokens to predict whose ``prediction`` is their ``target``."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        right_BT = (outputs["prediction"] == outputs["target"]).astype(jnp.float32)
        return weighted_sum(right_BT, _weight(outputs, batch))

    return Metric(update, mean)


def cross_entropy() -> Metric:
    """Return the mean of -log p(token) in nats, without smoothing or z-loss."""
    return Metric(_cross_entropy, mean)


def perplexity() -> Metric:
    """Return e to the mean of -log p(token)."""

    def compute(statistics: PyTree) -> float:
        value = mean(statistics)
        return math.exp(value) if value < 700 else value * math.inf  # beyond what a double holds; nan stays nan

    return Metric(_cross_entropy, compute)


def bits_per_token() -> Metric:
    """Return the mean of -log2 p(token): the cross-entropy in bits."""
    return Metric(_cross_entropy, lambda statistics: mean(statistics) / math.log(2))


def bits_per_byte(data: DataSpec) -> Metric:
    """Return the bits that the predicted tokens cost, over the bytes of UTF-8 of the text that they stand for.

    Unlike the cross-entropy a token, it can be compared between tokenizers. A special token, such as the end's, stands
    for no byte but its bits count; so does ``unk``, hence a tokenizer without it is better compared. A text's first
    token, where nothing predicts it, counts in neither.

    Args:
      data: tokenised, with the facts ``pieces``, the bytes of each token id, and ``specials``, ids by name.

    Raises:
      ConfigError: it has no such fact.
    """
    pieces = data.meta.get("pieces")
    if not pieces:
        raise ConfigError(
            "config.metrics: bits_per_byte needs the data's fact 'pieces', the bytes that each token id stands for; "
            f"tokenise it, as by jaxlab.data.tokenize:byte (it has {', '.join(data.meta) or 'no facts'})"
        )
    special = set(data.meta.get("specials", {}).values())
    bytes_V = np.array([0 if i in special else len(piece) for i, piece in enumerate(pieces)], np.float32)

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        weight_BT = _weight(outputs, batch)
        bytes_BT = jnp.asarray(bytes_V)[jnp.where(weight_BT > 0, outputs["target"], 0)]
        nats, size = (weighted_sum(value, weight_BT)["sum"] for value in (outputs["token_loss"], bytes_BT))
        return {"nats": nats, "bytes": size}

    return Metric(update, lambda statistics: quotient(statistics["nats"], statistics["bytes"]) / math.log(2))


def _cross_entropy(outputs: Outputs, batch: Batch) -> PyTree:
    return weighted_sum(outputs["token_loss"], _weight(outputs, batch))


def _weight(outputs: Outputs, batch: Batch) -> Array:
    """Return weights [B, T], 0 in padded rows whatever they hold."""
    mask_B1 = batch["mask"][:, None]
    return jnp.where(mask_B1 > 0, outputs["token_weight"] * mask_B1, 0.0)
