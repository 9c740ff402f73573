"""Classification by softmax cross-entropy, or its focal and logit-adjusted variants, of hard or soft targets.

Knows the model by its ``logits`` alone. Shape letters: B batch, C classes.
Usage: ``config.objective = spec("jaxlab.objectives.classify:make", label_smoothing=0.1)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Apply, Array, Batch, DataSpec, Loss, Objective


def make(
    data: DataSpec,
    inputs: tuple[str, ...] = ("image",),
    target: str = "label",
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] = (),
    focal_gamma: float = 0.0,
    logit_adjustment: float = 0.0,
    class_priors: tuple[float, ...] = (),
) -> Objective:
    """Return the objective that calls the model once with the `inputs` fields and compares ``logits`` with `target`.

    Where the batch has a field of the target's name with ``_probs`` [B, C], as mixup leaves, those probabilities are
    the target. The loss and its weight are linear in them: those of a mixture are the mixture of those of the classes.

    Args:
      data: its ``classes`` give C.
      inputs: batch fields, passed to the model in this order.
      target: the batch field with class indices [B].
      label_smoothing: share of the target's probability that is spread over all classes (Szegedy et al. 2016,
        arXiv 1512.00567, section 7).
      class_weights: a factor for the examples of each class, C of them, or none; the weighted mean is minimised.
      focal_gamma: the focal loss's exponent (Lin et al. 2017, arXiv 1708.02002): -log p counts (1 - p) ** gamma times,
        so that examples that are already right count little; 0 is cross-entropy, 2 the authors' choice.
      logit_adjustment: the factor tau of the log priors added to the logits within the loss (Menon et al. 2020,
        arXiv 2007.07314), against imbalance; predictions and metrics see the logits as they are. 1 makes the
        prediction the best for classes that are all equally frequent.
      class_priors: shares or counts of the classes, C of them; if none, ``class_counts`` of the data's facts.

    Raises:
      ConfigError: a field that the data does not have; class weights or priors that are not one a class; a logit
        adjustment without priors, a prior that is not positive, or a negative gamma.
    """
    classes = len(data.classes)
    _check(data, inputs, target, class_weights, focal_gamma)
    offset_C = logit_adjustment * _log_priors(data, class_priors) if logit_adjustment else None

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        logits_BC, label_B, soft = outputs["logits"], batch[target], batch.get(f"{target}_probs")
        weighted_BC, weight_B = jax.nn.one_hot(label_B, classes) if soft is None else soft, batch["mask"]
        smooth_B1 = jnp.ones(())
        if class_weights:
            weighted_BC = weighted_BC * jnp.asarray(class_weights)
            smooth_B1 = jnp.sum(weighted_BC, axis=-1, keepdims=True)
            weight_B = weight_B * smooth_B1[:, 0]
        target_BC = weighted_BC * (1.0 - label_smoothing) + smooth_B1 * (label_smoothing / classes)
        adjusted_BC = logits_BC if offset_C is None else logits_BC + offset_C
        loss_B = jnp.sum(target_BC * _class_losses(adjusted_BC, focal_gamma), axis=-1)
        results = {**outputs, "target": label_B, "prediction": jnp.argmax(logits_BC, axis=-1).astype(jnp.int32)}
        # `where` and not a product alone: a padded row may hold anything, and 0 * nan is nan
        total = jnp.sum(jnp.where(weight_B > 0, loss_B * batch["mask"], 0.0))
        return Loss(total, jnp.sum(weight_B), results, model_state)

    return objective


def _check(
    data: DataSpec, inputs: tuple[str, ...], target: str, class_weights: tuple[float, ...], focal_gamma: float
) -> None:
    classes = len(data.classes)
    for field in (*inputs, target):
        if field not in (*data.example, "mask"):
            raise ConfigError(f"the objective names the field {field!r}; the data has {', '.join(data.example)}")
    if class_weights and len(class_weights) != classes:
        raise ConfigError(
            f"config.objective.class_weights has {len(class_weights)} values; the data has {classes} classes"
        )
    if focal_gamma < 0:
        raise ConfigError(f"config.objective.focal_gamma={focal_gamma}: expected 0 or more")


def _class_losses(logits_BC: Array, focal_gamma: float) -> Array:
    """Return the loss [B, C] that each class would have if it were the target."""
    log_BC = jax.nn.log_softmax(logits_BC)
    if not focal_gamma:
        return -log_BC
    # kept off 0, where the slope of a power below 1 is infinite and that times 0 is nan
    wrong_BC = jnp.maximum(-jnp.expm1(log_BC), jnp.finfo(log_BC.dtype).tiny)
    return -(wrong_BC**focal_gamma) * log_BC


def _log_priors(data: DataSpec, class_priors: tuple[float, ...]) -> np.ndarray:
    """Return the log of the classes' shares [C]."""
    given = "config.objective.class_priors" if class_priors else "the data's class_counts"
    priors = tuple(class_priors or data.meta.get("class_counts", ()))
    if not priors:
        raise ConfigError(
            "config.objective.logit_adjustment needs config.objective.class_priors, one a class: the data states no "
            "class_counts"
        )
    if len(priors) != len(data.classes):
        raise ConfigError(f"{given} has {len(priors)} values; the data has {len(data.classes)} classes")
    for name, prior in zip(data.classes, priors, strict=True):
        if not 0 < prior < float("inf"):
            raise ConfigError(f"{given}: {prior} for the class {name!r}; expected a positive number")
    return np.log(np.asarray(priors, np.float32) / np.sum(priors, dtype=np.float32))
