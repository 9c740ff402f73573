"""Checks of ``sanity`` at the beginning of training: the first loss, gradients, dead units and fields not read.

Usage: ``findings = [initial_loss(probe), *first_steps(probe)]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from jaxlab.core.tree import named_leaves
from jaxlab.core.types import Batch, TrainState
from jaxlab.run.optimizer import rule_matches
from jaxlab.run.sanity_probe import FAILED, NOT_APPLICABLE, PASSED, WARNING, Finding, Probe
from jaxlab.run.sanity_stand_ins import best_results, fields_read, loss_of, noise, varies, zeros

_BATCHES = 8  # steps in which a unit has to have had a gradient: a factor that begins at 0 hides others in the first
_RATE = 1e-3
_FEW_DEAD = 0.2  # share of a layer's units that may be dead without a warning
_FAR_OFF = 10  # a target whose own mean beats 0 by this factor is not centred


def initial_loss(probe: Probe) -> Finding:
    """Compare the first loss with that of a model that says nothing: the objective's on results of zeros.

    That is log C for a softmax of C classes, log 2 for yes-or-no questions, the mean square for regression, and so on
    for any objective. A first loss may be above it by half of it and 0.3, or by 3 times what results of standard
    normal noise lose on it, as a model's last layer makes some noise; below it nothing is wrong (a model may begin
    from trained values, or with the last value of a series).
    """
    batch = probe.batch(0)
    seen = probe.see(probe.start, batch)
    found, params = float(seen.loss), probe.start.params
    theory = loss_of(probe.objective, zeros(seen.returned), batch, params)
    noisy = loss_of(probe.objective, noise(seen.returned, probe.experiment.config.seed), batch, params)
    limit = theory + max(0.5 * abs(theory) + 0.3, 3 * (noisy - theory))
    numbers = {"loss": found, "theory": theory, "limit": limit}
    if not math.isfinite(found):
        return Finding("initial_loss", FAILED, "the first loss is not finite; look for nan in the data", numbers)
    if not math.isfinite(theory):
        reason = "the objective has no finite loss where all results are 0"
        return Finding("initial_loss", NOT_APPLICABLE, reason, numbers)
    if found > limit:
        meaning = (
            "the untrained model is sure of wrong answers; look at the scale of the inputs (are they standardised?), "
            "of the initial weights and of the last layer"
        )
        return Finding("initial_loss", FAILED, meaning, numbers)
    if "target" in seen.results:
        constant, _ = best_results(probe.objective, batch, params, seen.returned, constant=True)
        numbers["constant"] = constant
        if found > _FAR_OFF * max(constant, 0.0) and found - constant > 1:
            meaning = (
                "the targets are far from what the untrained model returns, compared with their spread; standardise "
                "them, or let the last layer's bias begin with their mean"
            )
            return Finding("initial_loss", WARNING, meaning, numbers)
    return Finding("initial_loss", PASSED, "the first loss is that of a model that knows nothing", numbers)


def first_steps(probe: Probe) -> tuple[list[Finding], TrainState]:
    """Train some steps on different batches and return the findings on gradients, units and fields, and the state."""
    state = probe.fresh(_RATE)
    finite: dict[str, bool] = {}
    alive: dict[str, np.ndarray] = {}
    for number in range(_BATCHES):
        state, _ = probe.step(state, probe.batch(number))
        for name, gradient in named_leaves(state.opt_state["gradient"]).items():
            values = np.asarray(gradient, np.float32)
            finite[name] = finite.get(name, True) and bool(np.isfinite(values).all())
            units = (values != 0).reshape(-1, values.shape[-1] if values.ndim else 1).any(axis=0)
            alive[name] = units if number == 0 else alive[name] | units
    frozen = _frozen(probe)
    trained = {name: units for name, units in alive.items() if name not in frozen}
    return [_gradients(finite), _units(trained, frozen), _fields(probe, state)], state


def _gradients(finite: Mapping[str, bool]) -> Finding:
    wrong = [name for name, fine in finite.items() if not fine]
    numbers = {"parameters": len(finite), "not_finite": wrong}
    if wrong:
        meaning = f"the gradient of {wrong[0]} is nan or infinite; look for a log, a root or a division by 0"
        return Finding("gradients", FAILED, meaning, numbers)
    return Finding("gradients", PASSED, f"finite for every parameter in the first {_BATCHES} steps", numbers)


def _units(alive: Mapping[str, np.ndarray], frozen: set[str]) -> Finding:
    """Judge units, the last axis of parameters: one without a gradient in all batches learns nothing."""
    layers = _layers(alive)
    shares = {name: float(1 - units.mean()) for name, units in layers.items()}
    total = sum(len(units) for units in layers.values())
    dead = total - sum(int(units.sum()) for units in layers.values())
    numbers = {"dead": dead, "units": total, "shares": {n: x for n, x in shares.items() if x}, "frozen": sorted(frozen)}
    silent = [name for name, units in layers.items() if not units.any() and len(units) > 1]
    if silent:
        meaning = (
            f"{', '.join(silent)}: no gradient at all in {_BATCHES} steps, so nothing is learnt there; look for a "
            "stop_gradient, an output that is not used, or activations that are 0 for every input"
        )
        return Finding("dead_units", FAILED, meaning, numbers)
    single = [name for name, units in alive.items() if not units.any()]
    if single:
        meaning = (
            f"{', '.join(single)}: no gradient at all in {_BATCHES} steps: nothing that the loss sees depends on it"
        )
        return Finding("dead_units", WARNING, meaning, numbers)
    worst = max(shares, key=lambda name: shares[name], default="")
    if worst and shares[worst] > _FEW_DEAD:
        meaning = (
            f"{shares[worst]:.0%} of the units of {worst} had no gradient in {_BATCHES} steps; look at the scale of "
            "the inputs and of the initial weights and biases"
        )
        return Finding("dead_units", WARNING, meaning, numbers)
    return Finding("dead_units", PASSED, f"{dead} of {total} units had no gradient in {_BATCHES} steps", numbers)


def _layers(alive: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return which units live by layer: a kernel's and a bias's are the same where they are as many."""
    layers: dict[tuple[str, int], np.ndarray] = {}
    for name, units in alive.items():
        key = (name.rpartition("/")[0] or name, len(units))
        layers[key] = layers[key] | units if key in layers else units
    several = {name for name, _ in layers if sum(name == other for other, _ in layers) > 1}
    return {f"{name} ({size})" if name in several else name: units for (name, size), units in layers.items()}


def _frozen(probe: Probe) -> set[str]:
    """Return the parameters that the config's rules freeze."""
    matches = rule_matches(probe.experiment.config.optimizer, probe.start.params)
    frozen = (match for path, found in matches.items() if path.endswith(".freeze") for match in found)
    return {name for match in frozen if match.value is True for name in match.names}


def _fields(probe: Probe, state: TrainState) -> Finding:
    """Judge whether the model's results change with each field that it is called with."""
    batch, other = probe.batch(0), probe.batch(1)
    seen = probe.see(state, batch)
    inputs, answers = fields_read(probe.objective, batch, state.params, seen.returned)
    numbers = {"inputs": inputs, "answers": answers}
    ignored = [name for name in inputs if not any(_changes(probe, state, batch, name, other[name]))]
    if ignored:
        meaning = f"the model's results do not depend on {', '.join(ignored)}; look at what the model does with it"
        return Finding("inputs_read", FAILED, meaning, {**numbers, "ignored": ignored})
    if not inputs:
        same = ", ".join(name for name, value in batch.items() if not varies(value))
        meaning = f"no field that the model is called with differs between the rows of a batch (alike: {same})"
        return Finding("inputs_read", FAILED, meaning, numbers)
    return Finding("inputs_read", PASSED, f"the results depend on {', '.join(inputs)}", numbers)


def _changes(probe: Probe, state: TrainState, batch: Batch, name: str, value: jnp.ndarray) -> Iterator[bool]:
    """Yield for each result whether it changes with a field's values: other rows' first, as they may be alike."""
    before = probe.see(state, batch).returned
    for values in (jnp.roll(batch[name], 1, axis=0), value):
        after = probe.see(state, {**batch, name: values}).returned
        for one, two in zip(before, after, strict=True):
            yield from (not bool(jnp.array_equal(one[result], two[result], equal_nan=True)) for result in one)
