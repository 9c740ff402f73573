"""How each of optax's gradient transformations is written in a config, and what each that cannot be says.

Small factories of the functions that some of them ask for stand here too: a config names a function by its factory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict
from optax import contrib

from jaxlab.core.config import spec

RATE = 0.05


def loss_aware(*_: Any, value: float, **__: Any) -> float:
    """Return whether the loss is a number: the condition that the tests give to conditional transformations."""
    return value < 1e9


def condition() -> Callable[..., Any]:
    """Return `loss_aware`."""
    return loss_aware


def every_step() -> Callable[[Any], Any]:
    """Return the condition on a step's number that all fulfil."""
    return lambda step: step >= 0


def update_norm() -> Callable[..., Any]:
    """Return the norm of the updates as a measure."""
    return lambda updates, *_, **__: optax.tree.norm(updates)


def negative_tree() -> Callable[..., Any]:
    """Return the function to updates down the gradient."""
    return lambda updates, params: jax.tree.map(lambda u: -RATE * u, updates)


def negative_leaf() -> Callable[..., Any]:
    """Return the same for one array."""
    return lambda update, param: -RATE * update


def rate() -> Callable[[Any], Any]:
    """Return a schedule with the sign of a descent."""
    return lambda step: -RATE / jnp.sqrt(step + 1.0)


def shrinking(learning_rate: float) -> optax.GradientTransformation:
    """Return descent, as a plug-in of one's own would."""
    return optax.sgd(learning_rate)


def before(node: ConfigDict) -> ConfigDict:
    """Return the transformation of a gradient, and then a step down it."""
    return scaled(node, -RATE)


def scaled(node: ConfigDict, by: float) -> ConfigDict:
    """Return the transformation, and then a multiplication."""
    return spec("jaxlab.optim.chain:make", transforms=(node, spec("optax:scale", step_size=by)))


def after(node: ConfigDict) -> ConfigDict:
    """Return a step down the gradient, and then the transformation of the update."""
    return spec("jaxlab.optim.chain:make", transforms=(spec("optax:sgd", learning_rate=RATE), node))


SGD, ADAM = spec("optax:sgd", learning_rate=RATE), spec("optax:adam", learning_rate=RATE)


def axes() -> Callable[..., Any]:
    """Return the function to the axes of matrices that Muon's own transformation asks for."""
    return lambda updates: jax.tree.map(lambda u: contrib.MuonDimensionNumbers(), updates)


KERNELS = spec("jaxlab.optim.rules:where", rules=((".*kernel", True), (".*", False)))
TREE = {"kernel": False, "bias": True}
PARTS = spec("jaxlab.optim.rules:where", rules=((".*kernel", "matrix"), (".*", "vector")))
PERTURBED = spec(
    "jaxlab.optim.chain:make",
    transforms=(spec("optax.contrib:normalize"), spec("optax:sgd", learning_rate=0.01)),
)
CONDITION = spec("optimizer_cases:every_step")
MUON = "optax.contrib:scale_by_muon"
NORM, AXES = spec("optimizer_cases:update_norm"), spec("optimizer_cases:axes")
WRAPPED = {"inner": SGD}

RATED = """
adabelief adagrad adam adamax adamaxw adamw adan amsgrad lamb lion nadam nadamw novograd optimistic_adam_v2
optimistic_gradient_descent radam rmsprop rprop scale_by_learning_rate sgd sign_sgd signum sm3 yogi
"""
RATED_CONTRIB = "acprop ademamix adopt galore madgrad muon simplified_ademamix"
FREE = "cocob dadapt_adamw dog dowg momo momo_adam prodigy scale_by_cocob schedule_free_adamw schedule_free_sgd"
FIRST = """
add_decayed_weights apply_every centralize identity normalize_by_update_norm scale_by_adam scale_by_adamax scale_by_adan
scale_by_amsgrad scale_by_belief scale_by_factored_rms scale_by_lbfgs scale_by_lion scale_by_novograd
scale_by_optimistic_gradient scale_by_param_block_norm scale_by_param_block_rms scale_by_polyak scale_by_radam
scale_by_rms scale_by_rss scale_by_sign scale_by_sm3 scale_by_stddev scale_by_trust_ratio scale_by_yogi zero_nans
"""
FIRST_CONTRIB = (
    "normalize scale_by_acprop scale_by_ademamix scale_by_adopt scale_by_galore scale_by_simplified_ademamix"
)

ALONE: dict[str, dict[str, Any]] = {
    **{f"optax:{name}": {"learning_rate": RATE} for name in RATED.split()},
    **{f"optax.contrib:{name}": {"learning_rate": RATE} for name in RATED_CONTRIB.split()},
    **{f"optax.contrib:{name}": {} for name in FREE.split()},
    "optax:adadelta": {"learning_rate": 50.0},
    "optax.contrib:scale_by_madgrad": {"learning_rate": RATE},
    "optax.contrib:sophia": {
        "learning_rate": RATE, "hessian_diagonal_fn": spec("optax.contrib:hutchinson_estimator_diag_hessian")
    },
    "optax:adafactor": {"learning_rate": RATE},
    "optax:fromage": {"learning_rate": RATE},
    "optax:lars": {"learning_rate": 10.0},
    "optax:lbfgs": {},
    "optax:noisy_sgd": {"learning_rate": RATE, "key": 0},
    "optax:optimistic_adam": {"learning_rate": RATE, "optimism": RATE},
    "optax:polyak_sgd": {},
    "optax:stateless": {"f": spec("optimizer_cases:negative_tree")},
    "optax:stateless_with_tree_map": {"f": spec("optimizer_cases:negative_leaf")},
    "optax:scale": {"step_size": -RATE},
    "optax:scale_by_schedule": {"step_size_fn": spec("optimizer_cases:rate")},
    "optimizer_cases:shrinking": {"learning_rate": RATE},
}  # fmt: skip
"""Whole optimizers by path, with the arguments that their defaults leave open."""

BEFORE: dict[str, dict[str, Any]] = {
    **{f"optax:{name}": {} for name in FIRST.split()},
    **{f"optax.contrib:{name}": {} for name in FIRST_CONTRIB.split()},
    "optax:adaptive_grad_clip": {"clipping": 0.1},
    "optax:add_noise": {"eta": 0.01, "gamma": 0.55, "key": 0},
    "optax:clip": {"max_delta": 1.0},
    "optax:clip_by_block_rms": {"threshold": 1.0},
    "optax:clip_by_global_norm": {"max_norm": 1.0},
    "optax:ema": {"decay": 0.9},
    "optax:masked": {"inner": spec("optax:clip", max_delta=1.0), "mask": KERNELS},
    "optax:scale_by_rprop": {"learning_rate": RATE},
    "optax:snapshot": {"measure_name": "norm", "measure": NORM},
    "optax:trace": {"decay": 0.9},
}
"""Transformations of a gradient, which a step down it follows."""

AFTER: dict[str, dict[str, Any]] = {
    "optax:keep_params_nonnegative": {},
    "optax:scale_by_backtracking_linesearch": {"max_backtracking_steps": 5},
    "optax:scale_by_zoom_linesearch": {"max_linesearch_steps": 5},
    "optax.contrib:reduce_on_plateau": {},
}
"""Transformations of an update, which a step down the gradient precedes."""

WRAPPING: dict[str, dict[str, Any]] = {
    "optax:MultiSteps": {"opt": SGD, "every_k_schedule": 2},
    "optax:apply_if_finite": {**WRAPPED, "max_consecutive_errors": 3},
    "optax:conditionally_mask": {**WRAPPED, "should_transform_fn": CONDITION},
    "optax:conditionally_transform": {**WRAPPED, "should_transform_fn": CONDITION},
    "optax:flatten": WRAPPED,
    "optax:multi_transform": {"transforms": {"matrix": SGD, "vector": ADAM}, "param_labels": PARTS},
    "optax:partition": {"transforms": {"matrix": SGD, "vector": ADAM}, "param_labels": PARTS},
    "optax:selective_transform": {"optimizer": SGD, "freeze_mask": TREE},
    "optax:with_extra_args_support": {"tx": SGD},
    "optax.contrib:mechanize": {"base_optimizer": spec("optax:sgd", learning_rate=1.0)},
    "optax.contrib:sam": {"optimizer": SGD, "adv_optimizer": PERTURBED},
    "optax.contrib:schedule_free": {"base_optimizer": spec("optax:sgd"), "learning_rate": RATE},
    "optax.contrib:split_real_and_imaginary": WRAPPED,
}
"""Those that take others."""

NODES: dict[str, Callable[[], ConfigDict]] = {
    **{path: lambda path=path, given=given: spec(path, **given) for path, given in {**ALONE, **WRAPPING}.items()},
    **{path: lambda path=path, given=given: before(spec(path, **given)) for path, given in BEFORE.items()},
    **{path: lambda path=path, given=given: after(spec(path, **given)) for path, given in AFTER.items()},
    "optax:scale_by_adadelta": lambda: scaled(spec("optax:scale_by_adadelta"), -50.0),
    "optax:scale_by_distance_over_gradients": lambda: scaled(spec("optax:scale_by_distance_over_gradients"), -1.0),
    MUON: lambda: spec(
        "optax:partition",
        transforms={
            "matrix": before(spec("optax.contrib:scale_by_muon", weight_dimension_numbers=AXES)),
            "vector": SGD,
        },
        param_labels=PARTS,
    ),
    "optax:freeze": lambda: before(spec("optax:freeze", mask=KERNELS)),
}

UNCHANGED = {"optax:set_to_zero": {}}
"""What is meant to change nothing."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "optax:chain": ({"args": (SGD,)}, "optax:chain takes no keyword 'args'"),  # jaxlab.optim.chain:make does the same
    "optax:named_chain": ({"args": (SGD,)}, "optax:named_chain takes no keyword 'args'"),
    "optax:lookahead": (
        {"fast_optimizer": SGD, "sync_period": 5, "slow_step_size": 0.5}, "it keeps two sets of parameters"
    ),
    "optax:inject_hyperparams": (
        {"inner_factory": spec("optimizer_cases:negative_tree")},
        "expected an optax.GradientTransformation, not a function",
    ),
    "optax:inject_stateful_hyperparams": (
        {"inner_factory": spec("optimizer_cases:negative_tree")},
        "expected an optax.GradientTransformation, not a function",
    ),
    "optax:selective_transform": ({"optimizer": SGD, "freeze_mask": KERNELS}, "where a tree of values is expected"),
    "optax:measure_with_ema": ({"measure": NORM, "decay": 0.9}, "another structure than the parameters"),  # of monitor
    "optax:monitor": ({"measures": {"norm": NORM}}, "its state has another structure after a step"),
    "optax.contrib:differentially_private_aggregate": (
        {"l2_norm_clip": 1.0, "noise_multiplier": 0.1, "key": 0}, "gradients|axis|example",
    ),
    "optax.contrib:dpsgd": (
        {"learning_rate": 0.1, "l2_norm_clip": 1.0, "noise_multiplier": 0.1, "seed": 0}, "gradients|axis|example",
    ),
}  # fmt: skip
"""What cannot be had, with the error that says why."""

PARTLY_REFUSED = {"optax:selective_transform"}
"""What works in another form as well."""

PART_OF = {"optax.contrib:hutchinson_estimator_diag_hessian": "optax.contrib:sophia"}
"""What gives no update of its own, but is part of one that is tried."""

UNANNOTATED = {
    "optax:inject_hyperparams", "optax:inject_stateful_hyperparams", "optax:monitor", "optax:scale_by_factored_rms",
    "optax:MultiSteps", "optax.contrib:dog", "optax.contrib:dowg", "optax.contrib:hutchinson_estimator_diag_hessian",
}  # fmt: skip
"""Transformations that optax's annotations do not call so."""


def transformations() -> set[str]:
    """Return the paths of all public functions of optax and optax.contrib that return a gradient transformation."""
    kinds = (optax.GradientTransformation, optax.GradientTransformationExtraArgs)
    found = set()
    for module in (optax, contrib):
        for name in dir(module):
            function = getattr(module, name)
            if name.startswith("_") or isinstance(function, type) or not callable(function):
                continue
            if name == "Schedule":  # a type, which has no signature
                continue
            if inspect.signature(function).return_annotation in kinds:
                found.add(f"{module.__name__}:{name}")
    return found | UNANNOTATED
