"""The evaluation step, pure and un-jitted: the sums of the loss and of all metrics, and each example's results.

Usage: ``eval_step = make_eval_step(model, objective, metrics)``; ``statistics, outputs = eval_step(state, batch)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
from flax import linen as nn

from jaxlab.core.types import (
    Batch,
    EvalStep,
    Generate,
    Metric,
    Objective,
    Outputs,
    PyTree,
    Statistics,
    TrainState,
)  # fmt: skip
from jaxlab.train.apply import Bound
from jaxlab.train.precision import cast, compute_dtype
from jaxlab.train.step import blank_padding, statistics_of


def average_or_raw(state: TrainState) -> PyTree:
    """Return the moving average of the parameters, or the parameters where there is none."""
    return state.params if state.ema is None else state.ema


def make_eval_step(
    model: nn.Module,
    objective: Objective,
    metrics: Mapping[str, Metric],
    *,
    precision: str = "float32",
    batch_axis: str | None = None,
    parameters: Callable[[TrainState], PyTree] = average_or_raw,
    generate: Generate | None = None,
) -> EvalStep:
    """Return the function from (state, batch) to (statistics, per-example outputs) for what `parameters` takes.

    Metrics and outputs have what `generate` makes of the model, too.
    """
    dtype = compute_dtype(precision)

    def eval_step(state: TrainState, batch: Batch) -> tuple[Statistics, Outputs]:
        batch = blank_padding(batch)
        apply = Bound(model, parameters(state), state.model_state, None, dtype, train=False)
        total, weight, outputs, _ = objective(apply, batch)
        if generate is not None:
            variables = {"params": cast(apply.params, dtype), **state.model_state}
            outputs = {**outputs, **generate(model, variables, batch)}
        statistics = statistics_of(metrics, outputs, batch, total, weight)
        return (statistics if batch_axis is None else jax.lax.psum(statistics, batch_axis)), outputs

    return eval_step
