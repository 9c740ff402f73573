"""The checks of ``sanity`` that train with the right and with shuffled labels: only the right ones may generalise.

Labels are exchanged among the rows before the transforms, so that a model that is given its own answer, or a transform
that writes it into the inputs, is found: then shuffled labels predict the validation split as well.
Shape letters: N rows of the split that is judged.
Usage: ``findings = labels(probe, rate)``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxlab.core import rng
from jaxlab.core.types import Array, Batch, DataSpec, Source, TrainState
from jaxlab.data.pipeline import Batches
from jaxlab.run.sanity_probe import CUT, FAILED, NOT_APPLICABLE, PASSED, Finding, Probe, has_labels, on_device
from jaxlab.run.sanity_stand_ins import Given, Results, best_results, fields_read

_MOST_TRAIN, _MOST_JUDGED, _FEWEST_JUDGED = 2048, 2048, 20  # rows
_SURE = 3.0  # standard errors by which shuffled labels would have to be better than knowing nothing
_LIKELY = 2.0  # those by which the right labels have to be better than shuffled ones
_GAIN = 0.05  # share of the loss of knowing nothing: less is no finding, however sure
_OF_TRUE = 0.3  # share of what the right labels gain: rows that overlap, as windows do, make chance look sure

_NAMES = ("shuffled_labels", "true_labels")


class Exchanged:
    """Some rows of a source, with some fields taken from other rows."""

    def __init__(self, source: Source, rows_N: np.ndarray, from_N: np.ndarray, fields: frozenset[str]) -> None:
        self._source, self._rows, self._from, self._fields = source, rows_N, from_N, fields

    @property
    def spec(self) -> DataSpec:
        return self._source.spec._replace(size=len(self))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        rows = self._source.__getitems__(self._rows[indices])
        others = self._source.__getitems__(self._from[indices])
        return {name: others[name] if name in self._fields else value for name, value in rows.items()}


class Losses(NamedTuple):
    """What each judged row adds to the loss, and the weight of all."""

    totals: np.ndarray
    weight: float

    @property
    def mean(self) -> float:
        """The mean loss."""
        return float(self.totals.sum() / self.weight)

    def better_than(self, other: Losses) -> float:
        """Return by how many standard errors of the paired differences the mean loss is lower than the other's."""
        difference_N = other.totals - self.totals
        error = difference_N.std(ddof=1) / np.sqrt(len(difference_N))
        return float(difference_N.mean() / error) if error > 0 else 0.0


def labels(probe: Probe, rate: float) -> list[Finding]:
    """Train with shuffled and with the right labels as many steps, and compare both on the validation split.

    Args:
      probe: of the experiment.
      rate: of Adam, with which training is known to get on.
    """
    fields, reason = _answers(probe)
    splits = _splits(probe)
    if not reason and len(splits[1]) < _FEWEST_JUDGED:
        reason = f"{len(splits[1])} rows to judge by are too few"
    if reason:
        return [Finding(name, NOT_APPLICABLE, reason) for name in _NAMES]
    judged = _judged_batches(probe, splits[1])
    shuffled, ran = _trained(probe, splits[0], fields, rate, shuffle=True, until=_half(probe))
    true, also_ran = _trained(probe, splits[0], frozenset(), rate, shuffle=False, until=probe.deadline)
    if min(ran, also_ran) < probe.steps:
        meaning = f"the time was up after {ran} and {also_ran} of {probe.steps} steps; give more by --seconds"
        return [Finding(name, CUT, meaning) for name in _NAMES]
    batch, returned = _seen(probe, true, judged)
    _, constant = best_results(probe.objective, batch, true.params, returned, constant=True)
    found = {"nothing": _losses(probe, batch, constant, true), "true": _losses(probe, batch, returned, true)}
    found["shuffled"] = _losses(probe, batch, _seen(probe, shuffled, judged)[1], shuffled)
    numbers: dict[str, Any] = {f"{name}_loss": losses.mean for name, losses in found.items()}
    numbers |= {"rows": len(batch["mask"]), "exchanged": sorted(fields)}
    return [_on_shuffled(found, numbers), _on_true(found, numbers, probe.steps)]


def _on_shuffled(found: Mapping[str, Losses], numbers: Mapping[str, Any]) -> Finding:
    sure = found["shuffled"].better_than(found["nothing"])
    gain = found["nothing"].mean - found["shuffled"].mean
    numbers = {**numbers, "standard_errors": sure}
    least = max(_GAIN * abs(found["nothing"].mean), _OF_TRUE * (found["nothing"].mean - found["true"].mean))
    if sure > _SURE and gain > least:
        meaning = (
            "a model trained on shuffled labels predicts the right ones, so it's told the answer; look for the target "
            "among the objective's inputs, or for a transform that uses it"
        )
        return Finding("shuffled_labels", FAILED, meaning, numbers)
    return Finding("shuffled_labels", PASSED, "shuffled labels teach nothing about other rows", numbers)


def _on_true(found: Mapping[str, Losses], numbers: Mapping[str, Any], steps: int) -> Finding:
    sure = found["true"].better_than(found["shuffled"])
    numbers = {**numbers, "standard_errors": sure}
    if sure > _LIKELY:
        return Finding("true_labels", PASSED, f"{steps} steps with the right labels are better than shuffled", numbers)
    meaning = (
        f"{steps} steps with the given labels are no better than with shuffled ones; look at whether labels belong to "
        "their rows, in both splits, or give more by --steps"
    )
    return Finding("true_labels", FAILED, meaning, numbers)


def _answers(probe: Probe) -> tuple[frozenset[str], str]:
    """Return the fields of the source that are to be exchanged, and why they can't be, or an empty string."""
    batch = probe.batch(0)
    seen = probe.see(probe.start, batch)
    if not has_labels(seen.results):
        text = "token_weight" in seen.results
        return frozenset(), f"the {'targets are tokens' if text else 'objective has no target apart from its inputs'}"
    _, answers = fields_read(probe.objective, batch, probe.start.params, seen.returned)
    source = probe.experiment.sources["train"]
    named = {*answers, *_targets(probe.experiment.config.objective)} & set(source.spec.example)
    return frozenset(named), "" if named else "the target is made by the transforms, so its rows can't be exchanged"


def _targets(node: ConfigDict) -> list[str]:
    """Return what an objective, or one within it, names as its target."""
    inner = [name for value in node.values() if isinstance(value, ConfigDict) for name in _targets(value)]
    named = node.target if "target" in node and isinstance(node.target, str) else ""
    return [named, *inner] if named else inner


def _splits(probe: Probe) -> tuple[Source, Source]:
    """Return some training rows, and those to judge by: of the validation split, or else held out of the training."""
    sources, seed = probe.experiment.sources, probe.experiment.config.seed
    train_N = rng.host(seed, "sanity", 0).permutation(len(sources["train"]))
    if "valid" in sources:
        valid_N = rng.host(seed, "sanity", 1).permutation(len(sources["valid"]))[:_MOST_JUDGED]
        return _part(sources["train"], train_N[:_MOST_TRAIN]), _part(sources["valid"], valid_N)
    held = min(len(train_N) // 2, _MOST_JUDGED)
    return _part(sources["train"], train_N[held:][:_MOST_TRAIN]), _part(sources["train"], train_N[:held])


def _part(source: Source, rows_N: np.ndarray) -> Exchanged:
    rows_N = np.sort(rows_N)
    return Exchanged(source, rows_N, rows_N, frozenset())


def _half(probe: Probe) -> float:
    return time.monotonic() + probe.left() / 2


def _trained(
    probe: Probe, source: Source, fields: frozenset[str], rate: float, *, shuffle: bool, until: float
) -> tuple[TrainState, int]:
    """Return the state after training from the beginning on a source, and its steps."""
    seed, rows_N = probe.experiment.config.seed, np.arange(len(source))
    from_N = rng.host(seed, "sanity", 2).permutation(len(source)) if shuffle else rows_N
    exchanged = Exchanged(source, rows_N, from_N, fields)
    batches = Batches(exchanged, probe.experiment.transforms, min(probe.rows, len(source)), seed, training=True)
    state, _, ran = probe.train(probe.fresh(rate), lambda number: on_device(batches[number]), probe.steps, until)
    return state, ran


def _judged_batches(probe: Probe, source: Source) -> list[Batch]:
    batches = Batches(source, probe.experiment.transforms, probe.rows, probe.experiment.config.seed, training=False)
    return [on_device(batches[number]) for number in range(len(batches))]


def _seen(probe: Probe, state: TrainState, batches: list[Batch]) -> tuple[Batch, Results]:
    """Return all real rows as one batch, and what the model returned for them."""
    real = np.concatenate([np.asarray(batch["mask"]) for batch in batches]) > 0
    returned = [probe.see(state, batch).returned for batch in batches]

    def joined(*parts: Array) -> Array:
        return jnp.concatenate(parts)[real]

    return jax.tree.map(joined, *batches), jax.tree.map(joined, *returned)


def _losses(probe: Probe, batch: Batch, returned: Results, state: TrainState) -> Losses:
    """Return the objective's loss of each row on its own."""

    def one(row: Batch, results: Results) -> tuple[Array, Array]:
        row, results = jax.tree.map(lambda x: x[None], (row, results))
        loss = probe.objective(Given(results, state.params), row)
        return loss.total, loss.weight

    totals, weight_N = jax.jit(jax.vmap(one))(batch, returned)
    return Losses(np.asarray(totals, np.float64), float(np.sum(weight_N)))
