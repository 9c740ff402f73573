"""Floating-point operations of a function, counted from its jaxpr: products of matrices and convolutions alone.

XLA's own count has everything element-wise besides, and a scan's body once however often it runs; here a body counts as
often as it runs. A multiply and an add are two operations, as vendors count them.
Usage: ``flops_of(experiment)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

from jaxlab.run.assemble import Experiment

_COUNTED: dict[str, Callable[[Any], int]] = {}


def flops_of(experiment: Experiment) -> float:
    """Return the operations of a whole step, over all devices and microbatches."""
    state, batch = jax.eval_shape(experiment.init), experiment.abstract_batch()
    return float(count(jax.make_jaxpr(experiment.train_step(None))(state, batch).jaxpr))


def count(jaxpr: Any) -> int:
    """Return the operations of a jaxpr; of a `while`, whose length is not known, those of one turn."""
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in _COUNTED:
            total += _COUNTED[name](equation)
        elif name == "cond":
            total += max((count(branch.jaxpr) for branch in equation.params["branches"]), default=0)
        else:
            times = equation.params["length"] if name == "scan" else 1
            total += times * sum(count(inner) for inner in _inner(equation.params.values()))
    return total


def _inner(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _inner(value)


def _dot(equation: Any) -> int:
    """2 × every number of the result × the length that is summed over."""
    (contracting, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracting)


def _convolution(equation: Any) -> int:
    """2 × every number of the result × the window × the channels that a number reads; padding counts."""
    numbers = equation.params["dimension_numbers"]
    kernel = equation.invars[1].aval.shape
    window = math.prod(kernel) // kernel[numbers.rhs_spec[0]]  # all but the channels out; those in are a group's
    return 2 * math.prod(equation.outvars[0].aval.shape) * window


_COUNTED |= {"dot_general": _dot, "conv_general_dilated": _convolution}
