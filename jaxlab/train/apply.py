"""What an objective calls: the model with everything but its inputs bound. Knows no objective and no optimizer."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core import rng
from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Array, Outputs, PyTree
from jaxlab.train.precision import cast


@dataclasses.dataclass(frozen=True)
class Bound:
    """The model as a function of its inputs; calls within one step draw different random numbers."""

    model: nn.Module
    params: PyTree
    model_state: PyTree
    key: Array | None
    dtype: jnp.dtype | None
    train: bool
    calls: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def __call__(self, *inputs: Array, **options: Any) -> tuple[Outputs, PyTree]:
        variables = {"params": cast(self.params, self.dtype), **self.model_state}
        rngs = None if self.key is None else _streams(jax.random.fold_in(self.key, next(self.calls)))
        outputs, new_state = self.model.apply(
            variables, *cast(inputs, self.dtype), rngs=rngs, mutable=list(self.model_state) if self.train else [],
            **_train_flag(self.model, self.train), **options,
        )  # fmt: skip
        outputs = cast(_checked(outputs), None if self.dtype is None else jnp.dtype(jnp.float32))
        if not self.train:
            return outputs, {}
        return outputs, jax.tree.map(lambda new, old: new.astype(old.dtype), new_state, self.model_state)


@dataclasses.dataclass
class Initialising:
    """The model before it has parameters: the first call makes them, further ones use them."""

    model: nn.Module
    seed: int | Array
    variables: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)

    @property
    def params(self) -> PyTree:
        return self.variables.get("params", {})

    def __call__(self, *inputs: Array, **options: Any) -> tuple[Outputs, PyTree]:
        streams = {"params": rng.key(self.seed, "init", 0), "dropout": rng.key(self.seed, "init-dropout", 0)}
        options = {**_train_flag(self.model, False), **options}
        if not self.variables:
            outputs, self.variables = self.model.init_with_output(streams, *inputs, **options)
        else:
            outputs = self.model.apply(self.variables, *inputs, rngs=streams, **options)
        return _checked(outputs), {}


def _streams(key: Array) -> dict[str, Array]:
    """Return the random streams: Linen takes ``params`` for any that it lacks, a bridged NNX module ``default``."""
    return {"params": key, "default": key}


def _train_flag(model: nn.Module, train: bool) -> dict[str, Any]:
    """A model that does the same in training and evaluation need not take the flag."""
    return {"train": train} if "train" in inspect.signature(type(model).__call__).parameters else {}


def _checked(outputs: Any) -> Outputs:
    if not isinstance(outputs, Mapping):
        raise ConfigError(
            f"the model returned {type(outputs).__name__}; expected a mapping such as {{'logits': array}}"
        )
    return outputs
