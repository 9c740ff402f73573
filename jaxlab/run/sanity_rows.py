"""The check of ``sanity`` that the examples of a batch do not influence each other in evaluation.

By the gradient of a row's results with respect to the other rows' inputs, which has to be 0, and for inputs that are
no floats, or behind a rounding, by exchanging the other rows.
Shape letters: R rows of a batch.
Usage: ``finding = independence(probe, state)``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core import rng
from jaxlab.core.types import Array, Batch, TrainState
from jaxlab.run.sanity_probe import FAILED, NOT_APPLICABLE, PASSED, Finding, Probe
from jaxlab.run.sanity_stand_ins import is_float

_CLOSE = {"float32": 1e-5, "bfloat16": 2e-2}  # of the largest result: sums may be in another order

Inputs = tuple[Array, ...]


def independence(probe: Probe, state: TrainState) -> Finding:
    """Judge the model's results of the first and the last row.

    The model is called with the same inputs as by the objective, so that a loss among the rows of a batch, as of
    contrastive learning, is no influence.
    """
    batch = probe.batch(0)
    if probe.rows < 2:
        return Finding("independence", NOT_APPLICABLE, "a batch has one row")
    inputs, others = (probe.see(state, each).inputs for each in (batch, probe.batch(1)))
    gradients, exchanged = _gradients(probe, state, batch, inputs), _exchanged(probe, state, batch, inputs, others)
    by_gradient = [name for name, value in gradients.items() if value > 0]
    by_exchange = [name for name, value in exchanged.items() if value > _CLOSE[probe.experiment.config.train.precision]]
    numbers = {"gradient": gradients, "change": exchanged}
    wrong = sorted({*by_gradient, *by_exchange})
    if wrong:
        meaning = (
            f"{', '.join(wrong)} of one row depends on other rows of the batch in evaluation; look for statistics or "
            "attention over the batch's axis, a reshape that mixes axes, or normalisation that ignores train=False"
        )
        return Finding("independence", FAILED, meaning, numbers)
    how = "gradient 0 and no change" if gradients else "no change"
    return Finding("independence", PASSED, f"a row's results do not depend on the other rows ({how})", numbers)


def _gradients(probe: Probe, state: TrainState, batch: Batch, inputs: list[Inputs]) -> dict[str, float]:
    """Return for each float result the largest gradient of a random sum of one row's with respect to other rows."""
    calls = [[_by_row(x, probe.rows) and is_float(x) for x in one] for one in inputs]
    given = [
        x for one, chosen in zip(inputs, calls, strict=True) for x, float_ in zip(one, chosen, strict=True) if float_
    ]
    if not given:
        return {}

    def returned(floats: list[Array]) -> dict[str, Array]:
        rest = iter(floats)
        pairs = zip(inputs, calls, strict=True)
        instead = [tuple(next(rest) if f else x for x, f in zip(one, fs, strict=True)) for one, fs in pairs]
        results = _named(probe.see(state, batch, instead).returned)
        return {name: x for name, x in results.items() if is_float(x) and _by_row(x, probe.rows)}

    @jax.jit
    def pulled(floats: list[Array], cotangent: dict[str, Array]) -> list[Array]:
        return jax.vjp(returned, floats)[1](cotangent)[0]

    shapes = jax.eval_shape(returned, given)
    largest = {}
    generator = rng.host(probe.experiment.config.seed, "sanity-rows")
    for name in shapes:
        drawn = jnp.asarray(generator.standard_normal(shapes[name].shape), shapes[name].dtype)
        blank = {n: jnp.zeros(x.shape, x.dtype) for n, x in shapes.items()}
        largest[name] = max(
            _elsewhere(pulled(given, {**blank, name: blank[name].at[row].set(drawn[row])}), row)
            for row in (0, probe.rows - 1)
        )
    return largest


def _elsewhere(gradients: list[Array], row: int) -> float:
    """Return the largest gradient outside a row; one that is not finite is no influence, and `gradients` tells it."""
    others = [np.delete(np.abs(np.asarray(x, np.float32)), row, axis=0) for x in gradients]
    return max(float(np.nan_to_num(x, nan=0.0, posinf=0.0).max(initial=0.0)) for x in others)


def _exchanged(
    probe: Probe, state: TrainState, batch: Batch, inputs: list[Inputs], others: list[Inputs]
) -> dict[str, float]:
    """Return for each result how far one row's moves, in parts of the largest, as other rows are exchanged."""
    before = _named(probe.see(state, batch).returned)
    moved = dict.fromkeys((name for name, x in before.items() if _by_row(x, probe.rows)), 0.0)
    for row in (0, probe.rows - 1):

        def mixed(x: Array, other: Array, row: int = row) -> Array:
            return other.at[row].set(x[row]) if _by_row(x, probe.rows) and x.shape == other.shape else x

        instead = [tuple(map(mixed, *pair)) for pair in zip(inputs, others, strict=True)]
        after = _named(probe.see(state, batch, instead).returned)
        for name in moved:
            one, two = (np.nan_to_num(np.asarray(x[name][row], np.float64)) for x in (before, after))
            scale = np.abs(np.nan_to_num(np.asarray(before[name], np.float64))).max(initial=0.0)
            moved[name] = max(moved[name], float(np.abs(one - two).max(initial=0.0) / (scale or 1.0)))
    return moved


def _named(returned: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the results by name, those of further calls with the call's number."""
    return {
        name if number == 0 else f"{name} (call {number + 1})": x
        for number, one in enumerate(returned)
        for name, x in one.items()
    }


def _by_row(x: Array, rows: int) -> bool:
    return x.ndim > 0 and len(x) == rows
