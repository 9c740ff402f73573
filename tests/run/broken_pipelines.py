"""Small pipelines, right and broken in one way each, for the tests of ``sanity``.

Usage: ``config.model = spec("broken_pipelines:Batchwise")``.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxlab.core.config import spec
from jaxlab.core.errors import DataError
from jaxlab.data.arrays import ArraySource
from jaxlab.run.base import base_config

CLASSES, WIDTH, ROWS = 4, 8, {"train": 400, "valid": 120}


def points(split: str = "train", scale: float = 1.0, strangers: bool = False, regression: bool = False) -> ArraySource:
    """Return clouds of points: ``features`` [8], ``other`` [2], ``token`` (the nearest axis) and their ``label``.

    With `strangers` each row has another row's label; `regression` has ``target`` [1], a line in the features.
    """
    if split == "test":
        raise DataError("the test split was opened")
    generator = np.random.default_rng(list(ROWS).index(split))
    label_N = generator.integers(0, CLASSES, ROWS[split])
    features_ND = generator.normal(size=(ROWS[split], WIDTH)) + 2 * np.eye(WIDTH)[label_N]
    fields = {
        "features": features_ND * scale,
        "other": generator.normal(size=(ROWS[split], 2)),
        "token": features_ND.argmax(1),
        "label": generator.permutation(label_N) if strangers else label_N,
    }
    if regression:
        fields["target"] = features_ND @ np.arange(WIDTH)[:, None] / WIDTH
    return ArraySource(fields, {"classes": tuple("abcd")})


def config_of(model: str, inputs: tuple[str, ...] = ("features",), **source: object) -> ConfigDict:
    """Return a config of one of this file's models, by name, on the points."""
    config = base_config()
    for split in ("train", "valid", "test"):
        config.data[split] = ConfigDict({"factory": "broken_pipelines:points", "split": split, **source})
    config.model = spec(f"broken_pipelines:{model}")
    config.objective = spec("jaxlab.objectives.classify:make", inputs=inputs)
    config.optimizer = spec("optax:adam", learning_rate=1e-3)
    config.train.batch_size = 32
    return config


def regression() -> ConfigDict:
    """Return the right config of numbers."""
    config = config_of("Right", regression=True)
    config.model = spec("broken_pipelines:Right", name_of_result="forecast", results=1)
    config.objective = spec("jaxlab.objectives.regress:make", inputs=("features",))
    return config


def told(fields: dict, randomness: object) -> dict:
    """Write the label into the features, as a transform must not."""
    features_BD = fields["features"].copy()
    features_BD[:, -1] = 3.0 * fields["label"]
    return {**fields, "features": features_BD}


def make_told() -> object:
    """Return the transform `told`."""
    return told


class Right(nn.Module):
    """A perceptron of all its inputs; nothing is wrong with it."""

    name_of_result: str = "logits"
    results: int = CLASSES

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> dict[str, jax.Array]:
        columns = [x if x.ndim > 1 else jax.nn.one_hot(x, WIDTH) for x in inputs]
        hidden = nn.relu(nn.Dense(32, name="hidden")(jnp.concatenate(columns, axis=1)))
        return {self.name_of_result: nn.Dense(self.results, name="head")(hidden)}


class Batchwise(nn.Module):
    """Takes the batch's mean off its inputs in evaluation too."""

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        hidden = nn.Dense(32)(x) if x.ndim > 1 else nn.Embed(WIDTH, 32)(x)
        return {"own": hidden, **Right()(hidden - hidden.mean(0))}


class Rounded(nn.Module):
    """Lets rows influence each other behind a rounding, where every gradient is 0."""

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        return Right()(x + 0 * x.mean(0) + jnp.round(10 * x.mean(0)))


class Dead(nn.Module):
    """Has a layer whose units are 0 for every input, beside a way around it, and does nothing with another field."""

    share: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, other: jax.Array | None = None) -> dict[str, jax.Array]:
        silent = jnp.where(jnp.arange(32) < 32 * self.share, -100.0, 0.0)
        hidden = nn.relu(nn.Dense(32, name="silent", bias_init=lambda *_: silent)(x))
        return {"logits": nn.Dense(CLASSES, name="after")(jnp.concatenate([hidden, x], axis=1))}


class Loud(nn.Module):
    """Begins sure of itself: its last layer is a hundred times too large."""

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        return {"logits": 100 * Right()(x)["logits"]}


class Narrow(nn.Module):
    """Sees the sign of one number."""

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        return Right()(jnp.sign(x[:, -1:]))


class Forgetful(nn.Module):
    """Sees nothing in evaluation."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> dict[str, jax.Array]:
        return Right()(x if train else 0 * x + x[:, :1] / 100)


class Rooted(nn.Module):
    """Takes a root at 0, whose gradient isn't finite."""

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        logits = Right()(x)["logits"]
        return {"logits": logits + jnp.sqrt(logits * 0)}
