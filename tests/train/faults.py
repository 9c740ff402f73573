"""Models, objectives, transforms and sources with a planted fault each, for the autopsy to find.

Usage: ``config.model = spec("faults:make", kind="divide")``.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxlab.core.errors import DataError
from jaxlab.core.types import Loss
from jaxlab.data import digits
from jaxlab.data.arrays import ArraySource
from jaxlab.data.order import train_indices
from jaxlab.models.layers import BatchNorm


class Middle(nn.Module):
    """Dense, a fault, Dense."""

    kind: str
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        hidden = nn.Dense(8, name="first", use_bias=False)(x)
        if self.kind == "body":
            hidden = hidden / jnp.abs(hidden).sum(-1, keepdims=True)
        elif self.kind != "none":
            hidden = Faulty(self.kind, name="faulty")(hidden)
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return {"logits": nn.Dense(10, name="last")(hidden)}


class Faulty(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x):
        return getattr(self, f"_{self.kind}")(x)

    def _divide(self, x):
        return x / jnp.abs(x).sum(-1, keepdims=True)

    def _backward(self, x):
        return jnp.sqrt(jnp.square(x).sum(-1, keepdims=True)) + x

    def _overflow(self, x):
        return (x * 1e20) * 1e20

    def _hidden(self, x):
        """Divide by zero, hide that, and so spoil the gradient."""
        size = jnp.abs(x).sum(-1, keepdims=True)
        return jnp.where(size > 0, x * Reciprocal(name="reciprocal")(size), 0.0)

    def _mask(self, x):
        """Mask every other number as attention does, then divide by zero."""
        scores = Masked(name="masked")(x)
        return Faulty("divide", name="inner")(nn.softmax(scores) * x)

    def _counted(self, x):
        """Divide by zero when called the third time."""
        count = self.variable("counts", "calls", jnp.zeros, ())
        result = x / (2 - count.value)
        count.value = count.value + 1
        return result

    def _running(self, x):
        """Keep a statistic that overflows, and use it for nothing."""
        seen = self.variable("statistics", "sum", jnp.ones, ())
        seen.value = seen.value * 1e30 * 1e30
        return x

    def _compiled(self, x):
        """Divide by zero in compiled programs only."""
        return x if jax.config.jax_disable_jit else x / jnp.zeros_like(x)


class Reciprocal(nn.Module):
    @nn.compact
    def __call__(self, x):
        return 1 / x


class Masked(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.where(jnp.arange(x.shape[-1]) % 2 == 0, x, -jnp.inf)


class Layer(nn.Module):
    """A layer whose square root has no gradient where its scale is 0."""

    @nn.compact
    def __call__(self, x, _):
        scale = self.param("scale", nn.initializers.ones, ())
        return x + 0.5 * Root(name="root")(scale * jnp.square(x)), None


class Root(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.sqrt(x)


class Layers(nn.Module):
    """Three layers, scanned."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8, name="first")(x.reshape(len(x), -1))
        layers = nn.scan(Layer, {"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = layers(name="layers")(x, None)
        return {"logits": nn.Dense(10, name="last")(x)}


class Normalised(nn.Module):
    """Batch statistics, shared by all devices, and dropout, which differs on each."""

    batch_axis: str | None

    @nn.compact
    def __call__(self, x, mask, train):
        x = nn.Dense(8, name="first")(x.reshape(len(x), -1))
        x = BatchNorm(self.batch_axis, name="norm")(x, mask, train=train)
        return {"logits": nn.Dense(10, name="last")(nn.Dropout(0.3, deterministic=not train)(x))}


def normalised(batch_axis: str | None) -> nn.Module:
    """Return the model with batch statistics and dropout."""
    return Normalised(batch_axis)


def noise():
    """Return a transform on the device that adds noise."""

    def transform(batch, key):
        image = batch["image"].astype(jnp.float32)
        return {**batch, "image": image + jax.random.normal(key, image.shape)}

    return transform


def make(kind: str, dropout: float = 0.0) -> nn.Module:
    """Return the model with the fault of this kind."""
    return Middle(kind, dropout)


def layers() -> nn.Module:
    """Return the scanned layers."""
    return Layers()


def objective(kind: str):
    """Return an objective with a fault of this kind."""

    def log_of_zero(batch, outputs):
        value = jnp.where(batch["id"] % 16 == 0, 0.0, jnp.square(outputs["logits"]).sum(-1))
        return jnp.log(value)

    def root_of_zero(batch, outputs):
        value = jnp.where(batch["id"] % 16 == 0, 0.0, 1.0) * jnp.square(outputs["logits"]).sum(-1)
        return jnp.sqrt(value)

    def large(batch, outputs):
        return 1e25 * outputs["logits"].sum(-1)

    def missing(batch, outputs):
        """Leave out what is not known: the third pixel of the first row."""
        known = jnp.isfinite(batch["image"][:, 0, 2].reshape(-1))
        return jnp.where(known, jnp.square(outputs["logits"]).sum(-1), 0.0)

    def fixed(apply, batch):
        kinds = {"log": log_of_zero, "root": root_of_zero, "large": large, "missing": missing}
        image = jnp.where(jnp.isfinite(batch["image"]), batch["image"], 0) if kind == "missing" else batch["image"]
        outputs, model_state = apply(image)
        total = jnp.sum(jnp.where(batch["mask"] > 0, kinds[kind](batch, outputs), 0.0))
        return Loss(total, jnp.sum(batch["mask"]), dict(outputs), model_state)

    return fixed


def standardise():
    """Return a transform on the device that divides each image by its own deviation."""

    def transform(batch, key):
        image = batch["image"].astype(jnp.float32)
        return {**batch, "image": image / image.std(axis=(1, 2), keepdims=True)}

    return transform


def blank(batch: int, batch_size: int, seed: int) -> ArraySource:
    """Return digits of which the first image of the batch of this number is all zero."""
    source = digits.make("train")
    fields = dict(source.__getitems__(np.arange(len(source))))
    image = np.array(fields["image"])
    image[np.reshape(train_indices(len(source), batch_size, seed, batch, 1, None), -1)[0]] = 0
    return ArraySource({**fields, "image": image}, source.spec.meta)


def from_file(path: str) -> ArraySource:
    """Return the digits in a file."""
    if not Path(path).exists():
        raise DataError(f"{path} is not there")
    with np.load(path, allow_pickle=False) as found:
        return ArraySource(dict(found), {"classes": tuple("0123456789")})
