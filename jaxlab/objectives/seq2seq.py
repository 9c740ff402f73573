"""Sequence to sequence by teacher forcing: from the source and the target so far, the target's next token.

Knows the model by its ``logits`` [B, T - 1, V] alone. Shape letters: B batch, T target positions, V vocabulary.
Usage: ``config.objective = spec("jaxlab.objectives.seq2seq:make", label_smoothing=0.1)``.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Apply, Batch, DataSpec, Loss, Objective
from jaxlab.objectives.fields import check, check_inputs, check_not_negative, check_share, has_field
from jaxlab.objectives.language import token_loss


def make(
    data: DataSpec,
    inputs: tuple[str, ...] = ("source", "source_mask", "target"),
    target: str = "target",
    target_mask: str = "target_mask",
    begin: str = "",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Objective:
    """Return the objective of teacher forcing (Sutskever et al. 2014, arXiv 1409.3215); its mean is over tokens.

    The target's tokens begin with ``bos`` and end with ``eos``, as the tokenizers write them with ``begin=True`` and
    ``end=True``. The model reads ``target[:, :-1]`` and is to predict ``target[:, 1:]``: never ``bos``, always ``eos``.
    Results are those of `jaxlab.objectives.language.causal`, of T - 1 positions.

    Args:
      data: has the fields; with `begin`, its fact ``specials`` gives the id.
      inputs: batch fields, passed to the model in this order, `target` and, if named, `target_mask` without their last
        position.
      target: the field of target tokens [B, T].
      target_mask: the field that is 1 at real target tokens; without such a field all are real.
      begin: the special token to put before each target, such as ``bos``, where the data was tokenised without one;
        the model then reads T positions. Empty is none.
      label_smoothing: share of the target's probability that is spread over the vocabulary; 0.1 in Vaswani et al.
        2017, arXiv 1706.03762, section 5.4.
      z_loss: see `jaxlab.objectives.language.causal`.

    Raises:
      ConfigError: a field or a special token that the data does not have, a smoothing that is no share, or a negative
        `z_loss`.
    """
    has_mask = has_field(data, target_mask, "target_mask")
    check_inputs(data, inputs, target)
    check("inputs", inputs, target in inputs, f"the target's field {target!r} among them: the model reads it shifted")
    check_share("label_smoothing", label_smoothing)
    check_not_negative("z_loss", z_loss)
    first = _id_of(data, begin) if begin else None

    def objective(apply: Apply, batch: Batch) -> Loss:
        token_BT = batch[target]
        mask_BT = batch[target_mask] if has_mask else jnp.ones(token_BT.shape, jnp.float32)
        if first is not None:
            token_BT = jnp.pad(token_BT, ((0, 0), (1, 0)), constant_values=first)
            mask_BT = jnp.pad(mask_BT, ((0, 0), (1, 0)), constant_values=1)
        read = {**batch, target: token_BT[:, :-1], target_mask: mask_BT[:, :-1]}
        outputs, model_state = apply(*(read[field] for field in inputs))
        return token_loss(outputs, model_state, token_BT[:, 1:], mask_BT[:, 1:], batch["mask"], label_smoothing, z_loss)

    return objective


def _id_of(data: DataSpec, special: str) -> int:
    specials = data.meta.get("specials", {})
    if special not in specials:
        raise ConfigError(
            f"begin={special!r}: the data's tokenizer has no such special token{did_you_mean(special, specials)}"
        )
    return int(specials[special])
