"""Stand-ins for models with which the tests of the contracts try objectives, and rows for them.

Each is called as its objective calls a model and returns results that are, row by row, a function of that row alone.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlab.core.types import Outputs
from jaxlab.data.arrays import ArraySource

CLASSES, SIZE, VOCABULARY = 3, 12, 20
FACTS = {
    "classes": ("a", "b", "c"),
    "vocabulary_size": VOCABULARY,
    "pad_id": 0,
    "specials": {"pad": 0, "bos": 1, "eos": 2},
}
_random = np.random.default_rng(1)
_label = np.arange(SIZE) % CLASSES
_mask = (np.arange(10) < np.arange(SIZE)[:, None]).astype(np.float32)  # lengths 0 to 10


def _numbers(*shape: int) -> np.ndarray:
    return _random.normal(size=(SIZE, *shape)).astype(np.float32)


def _ids(*shape: int) -> np.ndarray:
    return _random.integers(5, VOCABULARY, (SIZE, *shape)).astype(np.int32)


LABELS = ArraySource({"image": _numbers(4), "labels": _random.integers(0, 2, (SIZE, 2)).astype(np.int32)}, FACTS)
HIDDEN = ArraySource(
    {"tokens": _ids(10), "token_mask": _mask, "targets": _ids(10), "target_mask": _mask * (_ids(10) % 2)}, FACTS
)
PAIRS = ArraySource(
    {"source": _ids(4), "source_mask": np.ones((SIZE, 4), np.float32), "target": _ids(10), "target_mask": _mask}, FACTS
)
_SERIES = {"inputs": ("a", "b"), "targets": ("a", "b")}
WINDOWS = ArraySource({"past": _numbers(5, 2), "target": _numbers(3, 2)}, _SERIES)
CHOICES = ArraySource(
    {"user": _ids() % 4, "item": _ids() % 8, "negatives": _ids(3) % 8}, {"categories:item": tuple("abcdefgh")}
)
VIEWS = ArraySource(
    {"view": _numbers(4), "other_view": _numbers(4), "image": _numbers(4), "tokens": _ids(2),
     "token_mask": np.ones((SIZE, 2), np.float32)}, {},
)  # fmt: skip
TAUGHT = ArraySource({"image": _numbers(4), "label": _label, "teacher_logits": _numbers(CLASSES)}, FACTS)


def waves(x: Any, *shape: int) -> Any:
    """Return numbers [B, *shape], a fixed linear map of each row."""
    x_BD = jnp.reshape(x, (len(x), -1))
    width = int(np.prod(shape, dtype=int))
    map_DF = jnp.cos(jnp.arange(x_BD.shape[1] * width)).reshape(-1, width)
    return (x_BD.astype(jnp.float32) @ map_DF).reshape(len(x_BD), *shape)


def linear(*inputs: Any) -> Outputs:
    """Stand in for a classifier."""
    return {"logits": waves(inputs[0], CLASSES), "embedding": waves(inputs[0], 2)}


def labeller(*inputs: Any) -> Outputs:
    """Stand in for a classifier of two labels."""
    return {"logits": waves(inputs[0], 2)}


def bigrams(*inputs: Any) -> Outputs:
    """Stand in for a language model: the last token alone says what comes next."""
    return {"logits": jnp.sin(inputs[0][..., None] * jnp.arange(1.0, VOCABULARY + 1))}


def translator(*inputs: Any) -> Outputs:
    """Stand in for a translator that reads what it has written alone."""
    return bigrams(inputs[2])


def forecaster(*inputs: Any) -> Outputs:
    """Stand in for forecasts of every kind."""
    past = inputs[0]
    return {
        "forecast": waves(past, 3, 2), "quantiles": waves(past, 3, 2, 3), "mean": waves(past, 3, 2),
        "log_variance": jnp.tanh(waves(past, 3, 2)),
    }  # fmt: skip


def recommender(user: Any, item: Any, negatives: Any = None) -> Outputs:
    """Stand in for a matrix factorisation and for two towers."""
    towers = {"query": jnp.cos(user[:, None] + jnp.arange(2)), "candidate": jnp.sin(item[:, None] + jnp.arange(2))}
    if negatives is None:
        return towers
    return {"score": jnp.cos(user * item + 1.0), "negative_scores": jnp.cos(user[:, None] * negatives)}


def autoencoder(*inputs: Any) -> Outputs:
    """Stand in for an autoencoder, a variational one too."""
    x = inputs[0]
    return {"reconstruction": jnp.tanh(x) / 2, "mean": waves(x, 2), "log_variance": jnp.tanh(waves(x, 2))}


def embedder(*inputs: Any) -> Outputs:
    """Stand in for an encoder of one view, and of a picture and its text."""
    return {
        "embedding": waves(inputs[0], 3), "image_embedding": waves(inputs[0], 3),
        "text_embedding": waves(inputs[-1] if len(inputs) == 1 else inputs[1], 3),
    }  # fmt: skip
