"""Distillation: a student learns from a teacher's probabilities, which the batch brings along.

Knows the model by its ``logits`` alone, and the teacher not at all. Shape letters: B batch, C classes.
Usage: ``config.objective = spec("jaxlab.objectives.distill:make", temperature=4.0, soft=0.9)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlab.core.types import Apply, Batch, DataSpec, Loss, Objective
from jaxlab.objectives.fields import (
    blank,
    check_inputs,
    check_positive,
    check_shapes,
    check_share,
    result_of,
    weighted_sum,
)  # fmt: skip


def make(
    data: DataSpec,
    inputs: tuple[str, ...] = ("image",),
    target: str = "label",
    teacher: str = "teacher_logits",
    temperature: float = 2.0,
    soft: float = 0.9,
) -> Objective:
    """Return the objective (1 - soft) · cross-entropy of `target` + soft · T² · KL(teacher ‖ student), both at T.

    T² keeps the two gradients' proportion whatever T is (Hinton et al. 2015, arXiv 1503.02531, section 2). Results,
    beside the model's: ``target``, ``prediction`` and ``divergence``, the KL without its factors, all [B].

    Args:
      data: its ``classes`` give C.
      inputs: batch fields, passed to the model in this order.
      target: the batch field with class indices [B].
      teacher: the batch field with the teacher's logits [B, C].
      temperature: T, what both sides' logits are divided by.
      soft: the teacher's share of the loss.

    Raises:
      ConfigError: a field that the data does not have, a temperature that is not positive, or a `soft` that is no
        share.
    """
    classes = len(data.classes)
    check_inputs(data, inputs, target, teacher)
    taught = data.example.get(teacher)
    check_shapes(f"the data's {teacher}", taught.shape if taught else (), (classes,))
    check_positive("temperature", temperature)
    check_share("soft", soft)

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        label_B, mask_B = batch[target], batch["mask"]
        logits_BC = blank(result_of(outputs, "logits"), mask_B)
        check_shapes("the model's logits", logits_BC.shape[1:], (classes,))
        taught_BC = jax.nn.log_softmax(blank(batch[teacher].astype(jnp.float32), mask_B) / temperature)
        learnt_BC = jax.nn.log_softmax(logits_BC / temperature)
        divergence_B = jnp.sum(jnp.exp(taught_BC) * (taught_BC - learnt_BC), axis=-1)
        hard_B = -jnp.sum(jax.nn.one_hot(label_B, classes) * jax.nn.log_softmax(logits_BC), axis=-1)
        loss_B = (1 - soft) * hard_B + soft * temperature**2 * divergence_B
        prediction_B = jnp.argmax(logits_BC, axis=-1).astype(jnp.int32)
        results = {**outputs, "target": label_B, "prediction": prediction_B, "divergence": divergence_B}
        return Loss(weighted_sum(loss_B, mask_B), jnp.sum(mask_B), results, model_state)

    return objective
