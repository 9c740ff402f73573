"""Regularisers: objectives around an objective, which add a penalty to its loss and compose with each other.

A penalty is a sum over the same weights as the loss, so that dividing by the whole weight gives its mean, for any
number of devices and microbatches.
Usage: ``config.objective = spec("jaxlab.objectives.regularise:l2", objective=config.objective)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlab.core.errors import ConfigError
from jaxlab.core.tree import match, named_leaves
from jaxlab.core.types import Apply, Array, Batch, Loss, Objective, Rules
from jaxlab.objectives.fields import blank, check_not_negative, result_of, weighted_sum, weights_of


def l2(objective: Objective, rules: Rules = ((".*/kernel", 1e-4), (".*", 0.0))) -> Objective:
    """Return `objective` plus a coefficient times the sum of squares of each parameter (Krogh & Hertz 1991).

    The gradient is 2 · coefficient · parameter, which an adaptive optimizer scales as the rest: where that is not
    wanted, the optimizer's decoupled weight decay is the better choice (Loshchilov & Hutter 2017, arXiv 1711.05101).

    Args:
      objective: what is regularised.
      rules: ordered (regular expression, coefficient) over the parameters' names; the first full match decides.

    Raises:
      ConfigError: a coefficient that is negative or no number; and when first called, a parameter without a rule.
    """
    match(rules, ())  # now, as the parameters' names come later
    for pattern, coefficient in rules:
        if isinstance(coefficient, bool) or not isinstance(coefficient, int | float):
            raise ConfigError(f"rules: {coefficient!r} for {pattern!r}; expected a number of 0 or more")
        check_not_negative(f"rules: {pattern!r}", coefficient)

    def regularised(apply: Apply, batch: Batch) -> Loss:
        loss = objective(apply, batch)  # first: parameters exist once the model has been called
        leaves = named_leaves(apply.params)
        coefficients = match(rules, leaves)
        squares = [c * jnp.sum(jnp.square(leaves[name])) for name, c in coefficients.items() if c]
        return loss._replace(total=loss.total + loss.weight * sum(squares, jnp.zeros(())))

    return regularised


def activation(
    objective: Objective, output: str = "embedding", coefficient: float = 1e-4, weights: str = "mask"
) -> Objective:
    """Return `objective` plus a coefficient times the mean square of one of its results.

    Small activations, as of a recurrent network's outputs (Merity et al. 2017, arXiv 1708.01009, section 4).

    Args:
      objective: what is regularised.
      output: the result [B, ...].
      coefficient: factor of the mean square.
      weights: the result or batch field of the loss's own weights, whose axes are the first of the output's: ``mask``
        [B] for losses a row, ``token_weight`` [B, T] for those a token.

    Raises:
      ConfigError: a negative coefficient; and when first called, no such result or weights.
    """
    check_not_negative("coefficient", coefficient)

    def regularised(apply: Apply, batch: Batch) -> Loss:
        loss = objective(apply, batch)
        weight = weights_of(loss.outputs, batch, weights)
        value = blank(result_of(loss.outputs, output), weight)
        square = jnp.mean(jnp.square(value), axis=tuple(range(weight.ndim, value.ndim)))
        return loss._replace(total=loss.total + coefficient * weighted_sum(square, weight))

    return regularised


def consistency(
    objective: Objective, coefficient: float = 1.0, weights: str = "mask", output: str = "logits"
) -> Objective:
    """Return the mean of two passes of `objective` plus how far apart their predictions are (R-Drop).

    Liang et al. 2021, arXiv 2106.14448, equation 4, halved: (KL(p ‖ q) + KL(q ‖ p)) / 2 between the softmaxes p and q
    of the passes, which differ by the model's dropout alone; their alpha is twice the coefficient. In evaluation the
    passes are equal and the loss is that of `objective`. Results and the model's state are the first pass's.

    Args:
      objective: what is regularised; it calls the model twice as often.
      coefficient: factor of the divergence.
      weights: as in `activation`.
      output: the result with the logits [B, ..., C].

    Raises:
      ConfigError: a negative coefficient; and when first called, no such result or weights.
    """
    check_not_negative("coefficient", coefficient)

    def regularised(apply: Apply, batch: Batch) -> Loss:
        first, second = objective(apply, batch), objective(apply, batch)
        weight = weights_of(first.outputs, batch, weights)
        logits = [blank(result_of(loss.outputs, output), weight) for loss in (first, second)]
        total = (first.total + second.total) / 2 + coefficient * weighted_sum(_divergence(*logits), weight)
        return first._replace(total=total, weight=(first.weight + second.weight) / 2)

    return regularised


def _divergence(one: Array, other: Array) -> Array:
    """Return the mean of the two Kullback-Leibler divergences, which is the sum of (p - q) (log p - log q) / 2."""
    log_p, log_q = jax.nn.log_softmax(one), jax.nn.log_softmax(other)
    return jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q), axis=-1) / 2
