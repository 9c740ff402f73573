"""Ranking for recommenders: the chosen item's score above those of items that were not chosen, the negatives.

Negatives are the batch's field `negatives` [B, ..., N], drawn where batches are made, so that they are a function of
seed, step and row; or the other rows' items: `shifts` of them in turn. A negative that is the chosen item itself, or
another row's where that row is padding, does not count.
Shape letters: B batch, N negatives, D width; an item's field is [B], or [B, T] for each step of a sequence.
Usage: ``config.objective = spec("jaxlab.objectives.rank:bpr", shifts=8)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Apply, Array, Batch, DataSpec, Loss, Objective
from jaxlab.objectives.fields import (
    blank,
    check,
    check_inputs,
    check_not_negative,
    check_positive,
    check_shapes,
    over,
    result_of,
    weighted_sum,
)  # fmt: skip


def bpr(
    data: DataSpec,
    inputs: tuple[str, ...] = ("user", "item"),
    item: str = "item",
    negatives: str = "negatives",
    shifts: int = 0,
    weights: str = "",
) -> Objective:
    """Return the objective of Bayesian personalised ranking (Rendle et al. 2009, arXiv 1205.2618, section 4).

    -log sigmoid(score - negative's score), the mean over a row's negatives; a row all of whose negatives are no
    negatives has no weight. The model is called with the `inputs` and the negatives, and returns ``score`` like the
    item's field and ``negative_scores`` with an axis N more.

    Args:
      data: has the fields.
      inputs: batch fields, passed to the model in this order, before the negatives.
      item: the field of chosen items' ids.
      negatives: the field of other items' ids, an axis N more than `item`; not read where there are `shifts`.
      shifts: N rows after a row that lend it their items as negatives; 0 reads the field. Rows are those that
        the objective sees, of one microbatch and under pmap of one device, so sums over parts of a batch do not add up.
      weights: the field that is 1 where there is an item, such as a sequence's mask; empty counts all.

    Raises:
      ConfigError: a field that the data does not have, or negative `shifts`.
    """
    draw = _drawer(data, inputs, item, negatives, shifts, weights)

    def objective(apply: Apply, batch: Batch) -> Loss:
        negative, valid, weight = draw(batch)
        outputs, model_state = apply(*(batch[field] for field in inputs), negative)
        score, other = _scores(outputs, negative, weight)
        pair = valid & (negative != batch[item][..., None])
        loss = jnp.sum(jnp.where(pair, jax.nn.softplus(other - score[..., None]), 0.0), axis=-1)
        weight = weight * pair.any(axis=-1)
        return Loss(
            weighted_sum(loss / jnp.maximum(pair.sum(axis=-1), 1), weight), jnp.sum(weight), outputs, model_state
        )

    return objective


def sampled_softmax(
    data: DataSpec,
    inputs: tuple[str, ...] = ("user", "item"),
    item: str = "item",
    negatives: str = "negatives",
    shifts: int = 0,
    weights: str = "",
    correction: str = "none",
    items: int = 0,
) -> Objective:
    """Return the objective of a softmax over the chosen item and N others, which stand for the whole catalogue.

    The model is called as by `bpr`. With `correction` a negative's score loses log(N q), q being how likely each draw
    was to give it (Bengio & Senécal 2008; Blanc & Rendle 2018, arXiv 1712.00527, equation 3): then the sum in the
    softmax's denominator is, in expectation, that over all items, and the model learns log-probabilities.

    Args:
      data: has the fields.
      inputs: as in `bpr`.
      item: as in `bpr`.
      negatives: as in `bpr`.
      shifts: as in `bpr`; they draw items as often as rows have them, ``popularity``.
      weights: as in `bpr`.
      correction: how negatives are drawn: ``uniform`` among the items, by ``popularity``, which are their counts in the
        data's fact ``counts:ITEM``, or ``none`` for no correction.
      items: number of items, for ``uniform``; 0 takes it from the data's fact ``categories:ITEM``.

    Raises:
      ConfigError: a field that the data does not have, negative `shifts`, no such correction or what it needs.
    """
    draw = _drawer(data, inputs, item, negatives, shifts, weights)
    corrections: Mapping[str, Callable[[], Callable[[Array], Array | float]]] = {
        "none": lambda: lambda _: 0.0,
        "uniform": lambda: _uniform(data, item, items),
        "popularity": lambda: _popularity(data, item),
    }
    if correction not in corrections:
        raise ConfigError(f"correction={correction!r}: no such correction{did_you_mean(correction, corrections)}")
    log_q, counted = corrections[correction](), correction != "none"

    def objective(apply: Apply, batch: Batch) -> Loss:
        negative, valid, weight = draw(batch)
        outputs, model_state = apply(*(batch[field] for field in inputs), negative)
        score, other = _scores(outputs, negative, weight)
        drawn = jnp.maximum(valid.sum(axis=-1, keepdims=True), 1) if counted else 1
        other = jnp.where(
            valid & (negative != batch[item][..., None]), other - jnp.log(drawn) - log_q(negative), -jnp.inf
        )
        every = jnp.concatenate([score[..., None], other], axis=-1)
        loss = jax.nn.logsumexp(every, axis=-1) - score
        return Loss(weighted_sum(loss, weight), jnp.sum(weight), outputs, model_state)

    return objective


def in_batch_softmax(
    data: DataSpec,
    inputs: tuple[str, ...] = ("user", "item"),
    item: str = "item",
    temperature: float = 1.0,
    log_q: float = 0.0,
) -> Objective:
    """Return the objective of two towers: each row's candidate among the candidates of all rows of the batch.

    The model returns ``query`` [B, D] and ``candidate`` [B, D]; the score is their product over `temperature`. Rows
    with the same item are no negatives of each other. The other rows are those that the objective sees: of one
    microbatch, and under pmap of one device, so sums over parts of a batch do not add up. Results, beside the
    model's: ``score`` [B].

    Args:
      data: has the fields.
      inputs: batch fields, passed to the model in this order.
      item: the field of the candidates' ids [B], by which equal ones are told.
      temperature: what scores are divided by; small for vectors of length 1.
      log_q: factor of the log of an item's share of the draws, taken off its score within the loss (Yi et al. 2019,
        "Sampling-Bias-Corrected Neural Modeling", section 4): 1 corrects that popular items are more often negatives.
        It needs the data's fact ``counts:ITEM``.

    Raises:
      ConfigError: a field that the data does not have, a temperature that is not positive, a negative `log_q`, or one
        without counts.
    """
    check_inputs(data, inputs, item)
    check_positive("temperature", temperature)
    check_not_negative("log_q", log_q)
    share = _popularity(data, item) if log_q else None

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        item_B, mask_B = batch[item], batch["mask"]
        query_BD, candidate_BD = (blank(result_of(outputs, name), mask_B) for name in ("query", "candidate"))
        score_BC = jnp.einsum("BD,CD->BC", query_BD, candidate_BD) / temperature
        same = jnp.eye(len(item_B), dtype=bool)
        negative_BC = (item_B[:, None] != item_B) & (mask_B > 0)
        adjusted_BC = score_BC if share is None else score_BC - log_q * share(item_B)
        chosen_B = jnp.diagonal(adjusted_BC)
        loss_B = jax.nn.logsumexp(jnp.where(same | negative_BC, adjusted_BC, -jnp.inf), axis=-1) - chosen_B
        results = {**outputs, "score": jnp.diagonal(score_BC)}
        return Loss(weighted_sum(loss_B, mask_B), jnp.sum(mask_B), results, model_state)

    return objective


Draw = Callable[[Batch], tuple[Array, Array, Array]]  # the negatives, which of them are real, and the rows' weights


def _drawer(data: DataSpec, inputs: tuple[str, ...], item: str, negatives: str, shifts: int, weights: str) -> Draw:
    """Return the function from a batch to its negatives [B, ..., N]."""
    check_inputs(data, inputs, item, *((weights,) if weights else ()))
    check("shifts", shifts, shifts >= 0, "a number of 0 or more")
    if not shifts and negatives not in data.example:
        known = f"{', '.join(data.example)}{did_you_mean(negatives, data.example)}"
        raise ConfigError(f"negatives={negatives!r}: the data has {known}; or take other rows' items with shifts=8")

    def draw(batch: Batch) -> tuple[Array, Array, Array]:
        item_B, mask_B = batch[item], batch["mask"]
        weight = jnp.broadcast_to(over(mask_B, item_B.ndim), item_B.shape)
        if weights:
            weight = weight * blank(batch[weights].astype(jnp.float32), mask_B)
        if not shifts:
            return batch[negatives], jnp.ones(batch[negatives].shape, bool), weight
        rolled = [jnp.roll(x, -n, axis=0) for x in (item_B, weight) for n in range(1, shifts + 1)]
        within = jnp.arange(1, shifts + 1) < len(item_B)  # a row lends nothing to itself, nor anything twice
        valid = (jnp.stack(rolled[shifts:], axis=-1) > 0) & within
        return jnp.stack(rolled[:shifts], axis=-1), valid, weight

    return draw


def _scores(outputs: Mapping[str, Array], negative: Array, weight: Array) -> tuple[Array, Array]:
    score, other = result_of(outputs, "score"), result_of(outputs, "negative_scores")
    check_shapes("the model's score", score.shape, weight.shape)
    check_shapes("the model's negative_scores", other.shape, negative.shape)
    return blank(score, weight), blank(other, weight)


def _uniform(data: DataSpec, item: str, items: int) -> Callable[[Array], Array | float]:
    count = items or len(data.meta.get(f"categories:{item}", ()))
    check("items", items, count > 0, f"their number, as the data has no fact 'categories:{item}'")
    return lambda _: -float(np.log(count))


def _popularity(data: DataSpec, item: str) -> Callable[[Array], Array]:
    """Return the function from items' ids to the logs of their shares; one that was never seen counts as seen once."""
    counts = data.meta.get(f"counts:{item}", ())
    if not counts:
        known = ", ".join(data.meta) or "no facts"
        raise ConfigError(f"the items' popularity needs the data's fact 'counts:{item}', one a item (it has {known})")
    seen = np.maximum(np.asarray(counts, np.float32), 1)
    log_I = jnp.asarray(np.log(seen / seen.sum()))
    return lambda ids: log_I[ids]
