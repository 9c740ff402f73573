"""The check of ``sanity`` that a model learns one batch by heart, judged in evaluation mode.

Loss is measured between two of the objective's own: the best that the same results for all rows have (of zeros, where
the objective has no target), and the lowest that any results have, which label smoothing keeps from 0.
Usage: ``finding, rate = overfit(probe)``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.core.types import Array, Batch, TrainState
from jaxlab.run.sanity_probe import CUT, FAILED, NOT_APPLICABLE, PASSED, WARNING, Finding, Probe, Seen, has_labels
from jaxlab.run.sanity_stand_ins import best_results, loss_of, zeros

RATES = (1e-3, 1e-2)  # of Adam, without a schedule and weight decay, which would hide what is looked for
_ENOUGH = 0.9  # of the way from knowing nothing to knowing all
_ENOUGH_PAID = 0.5  # of it where results pay for what they tell of a row, as a variational code does: all is too dear
_SOME = 0.1  # of it shows that something is learnt, where the objective has no target
_EXPLAINED = 0.95  # of the target's variance, for likelihoods that have no lowest loss
_LOOK_EVERY = 20  # steps
_SETTLE = 200  # steps in which running averages catch up with parameters that stay
_SHARE = 0.5  # of the time that is left, where trainings on labels follow


class Ends(NamedTuple):
    """The mean losses of knowing nothing about a row, and of knowing all."""

    nothing: float
    everything: float

    def closed(self, loss: float) -> float:
        """Return how much of the way from nothing to everything a loss has gone, at most 1."""
        return (self.nothing - loss) / (self.nothing - self.everything)


def overfit(probe: Probe) -> tuple[Finding, float]:
    """Train on one batch at each rate in turn until it is known; return the finding and the rate that did best."""
    batch = probe.batch(0)
    seen = probe.see(probe.start, batch)
    until = time.monotonic() + probe.left() * (_SHARE if has_labels(seen.results) else 1)
    ends = _ends(probe, batch, seen)
    numbers = {"nothing": ends.nothing, "everything": ends.everything, "rows": probe.rows}
    if not ends.nothing - ends.everything > 1e-3 * max(abs(ends.nothing), 1e-6):
        return Finding("overfit", NOT_APPLICABLE, "the batch is known without a look at its rows", numbers), RATES[0]
    tries = []
    for rate in RATES:
        found = _learn(probe, batch, rate, ends, until)
        tries.append(found)
        if found["known"] or time.monotonic() > until:
            break
    best = max(tries, key=lambda found: (found["known"], found["closed"]))
    numbers |= {name: best[name] for name in ("rate", "steps", "loss", "closed", "explained") if name in best}
    verdict, meaning = _verdict(best, tries, probe.steps)
    if verdict == FAILED and "target" not in seen.results and best["closed"] > _SOME:
        verdict = WARNING  # how much can be had is not known: vectors of length 1 have no scores as large as they like
    return Finding("overfit", verdict, meaning, numbers), best["rate"]


def _verdict(best: Mapping[str, float], tries: Sequence[Mapping[str, float]], steps: int) -> tuple[str, str]:
    share = f"{best['closed']:.0%} of the way from knowing nothing to knowing all"
    if best["known"]:
        return PASSED, f"one batch is learnt by heart in {best['steps']:.0f} steps at the rate {best['rate']:g}"
    if len(tries) < len(RATES) or min(found["steps"] for found in tries) < steps:
        return CUT, f"one batch was learnt {share} when the time was up; give more by --seconds"
    if best["falling"]:
        return WARNING, f"one batch is learnt {share} in {steps} steps and still getting better; give more by --steps"
    if max(found["train_closed"] for found in tries) > _ENOUGH:
        return FAILED, (
            f"one batch is learnt in training but not in evaluation ({share}); look at the running averages, and at "
            "what the model does with train=False"
        )
    return FAILED, (
        f"one batch can't be learnt by heart ({share}); look at whether the loss reaches every layer, whether inputs "
        "tell the rows apart, and whether the model is large enough"
    )


def _ends(probe: Probe, batch: Batch, seen: Seen) -> Ends:
    params = probe.start.params
    if "target" in seen.results:
        nothing, _ = best_results(probe.objective, batch, params, seen.returned, constant=True)
    else:  # such as of pairs: the same scores for all rows may be the best there are, though no model can give them
        nothing = loss_of(probe.objective, zeros(seen.returned), batch, params)
    everything, _ = best_results(probe.objective, batch, params, seen.returned, constant=False)
    return Ends(nothing, everything)


def _learn(probe: Probe, batch: Batch, rate: float, ends: Ends, until: float) -> dict[str, float]:
    """Return how far training on one batch came: steps, loss, share closed, and whether it was still falling."""
    state, losses, trained = probe.fresh(rate), [], -math.inf
    found: dict[str, float] = {"known": False}
    for done in range(0, probe.steps, _LOOK_EVERY):
        count = min(_LOOK_EVERY, probe.steps - done)
        state, statistics, ran = probe.train(state, lambda _: batch, count, until)
        if statistics is not None:
            trained = ends.closed(float(statistics["loss"]["sum"] / statistics["loss"]["weight"]))
        last = ran < count or done + count >= probe.steps
        if state.model_state and (trained > _ENOUGH or last):
            found = _settled(probe, state, batch, ends, until)
        else:
            found = _judged(probe, state, batch, ends)
        found |= {"steps": done + ran, "rate": rate, "train_closed": trained}
        losses.append(found["closed"])
        if found["known"] or last:
            break
    half = losses[len(losses) // 2 :]
    return {**found, "falling": found["closed"] > 0.5 and half[-1] > half[0] + 0.05}


def _settled(probe: Probe, state: TrainState, batch: Batch, ends: Ends, until: float) -> dict[str, float]:
    """Judge a state after its running averages have caught up with it: training steps at a rate of 0."""
    still = state.replace(opt_state={**state.opt_state, "rate": state.opt_state["rate"] * 0})
    found = _judged(probe, still, batch, ends)
    for _ in range(0, _SETTLE, _LOOK_EVERY):
        if found["known"]:
            break
        still, _, _ = probe.train(still, lambda _: batch, _LOOK_EVERY, until)
        found = _judged(probe, still, batch, ends)
    return found


def _judged(probe: Probe, state: TrainState, batch: Batch, ends: Ends) -> dict[str, float]:
    seen = probe.see(state, batch)
    loss = float(seen.loss)
    closed = ends.closed(loss) if math.isfinite(loss) else -math.inf
    enough = _ENOUGH_PAID if "kl" in seen.results else _ENOUGH
    found = {"loss": loss, "closed": closed, "known": closed >= enough}
    explained = _explained(seen.results)
    if explained is not None:
        found |= {"explained": explained, "known": found["known"] or explained >= _EXPLAINED}
    return found


def _explained(results: Mapping[str, Array]) -> float | None:
    """Return the share of the target's variance that the prediction explains; None where they are no numbers alike."""
    if not {"target", "prediction", "target_weight"} <= set(results):
        return None
    target, prediction, weight = (np.asarray(results[n], np.float64) for n in ("target", "prediction", "target_weight"))
    if not weight.sum() or not np.isfinite(prediction).all():
        return None
    spread = np.average((target - np.average(target, weights=weight)) ** 2, weights=weight)
    return float(1 - np.average((target - prediction) ** 2, weights=weight) / spread) if spread else None
