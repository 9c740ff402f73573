"""What objectives share: checks of fields and options before anything compiles, and sums that padding cannot enter.

An error names the option alone; `jaxlab.core.config.build` puts the objective's config path before it, which differs
where one objective wraps another. Usage: ``check_inputs(data, inputs, target)``.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Array, Batch, DataSpec, Outputs

ALWAYS = ("mask", "id")  # fields that every batch has


def check_fields(data: DataSpec, *names: str) -> None:
    """Raise a ConfigError for the first of `names` that is no field of a batch."""
    for name in names:
        if name not in (*data.example, *ALWAYS):
            known = ", ".join(data.example)
            raise ConfigError(
                f"the objective names the field {name!r}; the data has {known}{did_you_mean(name, data.example)}"
            )


def check_inputs(data: DataSpec, inputs: tuple[str, ...], *others: str, option: str = "inputs") -> None:
    """Raise a ConfigError unless there are `inputs` and all of them and of `others` are fields of a batch."""
    check(option, inputs, len(inputs) > 0, "the names of the fields that the model is called with")
    check_fields(data, *inputs, *others)


def check(option: str, value: Any, fits: bool, expected: str) -> None:
    """Raise a ConfigError that names an option, its value and what was expected, unless it `fits`."""
    if not fits:
        raise ConfigError(f"{option}={value!r}: expected {expected}")


def check_share(option: str, value: float) -> None:
    """Raise a ConfigError unless `value` lies between 0 and 1."""
    check(option, value, 0 <= value <= 1, "a number from 0 to 1")


def check_not_negative(option: str, value: float) -> None:
    """Raise a ConfigError unless `value` is finite and 0 or more."""
    check(option, value, 0 <= value < float("inf"), "a number of 0 or more")


def check_positive(option: str, value: float) -> None:
    """Raise a ConfigError unless `value` is finite and more than 0."""
    check(option, value, 0 < value < float("inf"), "a number above 0")


def has_field(data: DataSpec, name: str, usual: str) -> bool:
    """Return whether the data has an optional field; one that was given another name than the `usual` has to exist."""
    if name and name != usual:
        check_fields(data, name)
    return name in data.example


def result_of(outputs: Outputs, name: str) -> Array:
    """Return a result of the model in float32 or wider; a ConfigError that lists those it has if there is none."""
    if name not in outputs:
        known = ", ".join(outputs)
        raise ConfigError(
            f"the objective needs the model's result {name!r}; it returns {known}{did_you_mean(name, outputs)}"
        )
    return outputs[name].astype(jnp.promote_types(outputs[name].dtype, jnp.float32))


def check_shapes(what: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise a ConfigError where broadcasting would hide that two arrays do not belong together."""
    if found != expected:
        raise ConfigError(f"{what} has the shape {found}; the objective expected {expected}")


def over(weight: Array, ndim: int) -> Array:
    """Return `weight` [B, ...] with axes of 1 added at the end, to go with an array of `ndim` axes."""
    return weight.reshape(*weight.shape, *(1,) * (ndim - weight.ndim))


def blank(value: Array, weight: Array) -> Array:
    """Return `value` [B, ..., C] with 0 where `weight` [B, ...] is 0.

    Before the loss, as a weight of 0 after it would leave a gradient of 0 · nan where such rows hold nan.
    """
    return jnp.where(over(weight, value.ndim) > 0, value, jnp.zeros_like(value))


def weighted_sum(value: Array, weight: Array) -> Array:
    """Return the sum of ``weight * value``, whatever the value is where the weight is 0."""
    return jnp.sum(jnp.where(weight > 0, value * weight, 0.0))


def weights_of(outputs: Outputs, batch: Batch, name: str) -> Array:
    """Return the weights that `name` stands for, among the results or the batch's fields, 0 in padded rows."""
    known = {**batch, **outputs}
    if name not in known:
        raise ConfigError(f"weights={name!r}: no result or field of that name{did_you_mean(name, known)}")
    weight = known[name].astype(jnp.float32)
    return blank(weight, batch["mask"]) * over(batch["mask"], weight.ndim)


def element_weights(batch: Batch, value: Array, name: str) -> Array:
    """Return weights of the shape of `value` [B, ...]: the batch's mask times its field `name`, if not empty."""
    weight = jnp.broadcast_to(over(batch["mask"], value.ndim), value.shape)
    if not name:
        return weight
    there = blank(batch[name].astype(jnp.float32), batch["mask"])
    check_shapes(f"the data's {name}", there.shape, value.shape[: there.ndim])
    return weight * over(there, value.ndim)
