"""Several gradient transformations in a row.

Usage: ``spec("jaxlab.optim.chain:make", transforms=(spec("optax:clip", max_delta=1.0), spec("optax:sgd", ...)))``.
Clipping acts on the gradient of the whole batch: accumulation and devices are summed before the optimizer is called.
"""

from __future__ import annotations

import inspect
from typing import Any

import optax

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import PyTree


def make(transforms: tuple[optax.GradientTransformation, ...]) -> optax.GradientTransformation:
    """Return the chain, the first applied first."""
    return optax.chain(*map(uniform, transforms)) if transforms else optax.identity()


def uniform(transform: Any) -> optax.GradientTransformationExtraArgs:
    """Return the transformation as one that may be offered any extra argument, and takes those that it names.

    Args:
      transform: of any of optax's three forms; some refuse arguments that they do not know.

    Raises:
      ConfigError: something else, such as a factory of transformations.
    """
    if isinstance(transform, optax.MultiSteps):
        transform = transform.gradient_transformation()
    if not isinstance(transform, optax.GradientTransformation):
        raise ConfigError(f"expected an optax.GradientTransformation, not a {type(transform).__name__}")
    if not isinstance(transform, optax.GradientTransformationExtraArgs):
        return optax.with_extra_args_support(transform)
    wanted = inspect.signature(transform.update).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in wanted.values()):
        return transform

    def update(updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        return transform.update(updates, state, params, **{n: x for n, x in extra.items() if n in wanted})

    return optax.GradientTransformationExtraArgs(transform.init, update)
