"""Reconstruction of an example from its code: autoencoders and variational autoencoders, and anomalies by them.

Results, beside the model's: ``score`` [B], high where an example is unlike those of training.
Shape letters: B batch, D numbers of the code; examples are [B, ...].
Usage: ``config.objective = spec("jaxlab.objectives.reconstruct:make", inputs=("features",))``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Apply, Array, Batch, DataSpec, Loss, Objective, Outputs
from jaxlab.objectives.fields import (
    blank,
    check_inputs,
    check_not_negative,
    check_positive,
    check_shapes,
    element_weights,
    result_of,
    weighted_sum,
)  # fmt: skip

Cost = Callable[[Array, Array], Array]  # of a reconstruction and its target: a number a number


def make(
    data: DataSpec,
    inputs: tuple[str, ...] = ("image",),
    target: str = "",
    target_mask: str = "",
    likelihood: str = "gaussian",
) -> Objective:
    """Return the objective of an autoencoder: how far its ``reconstruction`` [B, ...] is from `target`.

    The mean over all numbers of all examples; an example's ``score`` is the mean over its own.

    Args:
      data: has the fields.
      inputs: batch fields, passed to the model in this order.
      target: what is to be reconstructed [B, ...]; empty is the first of the `inputs`. Where that is the input without
        its noise, this is a denoising autoencoder (Vincent et al. 2008).
      target_mask: the field that is 1 where a number counts, of the target's shape or its first axes, such as a
        sequence's mask; empty counts all.
      likelihood: ``gaussian``, the squared difference; or ``bernoulli``, the cross-entropy of numbers from 0 to 1 of
        which the reconstruction is the logits (Hinton & Salakhutdinov 2006).

    Raises:
      ConfigError: a field that the data does not have, or no such likelihood.
    """
    target = _target(data, inputs, target, target_mask)
    cost_of = _chosen(likelihood, {"gaussian": squared, "bernoulli": bernoulli})

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        found, value, weight = _matched(outputs, batch, target, target_mask)
        cost, numbers = cost_of(found, value), tuple(range(1, value.ndim))
        score_B = jnp.sum(cost * weight, numbers) / jnp.maximum(jnp.sum(weight, numbers), 1)
        return Loss(weighted_sum(cost, weight), jnp.sum(weight), {**outputs, "score": score_B}, model_state)

    return objective


def elbo(
    data: DataSpec,
    inputs: tuple[str, ...] = ("image",),
    target: str = "",
    target_mask: str = "",
    likelihood: str = "gaussian",
    sigma: float = 1.0,
    beta: float = 1.0,
) -> Objective:
    """Return the objective of a variational autoencoder: minus the evidence's lower bound, in nats an example.

    -E[log p(x | z)] + beta · KL(q(z | x) ‖ N(0, 1)), the KL in closed form (Kingma & Welling 2013, arXiv 1312.6114,
    equations 3 and 10, appendix B), the expectation by the one z that the model drew for ``reconstruction``. Its mean
    over draws is at most log p(x), and is that where q is the true posterior. Also ``kl`` [B]; ``score`` is the loss.

    Args:
      data: has the fields.
      inputs: batch fields, passed to the model in this order; it returns ``reconstruction`` [B, ...] and of the code
        ``mean`` [B, D] and ``log_variance`` [B, D].
      target: as in `make`.
      target_mask: as in `make`.
      likelihood: ``gaussian`` around the reconstruction with standard deviation `sigma`, or ``bernoulli`` with the
        reconstruction as logits.
      sigma: in the target's units; smaller makes reconstructions count more.
      beta: factor of the KL (Higgins et al. 2017); only 1 gives a bound that can be reached.

    Raises:
      ConfigError: a field that the data does not have, no such likelihood, `sigma` not positive or `beta` negative.
    """
    target = _target(data, inputs, target, target_mask)
    check_positive("sigma", sigma)
    check_not_negative("beta", beta)
    cost_of = _chosen(likelihood, {"gaussian": gaussian(sigma), "bernoulli": bernoulli})

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        found, value, weight = _matched(outputs, batch, target, target_mask)
        mask_B = batch["mask"]
        mean_BD, log_BD = (blank(result_of(outputs, name), mask_B) for name in ("mean", "log_variance"))
        kl_B = 0.5 * jnp.sum(jnp.square(mean_BD) + jnp.expm1(log_BD) - log_BD, axis=-1)
        loss_B = jnp.sum(cost_of(found, value) * weight, tuple(range(1, value.ndim))) + beta * kl_B
        results = {**outputs, "kl": kl_B, "score": loss_B}
        return Loss(weighted_sum(loss_B, mask_B), jnp.sum(mask_B), results, model_state)

    return objective


def squared(found: Array, value: Array) -> Array:
    """Return the squared differences."""
    return jnp.square(found - value)


def bernoulli(logits: Array, value: Array) -> Array:
    """Return -log of a Bernoulli's probability of `value`, which may lie between 0 and 1."""
    return jax.nn.softplus(logits) - value * logits


def gaussian(sigma: float) -> Cost:
    """Return the function from means and values to -log of the density of N(mean, sigma²)."""
    return lambda mean, value: 0.5 * jnp.square((mean - value) / sigma) + math.log(sigma * math.sqrt(2 * math.pi))


def _chosen(likelihood: str, costs: Mapping[str, Cost]) -> Cost:
    if likelihood not in costs:
        raise ConfigError(f"likelihood={likelihood!r}: no such likelihood{did_you_mean(likelihood, costs)}")
    return costs[likelihood]


def _target(data: DataSpec, inputs: tuple[str, ...], target: str, target_mask: str) -> str:
    check_inputs(data, inputs, *(name for name in (target, target_mask) if name))
    return target or inputs[0]


def _matched(outputs: Outputs, batch: Batch, target: str, target_mask: str) -> tuple[Array, Array, Array]:
    """Return reconstruction, target and weight, all of the target's shape."""
    found, value = result_of(outputs, "reconstruction"), batch[target].astype(jnp.float32)
    check_shapes("the model's reconstruction", found.shape, value.shape)
    weight = element_weights(batch, value, target_mask)
    return blank(found, weight), blank(value, weight), weight
