"""Language modelling: the next token (causal) or hidden tokens (masked), each token counted once.

Knows the model by its ``logits`` [B, T, V] alone. Shape letters: B batch, T positions, V vocabulary.
Usage: ``config.objective = spec("jaxlab.objectives.language:causal", z_loss=1e-4)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlab.core.types import Apply, Array, Batch, DataSpec, Loss, Objective, Outputs, PyTree
from jaxlab.objectives.fields import (
    blank,
    check_fields,
    check_inputs,
    check_not_negative,
    check_shapes,
    check_share,
    has_field,
    over,
    result_of,
    weighted_sum,
)  # fmt: skip


def causal(
    data: DataSpec,
    inputs: tuple[str, ...] = ("tokens",),
    tokens: str = "tokens",
    token_mask: str = "token_mask",
    targets: str = "targets",
    target_mask: str = "target_mask",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Objective:
    """Return the objective that predicts each next token; its mean is the mean over tokens, not over rows.

    Packed rows say in `targets` and `target_mask` what comes next (a document's last token has no next one); of other
    rows the target is the token to the right, where both are real. So for sequences of items too, as of a recommender.
    Results, beside the model's: ``target``, ``prediction``, ``token_loss`` (-log p in nats, whatever the options) and
    ``token_weight`` (0 where there is nothing to predict), all [B, T].

    Args:
      data: its fields decide which of the two it is.
      inputs: batch fields, passed to the model in this order; those of packed rows need ``segments`` among them, lest
        documents see each other.
      tokens: the field of token ids [B, T].
      token_mask: the field that is 1 at real tokens; without such a field all are real.
      targets: the field of what to predict [B, T], if there is one.
      target_mask: the field that is 1 where `targets` are to be predicted.
      label_smoothing: share of the target's probability that is spread over the vocabulary (arXiv 1512.00567).
      z_loss: factor of the squared log of the softmax's denominator, which keeps logits from drifting (Chowdhery et
        al. 2022, arXiv 2204.02311, section 5, with 1e-4); 0 is none.

    Raises:
      ConfigError: a field that the data does not have, a smoothing that is no share, or a negative `z_loss`.
    """
    check_inputs(data, inputs)
    has_mask = has_field(data, token_mask, "token_mask")
    given = has_field(data, targets, "targets")
    check_fields(data, *((targets, target_mask) if given else (tokens,)))
    _check_options(label_smoothing, z_loss)

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        if given:
            target_BT, weight_BT = batch[targets], batch[target_mask]
        else:
            target_BT, weight_BT = shifted(batch[tokens], batch[token_mask] if has_mask else None)
        return token_loss(outputs, model_state, target_BT, weight_BT, batch["mask"], label_smoothing, z_loss)

    return objective


def masked(
    data: DataSpec,
    inputs: tuple[str, ...] = ("tokens", "token_mask"),
    targets: str = "targets",
    target_mask: str = "target_mask",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Objective:
    """Return the objective that predicts the tokens that were hidden (Devlin et al. 2018, arXiv 1810.04805).

    `jaxlab.data.text_noise.span_masking` hides them; as one of ``data.transforms`` it does so in evaluation too. Its
    results are those of `causal`.

    Args:
      data: has `targets`, what the tokens were, and `target_mask`, 1 where they are to be predicted.
      inputs: batch fields, passed to the model in this order.
      targets: the field of what to predict [B, T].
      target_mask: the field that is 1 where it is to be predicted.
      label_smoothing: as in `causal`.
      z_loss: as in `causal`.

    Raises:
      ConfigError: a field that the data does not have, a smoothing that is no share, or a negative `z_loss`.
    """
    check_inputs(data, inputs, targets, target_mask)
    _check_options(label_smoothing, z_loss)

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        return token_loss(
            outputs, model_state, batch[targets], batch[target_mask], batch["mask"], label_smoothing, z_loss
        )

    return objective


def shifted(token_BT: Array, mask_BT: Array | None) -> tuple[Array, Array]:
    """Return each position's next token [B, T] and the weight that is 1 where both are real; the last has none."""
    mask_BT = jnp.ones(token_BT.shape, jnp.float32) if mask_BT is None else mask_BT
    after = ((0, 0), (0, 1))
    return jnp.pad(token_BT[:, 1:], after), jnp.pad(mask_BT[:, 1:] * mask_BT[:, :-1], after)


def token_loss(
    outputs: Outputs, model_state: PyTree, target_BT: Array, weight_BT: Array, mask_B: Array,
    label_smoothing: float, z_loss: float,
) -> Loss:  # fmt: skip
    """Return the summed cross-entropy of ``logits`` [B, T, V] and targets, without a one-hot of the vocabulary.

    With Z the softmax's denominator, -log p(t) is log Z - logit(t), so the mean over the vocabulary that smoothing
    needs is log Z less the mean logit.
    """
    weight_BT = jnp.where(over(mask_B, 2) > 0, weight_BT * over(mask_B, 2), 0.0)
    logits_BTV = result_of(outputs, "logits")
    check_shapes("the model's logits", logits_BTV.shape[:-1], target_BT.shape)
    logits_BTV, target_BT = blank(logits_BTV, weight_BT), blank(target_BT, weight_BT)
    picked_BT = jnp.take_along_axis(logits_BTV, target_BT[..., None], axis=-1)[..., 0]
    log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    loss_BT = plain_BT = log_z_BT - picked_BT
    if label_smoothing:
        loss_BT = loss_BT + label_smoothing * (picked_BT - logits_BTV.mean(axis=-1))
    if z_loss:
        loss_BT = loss_BT + z_loss * jnp.square(log_z_BT)
    results = {
        **outputs, "target": target_BT, "prediction": jnp.argmax(logits_BTV, axis=-1).astype(jnp.int32),
        "token_loss": plain_BT, "token_weight": weight_BT,
    }  # fmt: skip
    return Loss(weighted_sum(loss_BT, weight_BT), jnp.sum(weight_BT), results, model_state)


def _check_options(label_smoothing: float, z_loss: float) -> None:
    check_share("label_smoothing", label_smoothing)
    check_not_negative("z_loss", z_loss)
