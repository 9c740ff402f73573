"""Contrastive learning: two views of an example are near each other, and far from the batch's other examples.

The other examples are those that the objective sees: of one microbatch, and under pmap of one device. So sums over
parts of a batch do not add up.
Shape letters: B batch, D width, N = 2B views, C candidates (B again).
Usage: ``config.objective = spec("jaxlab.objectives.contrast:make", first=("view",), second=("other_view",))``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlab.core.types import Apply, Array, Batch, DataSpec, Loss, Objective, Outputs
from jaxlab.objectives.fields import blank, check_inputs, check_positive, check_shapes, result_of, weighted_sum


def make(
    data: DataSpec,
    first: tuple[str, ...] = ("view",),
    second: tuple[str, ...] = ("other_view",),
    output: str = "embedding",
    temperature: float = 0.5,
) -> Objective:
    """Return the objective NT-Xent (SimCLR: Chen et al. 2020, arXiv 2002.05709, equation 1) of two calls of the model.

    For each of the 2B views, -log of the softmax of its cosine with the example's other view among those with all
    others, over `temperature`; an example's loss is the mean of its two views'. Results are those of the first call
    and ``other_embedding`` [B, D]; the model's state is as after the second call.

    Args:
      data: has the fields.
      first: batch fields of the first view, passed to the model in this order.
      second: those of the second; the same ones where the model's own noise makes the views (Gao et al. 2021).
      output: the model's result [B, D] to compare.
      temperature: what cosines are divided by.

    Raises:
      ConfigError: a field that the data does not have, or a temperature that is not positive.
    """
    check_inputs(data, first, option="first")
    check_inputs(data, second, option="second")
    check_positive("temperature", temperature)

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, _ = apply(*(batch[field] for field in first))
        others, model_state = apply(*(batch[field] for field in second))
        mask_B = batch["mask"]
        unit_ND = jnp.concatenate([_unit(results, output, mask_B) for results in (outputs, others)])
        cosine_NN = jnp.einsum("ND,MD->NM", unit_ND, unit_ND) / temperature
        self_NN, real_N = jnp.eye(len(unit_ND), dtype=bool), jnp.tile(mask_B > 0, 2)
        partner_N = jnp.roll(jnp.arange(len(unit_ND)), len(mask_B))
        partner_NN = partner_N[:, None] == jnp.arange(len(unit_ND))
        among_NN = (real_N & ~self_NN) | partner_NN  # a padded view keeps its partner, so that its log is finite
        chosen_N = jnp.take_along_axis(cosine_NN, partner_N[:, None], axis=1)[:, 0]
        loss_N = jax.nn.logsumexp(jnp.where(among_NN, cosine_NN, -jnp.inf), axis=-1) - chosen_N
        results = {**outputs, "other_embedding": others[output]}
        return Loss(weighted_sum(loss_N.reshape(2, -1).mean(0), mask_B), jnp.sum(mask_B), results, model_state)

    return objective


def paired(
    data: DataSpec,
    inputs: tuple[str, ...] = ("image", "tokens", "token_mask"),
    first: str = "image_embedding",
    second: str = "text_embedding",
    temperature: float = 0.07,
) -> Objective:
    """Return the symmetric InfoNCE (CLIP: Radford et al. 2021, arXiv 2103.00020, figure 3) of two results of one call.

    The mean of -log of the softmax of a pair's cosine over `temperature`, once among all seconds and once among all
    firsts.

    Args:
      data: has the fields.
      inputs: batch fields, passed to the model in this order.
      first: the model's result [B, D] of one side.
      second: that of the other.
      temperature: what cosines are divided by.

    Raises:
      ConfigError: a field that the data does not have, or a temperature that is not positive.
    """
    check_inputs(data, inputs)
    check_positive("temperature", temperature)

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        mask_B = batch["mask"]
        first_BD, second_CD = (_unit(outputs, name, mask_B) for name in (first, second))
        check_shapes(f"the model's {second}", second_CD.shape, first_BD.shape)
        cosine_BC = jnp.einsum("BD,CD->BC", first_BD, second_CD) / temperature
        real = (mask_B > 0) | jnp.eye(len(mask_B), dtype=bool)
        both = [jax.nn.logsumexp(jnp.where(real, x, -jnp.inf), axis=-1) for x in (cosine_BC, cosine_BC.T)]
        loss_B = (both[0] + both[1]) / 2 - jnp.diagonal(cosine_BC)
        return Loss(weighted_sum(loss_B, mask_B), jnp.sum(mask_B), outputs, model_state)

    return objective


def _unit(outputs: Outputs, name: str, mask_B: Array) -> Array:
    """Return vectors of length 1; zeros stay zeros, with a gradient of zeros."""
    value_BD = blank(result_of(outputs, name), mask_B)
    square_B1 = jnp.sum(jnp.square(value_BD), axis=-1, keepdims=True)
    return value_BD * jax.lax.rsqrt(jnp.maximum(square_B1, 1e-12))
