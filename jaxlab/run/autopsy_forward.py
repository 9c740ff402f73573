"""A part of a step, forward and backward: where the first number that is not finite is made.

Usage: ``found = look_forward(pieces, state, model_state, part)``, and where that is sound, `look_backward`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core.tree import named_leaves
from jaxlab.core.types import Batch, PyTree, TrainState
from jaxlab.run.autopsy_parts import Part, Pieces
from jaxlab.run.autopsy_rows import examples_of, no_examples, rows_alone, rows_of_tensor
from jaxlab.train.probe import ARRIVING, FORWARD, LEAVING, Numbers, Sighting, not_finite, numbers_of, watching

_MOST_LEAVES = 8


class Seen(NamedTuple):
    """A part that has been taken forward: what there is to find, or else how it goes on."""

    found: dict[str, Any] | None
    batch: Batch
    sightings: Sequence[Sighting]
    model_state: PyTree


def finding(verdict: str, where: dict[str, Any], examples: Any = None) -> dict[str, Any]:
    """Return ``verdict``, a sentence; ``where``, its facts; and which examples."""
    return {"verdict": verdict, "where": where, **(examples or no_examples())}


def look_forward(pieces: Pieces, state: TrainState, model_state: PyTree, part: Part) -> Seen:
    """Take the part forward, un-jitted; without the backward pass, which comes only after a sound forward one."""
    batch, found = _augmented(pieces, part)
    if found is not None:
        return Seen(found, batch, (), model_state)
    with watching(pieces.axis) as sightings:
        total, (weight, outputs, after) = pieces.totals()(state.params, model_state, batch, part.key)
    alone = functools.partial(rows_alone, pieces, state, model_state, part, batch, backward=False)
    sums = {"total": np.asarray(total), "weight": np.asarray(weight)}
    bad_sums = [name for name, x in sums.items() if not np.isfinite(x).all()]
    bad_state = not_finite(after)
    if bad_sums:
        bad = first_bad(sightings, FORWARD)
        if bad is not None:
            rows = rows_of_tensor(part, bad)
            at_fault = examples_of(part, rows if rows is not None else alone())
            found = finding(*_of_module(state, sightings, bad, part), at_fault)
        else:
            found = finding(*_of_objective(sums, bad_sums[0], outputs, sightings, part), examples_of(part, alone()))
    elif bad_state:
        name = next(iter(bad_state))
        what = f"the loss is finite, and the step makes {name}, the model's state, not finite{part.name}"
        found = finding(what, {"kind": "model_state after", "leaves": bad_state, "module": _module_of(name)})
    return Seen(found, batch, sightings, after)


def look_backward(
    pieces: Pieces, state: TrainState, model_state: PyTree, part: Part, seen: Seen
) -> tuple[dict[str, Any] | None, tuple[Any, PyTree]]:
    """Take a part that is finite forward there and back; return what there is to find, and its sums and gradient."""
    with watching(pieces.axis) as sightings:
        (total, (weight, *_)), gradient = pieces.gradients()(state.params, model_state, seen.batch, part.key)
    sums = jax.tree.map(jnp.sum, (total, weight))
    if pieces.devices is not None:
        gradient = jax.tree.map(lambda x: x.sum(axis=0), gradient)
    leaves = not_finite(gradient)
    if not leaves:
        return None, (sums, gradient)
    bad = first_bad(sightings, ARRIVING, LEAVING)
    rows = None if bad is None else rows_of_tensor(part, bad)
    if rows is None:
        rows = rows_alone(pieces, state, model_state, part, seen.batch, backward=True)
    what, where = _of_leaf(leaves, part) if bad is None else _of_gradient(sightings, bad, seen.sightings, part)
    return finding(what, {**where, "gradients": leaves}, examples_of(part, rows)), (sums, gradient)


def first_bad(sightings: Sequence[Sighting], *kinds: str) -> Sighting | None:
    """Return the first bad sighting; one that holds nothing worse than minus infinity, as masks do, only for want."""
    bad = [seen for seen in sightings if seen.kind in kinds and seen.bad]
    return next((seen for seen in bad if seen.kind != FORWARD or not seen.numbers.masked), bad[0] if bad else None)


def describe(numbers: Numbers, size: str) -> str:
    """Return what a tensor of such a `size` holds, in words."""
    below = f" ({numbers.negative} of them negative)" if numbers.negative else ""
    held = f"{numbers.nan} nan, {numbers.infinite} infinite{below}, the largest of the others {numbers.largest:.3g}"
    return f"{size}: {held}"


def facts(seen: Sighting) -> dict[str, Any]:
    """Return a sighting as the report keeps it."""
    numbers, given = seen.numbers, seen.inputs
    found = {
        "kind": seen.kind, "module": seen.at.module, "class": seen.at.class_name, "leaf": seen.leaf,
        "shape": list(seen.shape), "dtype": seen.dtype, "nan": numbers.nan, "infinite": numbers.infinite,
        "largest_finite": numbers.largest,
    }  # fmt: skip
    if given is not None:
        found |= {"inputs_finite": not given.bad, "inputs": [given.low, given.high]}
    return found


def _augmented(pieces: Pieces, part: Part) -> tuple[Batch, dict[str, Any] | None]:
    """Return the augmented batch, and which transform on the device makes it not finite, where one does."""
    config = pieces.experiment.config.data.device_augment
    batch = before = pieces.augmented(part, 0)
    for place, node in enumerate(config):
        batch = pieces.augmented(part, place + 1)
        for field, value in batch.items():
            if not_finite({field: value}) and not not_finite({field: before[field]}):
                rows = ~np.isfinite(np.asarray(value)).all(axis=tuple(range(part.rows.ndim, value.ndim)))
                what = f"config.data.device_augment[{place}] ({node.factory}) makes the field {field!r} not finite"
                where = {"kind": "device_augment", "place": place, "field": field}
                return batch, finding(what + part.name, where, examples_of(part, rows))
        before = batch
    return batch, None


def _of_module(
    state: TrainState, sightings: Sequence[Sighting], bad: Sighting, part: Part
) -> tuple[str, dict[str, Any]]:
    """Return the verdict on a module's result."""
    place = next(i for i, seen in enumerate(sightings) if seen is bad)
    before = sightings[place - 1] if place else None
    after = f" after {before.at.module}" if before else ""
    number = f", call {bad.number}" if bad.number else ""
    given, where = bad.inputs or Numbers(0, 0, 0, 0.0, 0.0), {**facts(bad), "call": bad.number}
    size = describe(bad.numbers, f"{bad.dtype}{list(bad.shape)}")
    name = f"{bad.at.module} ({bad.at.class_name}{number})"
    if not given.bad or given.masked:
        where["params"] = _bounds(state, bad.at.module)
        source = next((seen.at.module for seen in sightings[:place] if seen.kind == FORWARD and seen.bad), "its caller")
        mask = f" and {given.negative} of -inf, which {source} made" if given.masked else ""
        what = f"{name} makes the first result that is not finite, of inputs from {given.low:.3g} to {given.high:.3g}"
        return f"{what}{mask}: {size}{part.name}", where
    where |= {"noticed_at": bad.at.module, "after": before.at.module if before else None}
    if bad.within is None:
        where |= {"kind": "inputs", "module": None, "class": None}
        return (
            f"the objective gives {name} inputs that are not finite, made{after or ' of the batch'}{part.name}",
            where,
        )
    where |= {"module": bad.within.module, "class": bad.within.class_name}
    what = f"{bad.within.module} ({bad.within.class_name}{number}), in its own body{after}, makes the first number that"
    held = describe(given, "its inputs")
    return f"{what} is not finite, and gives it to {bad.at.module}; {held}{part.name}", where


def _bounds(state: TrainState, module: str) -> dict[str, list[float]]:
    """Return the least and greatest number of the module's own parameters; in a scan, those of all its layers."""
    path = module.partition(".")[0]
    own = {name: x for name, x in named_leaves(state.params).items() if name.startswith(f"{path}/")}
    found = {name: numbers_of(x) for name, x in list(own.items())[:_MOST_LEAVES]}
    return {name: [numbers.low, numbers.high] for name, numbers in found.items()}


def _of_objective(
    sums: dict[str, np.ndarray], name: str, outputs: Any, sightings: Sequence[Sighting], part: Part
) -> tuple[str, dict[str, Any]]:
    """Return the verdict on sums that are not finite though every module's results are."""
    value, last = float(np.sum(sums[name])), sightings[-1] if sightings else None
    module, largest = (last.at.module, last.numbers.largest) if last else ("no module", 0.0)
    results = not_finite(outputs)
    among = f"; of the objective's results {', '.join(results)} are not finite" if results else ""
    what = f"the objective's {name} is {value}, made in the objective, after {module}, whose results are finite"
    where = {"kind": "objective", "sum": name, "after": module, "largest_finite": largest, "results": results}
    return f"{what}, up to {largest:.3g}{among}{part.name}", where


def _of_gradient(
    sightings: Sequence[Sighting], bad: Sighting, forward: Sequence[Sighting], part: Part
) -> tuple[str, dict[str, Any]]:
    """Return the verdict on a gradient that comes by a module; a scan goes through its layers from the last."""
    back = [seen for seen in sightings if seen.kind in (ARRIVING, LEAVING)]
    place = next(i for i, seen in enumerate(back) if seen is bad)
    before = back[place - 1] if place else None
    calls = 1 + max((seen.number for seen in forward if seen.at == bad.at), default=0)
    call = max(0, calls - 1 - bad.number)
    number = f", call {call}" if call else ""
    where = {**facts(bad), "call": call, "after": before.at.module if before else None}
    size = describe(bad.numbers, f"{bad.dtype}{list(bad.shape)}")
    if bad.kind == LEAVING:
        what = f"the backward pass of {bad.at.module} ({bad.at.class_name}{number})"
        return f"{what} makes the first gradient that is not finite, of a finite one: {size}{part.name}", where
    where["noticed_at"] = bad.at.module
    after = f", after {before.at.module}, whose gradient is finite" if before else ""
    if bad.within is None:
        where |= {"module": None, "class": None}
        maker = "the backward pass of the objective"
    else:
        where |= {"module": bad.within.module, "class": bad.within.class_name}
        maker = f"the backward pass of {bad.within.module} ({bad.within.class_name}{number}), in its own body{after},"
    what = f"{maker} makes the first gradient that is not finite; it arrives at {bad.at.module}"
    return f"{what}: {size}{part.name}", where


def _of_leaf(leaves: dict[str, int], part: Part) -> tuple[str, dict[str, Any]]:
    name = next(iter(leaves))
    what = f"the gradient of params/{name} is not finite, though every gradient that comes by a module is"
    return what + part.name, {"kind": "gradient", "module": _module_of(name)}


def _module_of(leaf: str) -> str:
    return leaf.rpartition("/")[0] or "the model"
