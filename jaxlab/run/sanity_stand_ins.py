"""Stand-ins for a model: an objective called with results that are given says what knowing nothing, or all, costs.

So the theory of an initial loss needs no formula an objective: log C of a softmax is the loss of zeros. Knows no
objective and no model by name. Shape letters: R rows.
Usage: ``floor, _ = best_results(objective, batch, params, like, constant=False)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from jaxlab.core import rng
from jaxlab.core.types import Apply, Array, Batch, Loss, Objective, Outputs, PyTree

Results = Sequence[Mapping[str, Array]]
"""What the model returned, a mapping for each time that the objective called it."""


@dataclasses.dataclass
class Recorded:
    """The model, noting each call; where there are inputs `instead`, it is called with those."""

    model: Apply
    instead: Sequence[tuple[Array, ...]] | None = None
    inputs: list[tuple[Array, ...]] = dataclasses.field(default_factory=list)
    returned: list[dict[str, Array]] = dataclasses.field(default_factory=list)

    @property
    def params(self) -> PyTree:
        return self.model.params

    def __call__(self, *inputs: Array, **options: Any) -> tuple[Outputs, PyTree]:
        inputs = inputs if self.instead is None else self.instead[len(self.inputs)]
        outputs, state = self.model(*inputs, **options)
        self.inputs.append(inputs)
        self.returned.append(dict(outputs))
        return outputs, state


@dataclasses.dataclass
class Given:
    """Stands in for the model and returns what it was given, call by call."""

    results: Results
    params: PyTree
    inputs: list[tuple[Array, ...]] = dataclasses.field(default_factory=list)

    def __call__(self, *inputs: Array, **options: Any) -> tuple[Outputs, PyTree]:
        self.inputs.append(inputs)
        return self.results[len(self.inputs) - 1], {}


def mean(loss: Loss) -> Array:
    """Return a loss over its weight, 0 where there is none."""
    return loss.total / jnp.where(loss.weight > 0, loss.weight, 1.0)


def loss_of(objective: Objective, results: Results, batch: Batch, params: PyTree) -> float:
    """Return the mean loss on a batch where the model returns `results`; a penalty may read `params`."""
    return float(mean(objective(Given(results, params), batch)))


def zeros(like: Results) -> Results:
    """Return results of zeros: a model that says nothing."""
    return jax.tree.map(jnp.zeros_like, list(like))


def noise(like: Results, seed: int) -> Results:
    """Return results of standard normal noise, zeros where they are no floats."""
    generator = rng.host(seed, "sanity-noise")  # on the host: nothing is compiled
    return jax.tree.map(
        lambda x: jnp.asarray(generator.standard_normal(x.shape), x.dtype) if is_float(x) else jnp.zeros_like(x),
        list(like),
    )


def best_results(
    objective: Objective, batch: Batch, params: PyTree, like: Results, *, constant: bool
) -> tuple[float, Results]:
    """Return the lowest mean loss that any results have on a batch, and those, by L-BFGS on the results themselves.

    Args:
      objective: what is minimised.
      batch: of as many rows as there are `like`.
      params: read by a penalty, and left alone.
      like: results of the shapes wanted.
      constant: whether all rows' results are to be the same, as of a model that knows how often each target is and
        nothing about a row; otherwise each row has its own, as of one that knows the answers.
    """
    rows = len(batch["mask"])

    def beginning(x: Array) -> Array:
        return jnp.zeros(x.shape[1:] if constant and x.shape[:1] == (rows,) else x.shape, jnp.float32)

    begin, restore = ravel_pytree([{n: beginning(x) for n, x in one.items() if is_float(x)} for one in like])

    def full(numbers: Array) -> Results:
        found = zip(like, restore(numbers), strict=True)
        return [
            {n: jnp.broadcast_to(values[n], x.shape) if n in values else jnp.zeros_like(x) for n, x in one.items()}
            for one, values in found
        ]

    measure = jax.jit(jax.value_and_grad(lambda numbers: mean(objective(Given(full(numbers), params), batch))))

    def on_host(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = measure(jnp.asarray(numbers, jnp.float32))
        return float(value), np.asarray(gradient, np.float64)

    if not constant:  # off 0, where the slope of a product of two results is 0
        begin = begin + 0.1 * rng.host(0, "sanity-noise").standard_normal(begin.shape)
    found = minimize(on_host, np.asarray(begin, np.float64), jac=True, method="L-BFGS-B", options={"maxiter": 60})
    return float(found.fun), full(jnp.asarray(found.x, jnp.float32))


def fields_read(objective: Objective, batch: Batch, params: PyTree, like: Results) -> tuple[list[str], list[str]]:
    """Return the fields that the model is called with, and those that only the loss reads: the answers.

    A field is read where rolling its rows changes the one or the other; so one that is alike in all rows is not.
    """
    given = noise(like, 0)

    def called(fields: Batch) -> tuple[list[Array], float]:
        apply = Given(given, params)
        loss = objective(apply, fields)
        return jax.tree.leaves(apply.inputs), float(loss.total)

    before, total = called(batch)
    inputs, answers = [], []
    for name, value in batch.items():
        if name in ("mask", "id") or not varies(value):
            continue
        after, other = called({**batch, name: jnp.roll(value, 1, axis=0)})
        if not all(bool(jnp.array_equal(one, two)) for one, two in zip(before, after, strict=True)):
            inputs.append(name)
        elif other != total:
            answers.append(name)
    return inputs, answers


def varies(value: Array) -> bool:
    """Return whether the rows of a field differ."""
    return not bool(jnp.array_equal(value, jnp.roll(value, 1, axis=0)))


def is_float(x: Array) -> bool:
    """Return whether an array is of floating-point numbers."""
    return bool(jnp.issubdtype(x.dtype, jnp.floating))
