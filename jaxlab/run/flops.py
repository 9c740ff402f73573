"""What a function computes and moves, counted from its jaxpr: products of matrices and convolutions alone.

XLA's own count has everything element-wise besides, and a scan's body once however often it runs; here a body counts as
often as it runs. A multiply and an add are two operations, as vendors count them.
Usage: ``flops_of(experiment)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core

from jaxlab.run.assemble import Experiment

Measures = Mapping[str, Callable[[Any], int]]  # of an equation, by the name of its primitive


def flops_of(experiment: Experiment) -> float:
    """Return the operations of a whole step, over all devices and microbatches."""
    return float(count(_step(experiment)))


def moved_by_products(experiment: Experiment) -> float:
    """Return the bytes that a step's products read and write, over all devices: each operand and result once.

    What is element-wise is taken to be fused into them, as XLA mostly does on accelerators.
    """
    return float(count(_step(experiment), MOVED))


def _step(experiment: Experiment) -> Any:
    state, batch = jax.eval_shape(experiment.init), experiment.abstract_batch()
    return jax.make_jaxpr(experiment.train_step(None))(state, batch).jaxpr


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


def _bytes(equation: Any) -> int:
    return sum(math.prod(x.aval.shape) * x.aval.dtype.itemsize for x in (*equation.invars, *equation.outvars))


FLOPS: Measures = {"dot_general": _dot, "conv_general_dilated": _convolution}
MOVED: Measures = dict.fromkeys(FLOPS, _bytes)


def count(jaxpr: Any, measures: Measures = FLOPS) -> int:
    """Return the sum over a jaxpr's equations; of a `while`, whose length is not known, that of one turn."""
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in measures:
            total += measures[name](equation)
        elif name == "cond":
            total += max((count(branch.jaxpr, measures) for branch in equation.params["branches"]), default=0)
        else:
            times = equation.params["length"] if name == "scan" else 1
            total += times * sum(count(inner, measures) for inner in _inner(equation.params.values()))
    return total


def _inner(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _inner(value)
