"""Classification by softmax cross-entropy.

Shape letters: B batch, C classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Apply, Batch, DataSpec, Loss, Objective


def make(
    data: DataSpec,
    inputs: tuple[str, ...] = ("image",),
    target: str = "label",
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] = (),
) -> Objective:
    """Return the objective that calls the model once with the `inputs` fields and compares ``logits`` with `target`.

    Args:
      data: its ``classes`` give C.
      inputs: batch fields, passed to the model in this order.
      target: the batch field with class indices [B].
      label_smoothing: share of the target's probability that is spread over all classes (Szegedy et al. 2016,
        arXiv 1512.00567, section 7).
      class_weights: a factor for the examples of each class, C of them, or none; the weighted mean is minimised.

    Raises:
      ConfigError: a field that the data does not have, or class weights that are not one a class.
    """
    classes = len(data.classes)
    for field in (*inputs, target):
        if field not in (*data.example, "mask"):
            raise ConfigError(f"the objective names the field {field!r}; the data has {', '.join(data.example)}")
    if class_weights and len(class_weights) != classes:
        raise ConfigError(
            f"config.objective.class_weights has {len(class_weights)} values; the data has {classes} classes"
        )

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        logits_BC, label_B = outputs["logits"], batch[target]
        target_BC = jax.nn.one_hot(label_B, classes) * (1.0 - label_smoothing) + label_smoothing / classes
        loss_B = -jnp.sum(target_BC * jax.nn.log_softmax(logits_BC), axis=-1)
        weight_B = batch["mask"]
        if class_weights:
            weight_B = weight_B * jnp.asarray(class_weights)[label_B]
        results = {**outputs, "target": label_B, "prediction": jnp.argmax(logits_BC, axis=-1).astype(jnp.int32)}
        # `where` and not a product alone: a padded row may hold anything, and 0 * nan is nan
        total = jnp.sum(jnp.where(weight_B > 0, loss_B * weight_B, 0.0))
        return Loss(total, jnp.sum(weight_B), results, model_state)

    return objective
