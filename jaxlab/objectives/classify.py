"""Classification by softmax cross-entropy, or its focal and logit-adjusted variants, and by independent labels.

Knows the model by its ``logits`` alone. Shape letters: B batch, C classes.
Usage: ``config.objective = spec("jaxlab.objectives.classify:make", label_smoothing=0.1)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Apply, Array, Batch, DataSpec, Loss, Objective
from jaxlab.objectives.fields import (
    blank,
    check_inputs,
    check_not_negative,
    check_shapes,
    check_share,
    result_of,
    weighted_sum,
)  # fmt: skip


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
        adjustment without priors, a prior that is not positive, a negative gamma or weight, or a smoothing that is no
        share.
    """
    classes = len(data.classes)
    check_inputs(data, inputs, target)
    check_share("label_smoothing", label_smoothing)
    check_not_negative("focal_gamma", focal_gamma)
    _check_weights("class_weights", class_weights, classes)
    offset_C = logit_adjustment * _log_priors(data, class_priors) if logit_adjustment else None

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        label_B, soft, mask_B = batch[target], batch.get(f"{target}_probs"), batch["mask"]
        logits_BC = blank(result_of(outputs, "logits"), mask_B)
        check_shapes("the model's logits", logits_BC.shape[1:], (classes,))
        weighted_BC, weight_B = jax.nn.one_hot(label_B, classes) if soft is None else blank(soft, mask_B), mask_B
        smooth_B1 = jnp.ones(())
        if class_weights:
            weighted_BC = weighted_BC * jnp.asarray(class_weights)
            smooth_B1 = jnp.sum(weighted_BC, axis=-1, keepdims=True)
            weight_B = weight_B * smooth_B1[:, 0]
        target_BC = weighted_BC * (1.0 - label_smoothing) + smooth_B1 * (label_smoothing / classes)
        adjusted_BC = logits_BC if offset_C is None else logits_BC + offset_C
        loss_B = jnp.sum(target_BC * _class_losses(adjusted_BC, focal_gamma), axis=-1)
        prediction_B = jnp.argmax(outputs["logits"], axis=-1).astype(jnp.int32)
        results = {**outputs, "target": label_B, "prediction": prediction_B}
        return Loss(weighted_sum(loss_B, mask_B), jnp.sum(weight_B), results, model_state)

    return objective


def multi_label(
    data: DataSpec,
    inputs: tuple[str, ...] = ("image",),
    target: str = "labels",
    positive_weights: tuple[float, ...] = (),
) -> Objective:
    """Return the objective of C yes-or-no questions: the cross-entropy of ``logits`` [B, C] and `target` [B, C] 0 or 1.

    The loss of an example is the mean over its C labels, so that it does not grow with their number. ``prediction`` is
    1 where the label is the likelier answer.

    Args:
      data: the shape of its field `target` gives C.
      inputs: batch fields, passed to the model in this order.
      target: the batch field with a number from 0 to 1 a label.
      positive_weights: a factor for the loss of each label where it is 1, C of them, or none; negatives over positives
        in the training split balances rare labels.

    Raises:
      ConfigError: a field that the data does not have or a target that is not one number a label; weights that are not
        one a label, or negative.
    """
    check_inputs(data, inputs, target)
    shape: tuple[int, ...] = data.example[target].shape if target in data.example else ()
    if len(shape) != 1:
        raise ConfigError(f"target={target!r} has the shape {shape} an example; expected one number a label")
    labels = shape[0]
    _check_weights("positive_weights", positive_weights, labels, "labels")
    positive_C = jnp.asarray(positive_weights or (1.0,) * labels)

    def objective(apply: Apply, batch: Batch) -> Loss:
        outputs, model_state = apply(*(batch[field] for field in inputs))
        mask_B = batch["mask"]
        logits_BC = blank(result_of(outputs, "logits"), mask_B)
        check_shapes("the model's logits", logits_BC.shape[1:], (labels,))
        target_BC = blank(batch[target].astype(jnp.float32), mask_B)
        wrong_BC = positive_C * target_BC * jax.nn.softplus(-logits_BC) + (1 - target_BC) * jax.nn.softplus(logits_BC)
        results = {**outputs, "target": batch[target], "prediction": (outputs["logits"] > 0).astype(jnp.int32)}
        return Loss(weighted_sum(wrong_BC.mean(axis=-1), mask_B), jnp.sum(mask_B), results, model_state)

    return objective


def _check_weights(option: str, weights: tuple[float, ...], count: int, things: str = "classes") -> None:
    if weights and len(weights) != count:
        raise ConfigError(f"{option} has {len(weights)} values; the data has {count} {things}")
    for weight in weights:
        check_not_negative(option, weight)


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
    given = "class_priors" if class_priors else "the data's class_counts"
    priors = tuple(class_priors or data.meta.get("class_counts", ()))
    if not priors:
        raise ConfigError("logit_adjustment needs class_priors, one a class: the data states no class_counts")
    if len(priors) != len(data.classes):
        raise ConfigError(f"{given} has {len(priors)} values; the data has {len(data.classes)} classes")
    for name, prior in zip(data.classes, priors, strict=True):
        if not 0 < prior < float("inf"):
            raise ConfigError(f"{given}: {prior} for the class {name!r}; expected a positive number")
    return np.log(np.asarray(priors, np.float32) / np.sum(priors, dtype=np.float32))
