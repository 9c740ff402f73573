"""Augmentations that mix the rows of a batch, inside the compiled train step: pure JAX, in training alone.

Row i is mixed with row i - 1. The labels become the probabilities ``label_probs`` [B, C] float32 that
`jaxlab.objectives.classify` prefers; ``label`` stays what it was. Padded rows neither give nor take.
Shape letters: B examples, C classes (of an image: channels), H height, W width.
Usage: ``data.device_augment = (spec("jaxlab.data.device_augment:mixup", alpha=0.2),)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Array, Batch, DataSpec, DeviceTransform


def mixup(
    data: DataSpec, alpha: float = 0.2, probability: float = 1.0, field: str = "image", label: str = "label"
) -> DeviceTransform:
    """Return the transform that replaces each row by a weighted mean of it and another.

    Zhang et al. 2017, arXiv 1710.09412; each row draws its own weight from Beta(alpha, alpha).

    Args:
      data: its ``classes`` give C.
      alpha: 0.1 to 0.4 mix little, 1 makes all weights alike.
      probability: of mixing, a row.
      field: the field that is mixed, of floating numbers of any shape.
      label: the field of class indices [B]; its probabilities go into the field of that name with ``_probs``.
    """
    classes = _checked("mixup", data, alpha, probability, field, label)
    if not jnp.issubdtype(data.example[field].dtype, jnp.floating):
        raise ConfigError(
            f"mixup: the field {field!r} is {data.example[field].dtype}; expected floating numbers: rescale or "
            "standardise it in config.data.transforms"
        )

    def transform(batch: Batch, key: Array) -> Batch:
        mixed_B, own_B = _draw(batch, key, alpha, probability)
        value = batch[field]
        own = own_B.reshape(-1, *(1,) * (value.ndim - 1)).astype(value.dtype)
        mean = own * value + (1 - own) * _partner(value)
        # `where` and not a weight of 1: a padded partner may hold anything, and 0 * nan is nan
        value = jnp.where(mixed_B.reshape(own.shape), mean, value)
        return {**batch, field: value, **_mixed_labels(batch, label, classes, jnp.where(mixed_B, own_B, 1.0))}

    return transform


def cutmix(
    data: DataSpec, alpha: float = 1.0, probability: float = 1.0, field: str = "image", label: str = "label"
) -> DeviceTransform:
    """Return the transform that pastes a random rectangle of another row's image into each; labels count by area.

    Yun et al. 2019, arXiv 1905.04899; each row draws its own area from Beta(alpha, alpha) and its own place.

    Args:
      data: its ``classes`` give C.
      alpha: 1 makes all areas alike.
      probability: of pasting, a row.
      field: the field of images [B, H, W, C].
      label: the field of class indices [B]; its probabilities go into the field of that name with ``_probs``.
    """
    classes = _checked("cutmix", data, alpha, probability, field, label)
    if len(data.example[field].shape) != 3:
        raise ConfigError(f"cutmix: the field {field!r} has shape {data.example[field].shape}; expected H, W, C")

    def transform(batch: Batch, key: Array) -> Batch:
        share_key, y_key, x_key = jax.random.split(key, 3)
        mixed_B, own_B = _draw(batch, share_key, alpha, probability)
        image_BHWC = batch[field]
        rows_BH = _interval(y_key, jnp.sqrt(1 - own_B), image_BHWC.shape[1])
        columns_BW = _interval(x_key, jnp.sqrt(1 - own_B), image_BHWC.shape[2])
        pasted_BHW = mixed_B[:, None, None] & rows_BH[:, :, None] & columns_BW[:, None, :]
        image_BHWC = jnp.where(pasted_BHW[..., None], _partner(image_BHWC), image_BHWC)
        own_B = 1 - jnp.mean(pasted_BHW, axis=(1, 2), dtype=jnp.float32)
        return {**batch, field: image_BHWC, **_mixed_labels(batch, label, classes, own_B)}

    return transform


def _checked(name: str, data: DataSpec, alpha: float, probability: float, field: str, label: str) -> int:
    """Return the number of classes; a ConfigError for what cannot be used."""
    if not alpha > 0:
        raise ConfigError(f"{name}: alpha={alpha}: expected a positive number")
    if not 0 <= probability <= 1:
        raise ConfigError(f"{name}: probability={probability}: expected a number from 0 to 1")
    for wanted in (field, label):
        if wanted not in data.example:
            raise ConfigError(f"{name} names the field {wanted!r}; the data has {', '.join(data.example)}")
    return len(data.classes)


def _partner(value: Array) -> Array:
    """Return the row before each: of arrays that are spread over devices, one row a device has to move."""
    return jnp.roll(value, 1, axis=0)


def _draw(batch: Batch, key: Array, alpha: float, probability: float) -> tuple[Array, Array]:
    """Return which rows are mixed [B], and the weight of each row's own content [B] if it is."""
    mask_B = batch["mask"]
    chosen_key, weight_key = jax.random.split(key)
    chosen_B = jax.random.uniform(chosen_key, mask_B.shape) < probability
    return chosen_B & (mask_B > 0) & (_partner(mask_B) > 0), _symmetric_beta(weight_key, alpha, len(mask_B))


def _symmetric_beta(key: Array, alpha: float, count: int) -> Array:
    """Return draws [count] from Beta(alpha, alpha), by way of Student's t in polar form (Bailey 1994).

    Exact, and without the loop of `jax.random.beta`, which takes seconds to compile.
    """
    radius, angle = jax.random.uniform(key, (2, count))
    cosine, log_r = jnp.cos(jnp.pi * angle), jnp.log1p(-radius) / alpha  # of 1 - radius, which is not 0
    rest = -jnp.expm1(log_r)
    # t / sqrt(n + t²) for n = 2 alpha, in [-1, 1]
    side = cosine * jnp.sqrt(rest / jnp.maximum(jnp.exp(log_r) + rest * cosine**2, jnp.finfo(jnp.float32).tiny))
    return 0.5 * (1 + jnp.clip(side, -1, 1))


def _interval(key: Array, share_B: Array, size: int) -> Array:
    """Return where [B, size] an interval of a share of the size lies, at a uniform centre and cut at the edges."""
    length_B = jnp.floor(share_B * size).astype(jnp.int32)
    start_B = jax.random.randint(key, share_B.shape, 0, size) - length_B // 2
    places = jnp.arange(size)
    return (places >= start_B[:, None]) & (places < (start_B + length_B)[:, None])


def _mixed_labels(batch: Batch, label: str, classes: int, own_B: Array) -> dict[str, Array]:
    """Return the mixed probabilities, of those that an earlier transform has left if there are any."""
    name = f"{label}_probs"
    probs_BC = batch[name] if name in batch else jax.nn.one_hot(batch[label], classes, dtype=jnp.float32)
    return {name: own_B[:, None] * probs_BC + (1 - own_B[:, None]) * _partner(probs_BC)}
