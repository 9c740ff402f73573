"""Ordered-regex rules over parameter names: one mechanism for masks, learning rates, decay and freezing.

A rule list is big_vision's (Beyer et al. 2022, github.com/google-research/big_vision): (regular expression, value)
pairs, the first that matches a parameter's whole name wins, and a parameter that none covers is an error.
Usage: ``spec("jaxlab.optim.rules:make", optimizer=spec("optax:adam"), learning_rate=1e-3,
weight_decay=((".*/kernel", 0.1), (".*", 0.0)), freeze=(("embed/.*", True), (".*", False)))``, or
``spec("optax:adamw", mask=spec("jaxlab.optim.rules:where", rules=((".*/kernel", True), (".*", False))))``.
Shape letter: L layers, the leading axis of parameters that a scan over layers stacks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxlab.core import tree
from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Array, PyTree, Rules
from jaxlab.optim.chain import uniform
from jaxlab.optim.evaluation import states_of


class Match(NamedTuple):
    """What one rule decides."""

    pattern: str
    value: Any
    names: tuple[str, ...]
    size: int  # numbers in those parameters


@dataclasses.dataclass(frozen=True)
class Where:
    """The function from parameters to a tree of the matched values, which nothing can take for such a tree."""

    rules: Rules

    def __call__(self, params: PyTree) -> PyTree:
        return tree.match_tree(self.rules, params)

    def __bool__(self) -> bool:
        raise ConfigError("a function of the parameters is given where a tree of values is expected")


def where(rules: Rules) -> Callable[[PyTree], PyTree]:
    """Return the function from parameters to a tree of the matched values; the first full match wins."""
    return Where(rules)


def make(
    optimizer: optax.GradientTransformation,
    learning_rate: float | optax.Schedule,
    multipliers: Rules = ((".*", 1.0),),
    weight_decay: Rules = ((".*", 0.0),),
    freeze: Rules = ((".*", False),),
) -> optax.GradientTransformation:
    """Return `optimizer` with a learning rate and a decay for each parameter, and some parameters left alone.

    With the optimizer's update u, which has its learning rate in it, the parameter p of name n changes at step t by
    ``multiplier(n) * (u - learning_rate(t) * weight_decay(n) * p)``: decoupled, and scaled as optax's AdamW does.
    A frozen parameter keeps its bits, and the optimizer neither sees it nor keeps a state for it.

    Args:
      optimizer: what makes the updates. In a config its own ``learning_rate``, left out, is the one beside it.
      learning_rate: a number, or a function of the step; here it scales the decay alone.
      multipliers: values of 0 or more, or a tuple of them, one for each index of the parameter's first axis.
      weight_decay: values of 0 or more.
      freeze: True or False.

    Raises:
      ConfigError: a value that is not of this kind; when the parameters are known, one that no rule covers, or an
        optimizer whose updates must not be changed.
    """
    for name, rules, accepts in (
        ("multipliers", multipliers, _is_multiplier), ("weight_decay", weight_decay, _is_rate),
        ("freeze", freeze, lambda value: isinstance(value, bool)),
    ):  # fmt: skip
        _check(name, rules, accepts)
    trained = optax.chain(uniform(optimizer), _decay(learning_rate, weight_decay), _scale(multipliers))
    label = {True: "frozen", False: "trained"}
    split = optax.partition(
        {"trained": trained, "frozen": _still()},
        lambda params: jax.tree.map(lambda frozen: label[frozen], tree.match_tree(freeze, params)),
    )

    def init(params: PyTree) -> PyTree:
        scaled, decayed, _ = (
            describe(rules, params, name)
            for name, rules in (("multipliers", multipliers), ("weight_decay", weight_decay), ("freeze", freeze))
        )
        state = split.init(params)
        if any(m.names and m.value != 1 for m in scaled) or any(m.names and m.value != 0 for m in decayed):
            _check_changeable(state)
        return state

    return optax.GradientTransformationExtraArgs(init, split.update)


def layerwise(
    layers: int, decay: float = 0.75, pattern: str = ".*layers_{}/.*", embeddings: str = ".*embed.*"
) -> Rules:
    """Return multipliers that fall from the output to the input, for the ``multipliers`` of `make`.

    Block i of L has ``decay ** (L - i)``, the embeddings have ``decay ** (L + 1)`` and the rest, the head, has 1
    (Bao et al. 2022, arXiv 2106.08254, after Clark et al. 2020, arXiv 2003.10555).

    Args:
      layers: L.
      decay: the ratio from a block to the one below, above 0 and at most 1.
      pattern: of the names of a block's parameters, with ``{}`` for its number from 0; without, of parameters whose
        first axis is the L blocks.
      embeddings: of the names of the parameters below the first block.

    Raises:
      ConfigError: no layers, or a decay outside its range. A block beyond L is covered by no rule.
    """
    if layers < 1:
        raise ConfigError(f"layers={layers}: expected 1 or more")
    if not 0 < decay <= 1:
        raise ConfigError(f"decay={decay}: expected more than 0 and at most 1")
    powers = tuple(decay ** (layers - place) for place in range(layers))
    blocks: Rules
    if "{}" in pattern:
        blocks = tuple((pattern.replace("{}", str(place)), power) for place, power in enumerate(powers))
    else:
        blocks = ((pattern, powers),)
    other = pattern.replace("{}", r"\d+")
    return (*blocks, (rf"(?!{other}$)(?:{embeddings})", decay ** (layers + 1)), (rf"(?!{other}$).*", 1.0))


def describe(rules: Rules, params: PyTree, where: str = "") -> list[Match]:
    """Return for each rule, in order, what it decides: a rule without names decides nothing.

    Raises:
      ConfigError: a parameter that no rule covers, its message begun with `where`.
    """
    leaves = tree.named_leaves(params)
    try:
        places = tree.match([(pattern, place) for place, (pattern, _) in enumerate(rules)], leaves)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error
    named = [tuple(name for name in leaves if places[name] == place) for place in range(len(rules))]
    return [
        Match(pattern, value, names, sum(math.prod(leaves[name].shape) for name in names))
        for (pattern, value), names in zip(rules, named, strict=True)
    ]


def _decay(learning_rate: float | optax.Schedule, rules: Rules) -> optax.GradientTransformation:
    """Return the transformation that adds the decay, which counts steps where the rate depends on them."""

    def init(params: PyTree) -> optax.OptState:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)) if callable(learning_rate) else optax.EmptyState()

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, optax.OptState]:
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate

        def decayed(update: Array, param: Array, value: float) -> Array:
            return (update - rate * value * param).astype(update.dtype) if value else update

        after = optax.ScaleByScheduleState(optax.safe_increment(state.count)) if callable(learning_rate) else state
        return jax.tree.map(decayed, updates, params, tree.match_tree(rules, updates)), after

    return optax.GradientTransformation(init, update)


def _scale(rules: Rules) -> optax.GradientTransformation:
    """Return the transformation that multiplies, a leaf by its number or its layers by theirs."""

    def scaled(name: str, update: Array, value: float | tuple[float, ...]) -> Array:
        if not isinstance(value, tuple):
            return update if value == 1 else update * value
        if update.ndim == 0 or update.shape[0] != len(value):
            raise ConfigError(f"multipliers: {len(value)} values for the parameter {name!r} of shape {update.shape}")
        return update * jnp.asarray(value, update.dtype).reshape(-1, *(1,) * (update.ndim - 1))

    def update(updates: PyTree, params: PyTree = None) -> PyTree:
        leaves = tree.named_leaves(updates)
        values = tree.match(rules, leaves)
        new = [scaled(name, leaf, values[name]) for name, leaf in leaves.items()]
        return jax.tree.unflatten(jax.tree.structure(updates), new)

    return optax.stateless(update)


def _still() -> optax.GradientTransformation:
    """Return the transformation to updates of minus zero, which added to a number keep its sign bit also at zero."""
    return optax.stateless(lambda updates, params: jax.tree.map(lambda u: jnp.full_like(u, -0.0), updates))


def _check(name: str, rules: Rules, accepts: Callable[[Any], bool]) -> None:
    for rule in rules:
        if not isinstance(rule, tuple | list) or len(rule) != 2 or not isinstance(rule[0], str) or not accepts(rule[1]):
            raise ConfigError(f"{name}: the rule {rule!r} is not a pair of a regular expression and such a value")


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_multiplier(value: Any) -> bool:
    return _is_rate(value) or (isinstance(value, tuple) and bool(value) and all(map(_is_rate, value)))


def _check_changeable(state: PyTree) -> None:
    """Raise ConfigError for an optimizer that takes its updates to be made as it gives them."""
    fixed = states_of(state, contrib.ScheduleFreeState, contrib.SAMState, contrib.MechanicState)
    if fixed:
        kind = type(fixed[0]).__name__.removesuffix("State")
        raise ConfigError(
            f"multipliers and weight_decay must not change the updates of {kind}; put jaxlab.optim.rules:make inside "
            "it, as its base optimizer"
        )
