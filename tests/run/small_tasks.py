"""Small tasks of every kind that has baselines, for the tests of ``baseline``.

Usage: ``config = classes()``; ``config.data.test.shuffled = True`` exchanges the labels of that split's rows.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from sklearn.datasets import load_breast_cancer, load_diabetes

from jaxlab.core.config import spec
from jaxlab.data.arrays import ArraySource
from jaxlab.data.column_source import ColumnSource
from jaxlab.run.base import base_config

SPLITS = ("train", "valid", "test")
WORDS = {0: ("dull", "torn", "grey"), 1: ("bright", "soft", "warm")}


def rows_of(split: str, size: int) -> np.ndarray:
    """Return which of `size` rows are of a split: six tenths, two tenths, two tenths."""
    order = np.random.default_rng(0).permutation(size)
    return np.split(order, [int(0.6 * size), int(0.8 * size)])[SPLITS.index(split)]


def cancer(split: str = "train", shuffled: bool = False) -> ArraySource:
    """Return tumours: 30 numbers, benign or not."""
    x_ND, label_N = load_breast_cancer(return_X_y=True)
    rows = rows_of(split, len(x_ND))
    label_N = label_N[rows]
    if shuffled:
        label_N = np.random.default_rng(1).permutation(label_N)
    labels_NC = np.stack([label_N, 1 - label_N, x_ND[rows, 0] > 14], axis=1)
    fields = {"features": x_ND[rows], "label": label_N, "labels": labels_NC.astype(np.int32)}
    return ArraySource(fields, {"classes": ("malignant", "benign")})


def sugar(split: str = "train", shuffled: bool = False) -> ArraySource:
    """Return patients: 10 numbers, and how their diabetes went on."""
    x_ND, target_N = load_diabetes(return_X_y=True)
    rows = rows_of(split, len(x_ND))
    target_N = target_N[rows]
    if shuffled:
        target_N = np.random.default_rng(1).permutation(target_N)
    return ArraySource({"features": x_ND[rows], "target": target_N}, {})


def waves(split: str = "train", rows: int = 200) -> ArraySource:
    """Return a series that repeats itself every 7 rows, beside noise."""
    generator = np.random.default_rng(SPLITS.index(split))
    load_N = np.tile([1.0, 5.0, 2.0, 8.0, 3.0, 9.0, 4.0], rows // 7 + 1)[:rows]
    return ArraySource({"wind": generator.normal(size=rows), "load": load_N, "time": np.arange(rows)}, {})


def tastes(split: str = "train") -> ArraySource:
    """Return ratings of 30 items by 20 users: what an item is worth, and how kind a user is."""
    generator = np.random.default_rng(7)
    kindness_U, worth_I = generator.normal(size=20), generator.normal(size=30)
    user_N, item_N = (x.ravel() for x in np.meshgrid(np.arange(20), np.arange(30)))
    rating_N = 3 + kindness_U[user_N] + worth_I[item_N] + 0.1 * generator.normal(size=600)
    rows = rows_of(split, 600)
    return ArraySource({"user": user_N[rows], "item": item_N[rows], "rating": rating_N[rows]}, {})


def opinions(split: str = "train") -> ColumnSource:
    """Return texts that say their label, beside one that is the label, which no model may read."""
    generator = np.random.default_rng(SPLITS.index(split))
    label_N = generator.integers(0, 2, 150)
    texts = [" ".join(generator.choice((*WORDS[label], "shirt", "of", "cotton"), 6)) for label in label_N]
    answer = [f"answer{label}" for label in label_N]
    fields = {"text": np.array(texts, object), "answer": np.array(answer, object), "label": label_N}
    return ColumnSource(fields, {"classes": ("bad", "good")})


def chains(split: str = "train", tokens: int = 12, length: int = 10) -> ArraySource:
    """Return rows of tokens of which each mostly says the next."""
    generator = np.random.default_rng(SPLITS.index(split))
    steps_NT = generator.choice([1, 1, 1, 5], (120, length)).cumsum(axis=1)
    return ArraySource({"tokens": steps_NT % tokens}, {"vocabulary_size": tokens})


def pairs(split: str = "train") -> ArraySource:
    """Return rows of tokens beside themselves."""
    rows_NT = chains(split).__getitems__(np.arange(120))["tokens"]
    return ArraySource({"source": rows_NT, "target": rows_NT}, {"vocabulary_size": 12})


class Linear(nn.Module):
    """One dense layer over all inputs; its result has the `shape` of a row and the name `output`."""

    output: str = "logits"
    shape: tuple[int, ...] = (2,)

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        x_BD = jnp.concatenate([x.reshape(len(x), -1).astype(jnp.float32) for x in inputs], axis=1)
        return {self.output: nn.Dense(int(np.prod(self.shape)))(x_BD).reshape(-1, *self.shape)}


def config_of(source: str, output: str, shape: tuple[int, ...], **options: object) -> ConfigDict:
    """Return a config without objective and metrics."""
    config = base_config()
    for split in SPLITS:
        config.data[split] = spec(f"small_tasks:{source}", split=split, **options)
    config.model = ConfigDict({"factory": "small_tasks:Linear", "output": output, "shape": shape})
    config.optimizer = spec("optax:sgd", learning_rate=0.1)
    config.train.batch_size = 32
    return config


def classes() -> ConfigDict:
    """Return a classification of numbers."""
    config = config_of("cancer", "logits", (2,))
    config.objective = spec("jaxlab.objectives.classify:make", inputs=("features",), label_smoothing=0.1)
    for name in ("accuracy", "cross_entropy"):
        config.metrics[name] = spec(f"jaxlab.metrics.classify:{name}")
    config.metrics.roc_auc = spec("jaxlab.metrics.scores:roc_auc")
    return config


def labels() -> ConfigDict:
    """Return a classification by several labels."""
    config = config_of("cancer", "logits", (3,))
    config.objective = spec("jaxlab.objectives.classify:multi_label", inputs=("features",))
    return config


def numbers() -> ConfigDict:
    """Return a regression."""
    config = config_of("sugar", "forecast", ())
    config.objective = spec("jaxlab.objectives.regress:make", inputs=("features",))
    config.metrics.rmse = spec("jaxlab.metrics.regress:rmse")
    return config


def windows() -> ConfigDict:
    """Return a forecast of 5 rows from 21."""
    config = config_of("waves", "forecast", (5, 1))
    for split in SPLITS:
        config.data[split] = spec(
            "jaxlab.data.windows:make", source=config.data[split], length=21, horizon=5, inputs=("wind", "load"),
            targets=("load",),
        )  # fmt: skip
    config.objective = spec("jaxlab.objectives.regress:make")
    config.metrics.rmse = spec("jaxlab.metrics.regress:rmse")
    config.metrics.mase = spec("jaxlab.metrics.forecast:mase", season=1)
    return config


def ratings() -> ConfigDict:
    """Return ratings of items by users, with a penalty around the objective."""
    config = config_of("tastes", "prediction", ())
    error = spec("jaxlab.objectives.regress:make", inputs=("user", "item"), target="rating", output="prediction")
    config.objective = spec("jaxlab.objectives.regularise:l2", objective=error)
    config.metrics.rmse = spec("jaxlab.metrics.regress:rmse")
    return config


def likes(split: str = "train") -> ArraySource:
    """Return what 40 users chose of 12 items, the first ones most often; of valid and test one a user."""
    generator = np.random.default_rng(SPLITS.index(split))
    users = np.arange(40).repeat(4 if split == "train" else 1)
    share_V = 1 / np.arange(1, 13) ** 1.5
    item_N = generator.choice(12, len(users), p=share_V / share_V.sum())
    names = {"categories:user": tuple(map(str, range(40))), "categories:item": tuple("abcdefghijkl")}
    return ArraySource({"user": users.astype(np.int32), "item": item_N.astype(np.int32)}, names)


def recommended() -> ConfigDict:
    """Return a factorisation that ranks the whole catalogue, without what users have in training."""
    config = config_of("likes", "score", ())
    config.data.transforms = (spec("jaxlab.data.negatives:uniform", count=2), spec("jaxlab.data.seen:items"))
    config.model = spec("jaxlab.models.factorisation:make", factors=4)
    config.objective = spec("jaxlab.objectives.rank:bpr")
    config.generate = spec("jaxlab.models.catalogue:rank", user="user")
    config.metrics.hit_rate_3 = spec("jaxlab.metrics.ranked:hit_rate", k=3)
    config.metrics.mrr = spec("jaxlab.metrics.ranked:mrr")
    return config


def texts() -> ConfigDict:
    """Return a classification of texts, whose answer is dropped."""
    config = config_of("opinions", "logits", (2,))
    config.data.transforms = (
        spec("jaxlab.data.tokenize:byte", length=16),
        spec("jaxlab.data.fields:drop", names=("answer",)),
    )
    config.objective = spec("jaxlab.objectives.classify:make", inputs=("tokens", "token_mask"))
    config.metrics.accuracy = spec("jaxlab.metrics.classify:accuracy")
    config.metrics.cross_entropy = spec("jaxlab.metrics.classify:cross_entropy")
    return config


def tokens() -> ConfigDict:
    """Return a language model, whose rankings of tokens are measured too."""
    config = config_of("chains", "logits", (10, 12))
    config.objective = spec("jaxlab.objectives.language:causal")
    config.metrics.cross_entropy = spec("jaxlab.metrics.language:cross_entropy")
    config.metrics.token_accuracy = spec("jaxlab.metrics.language:token_accuracy")
    config.metrics.mrr = spec("jaxlab.metrics.ranking:mrr")
    return config


def translation() -> ConfigDict:
    """Return a sequence to sequence, of tokens to themselves."""
    config = config_of("pairs", "logits", (9, 12))
    config.objective = spec("jaxlab.objectives.seq2seq:make", inputs=("source", "target"))
    config.metrics.cross_entropy = spec("jaxlab.metrics.language:cross_entropy")
    return config
