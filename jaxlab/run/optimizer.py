"""The optimizer of a config: its learning rate handed down, its failures explained, its rules laid out.

Usage: ``optimizer = make_optimizer(config.optimizer, data=data, total_steps=1000)``.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from jaxlab.core.config import FACTORY, build
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.factory import import_factory, parameters_of
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import PyTree, Rules
from jaxlab.optim.chain import uniform
from jaxlab.optim.evaluation import states_of
from jaxlab.optim.rules import Match, describe

PATH, RATE = "config.optimizer", "learning_rate"

_log = logging.getLogger("jaxlab")


def make_optimizer(node: ConfigDict, **context: Any) -> optax.GradientTransformationExtraArgs:
    """Return the transformation that `node` describes, of any form that optax has.

    A factory that needs a ``learning_rate`` and is given none has that of the nearest node around it. What fails in
    a factory of another library, or when the transformation meets the parameters, is explained as an error of the
    config: both happen before any device work.

    Raises:
      ConfigError: it fails, or is no gradient transformation.
    """
    name = node.get(FACTORY)
    with _explained(f"building {name}"):
        optimizer = uniform(build(_with_rates(node), path=PATH, **context))

    def init(params: PyTree) -> PyTree:
        with _explained(f"the start of {name} on the model's parameters"):
            state = optimizer.init(params)
            if states_of(state, optax.LookaheadState):
                raise ConfigError(
                    f"{name} cannot be had: it keeps two sets of parameters (optax.LookaheadParams), where a run has "
                    "one; config.train.ema and optax.contrib:schedule_free average parameters as well"
                )
            return jax.tree.map(_settled, state)

    def update(updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        with _explained(f"an update of {name}"):
            new, after = optimizer.update(updates, state, params, **extra)
            _check_shapes(new, updates)
            if list(named_leaves(after)) != list(named_leaves(state)):
                raise ConfigError("its state has another structure after a step, and cannot be saved and restored")
            return new, jax.tree.map(_settled, after)

    return optax.GradientTransformationExtraArgs(init, update)


def rule_matches(node: ConfigDict, params: PyTree) -> dict[str, list[Match]]:
    """Return what every list of rules in an optimizer's node decides about `params`, by its path.

    A list that is for a part of the parameters may leave others out; they come last, under the pattern "no rule".
    """
    matches = {}
    for path, rules in _rule_lists(node, PATH):
        *decisions, rest = describe((*build(rules, path=path), (".*", None)), params)
        matches[path] = [*decisions, *([rest._replace(pattern="no rule")] if rest.names else [])]
    return matches


def log_rules(matches: dict[str, list[Match]]) -> None:
    """Log each rule with the number of parameters that it decides about."""
    for path, decisions in matches.items():
        for match in decisions:
            _log.info(
                "%s: %r = %r: %d arrays, %d parameters",
                path, match.pattern, match.value, len(match.names), match.size,
            )  # fmt: skip


def _rule_lists(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the values that a factory's signature says to be rules."""
    if isinstance(node, tuple | list):
        for place, child in enumerate(node):
            yield from _rule_lists(child, f"{path}[{place}]")
    elif isinstance(node, ConfigDict):
        parameters = parameters_of(import_factory(node[FACTORY], path)) if FACTORY in node else {}
        for name in node:
            if name in parameters and parameters[name].annotation == Rules:
                yield f"{path}.{name}", node[name]
            else:
                yield from _rule_lists(node[name], f"{path}.{name}")


def _with_rates(node: ConfigDict) -> ConfigDict:
    """Return a copy in which every factory that needs a learning rate has one, where a node around it has."""
    filled = copy.deepcopy(node).unlock()
    _hand_down(filled, None, PATH)
    return filled


def _hand_down(node: Any, rate: Any, path: str) -> None:
    if isinstance(node, tuple | list):
        for place, child in enumerate(node):
            _hand_down(child, rate, f"{path}[{place}]")
    elif isinstance(node, ConfigDict):
        parameters = parameters_of(import_factory(node[FACTORY], path)) if FACTORY in node else {}
        needs = RATE in parameters and parameters[RATE].default is parameters[RATE].empty
        if needs and RATE not in node and rate is not None:
            with node.unlocked():
                node[RATE] = copy.deepcopy(rate)
        inner = node.get(RATE, rate)
        for name in node:
            _hand_down(node[name], None if name == RATE else inner, f"{path}.{name}")


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn whatever is raised into an error of ``config.optimizer``."""
    try:
        yield
    except (ConfigError, DataError) as error:
        message = str(error)
        raise type(error)(message if message.startswith("config.") else f"{PATH}: {message}") from error
    except Exception as error:
        raise ConfigError(f"{PATH}: {doing} fails with {type(error).__name__}: {error}") from error


def _settled(x: Any) -> jax.Array:
    """Return the number with a type of its own: one that follows Python's would have a step compiled again."""
    return jax.lax.convert_element_type(x, jax.typeof(x).dtype) if jax.typeof(x).weak_type else x


def _check_shapes(updates: PyTree, gradient: PyTree) -> None:
    """Raise ConfigError for updates that are not like the parameters, and which adding would broadcast."""
    expected, found = named_leaves(gradient), named_leaves(updates)
    if list(expected) != list(found):
        raise ConfigError("its updates have another structure than the parameters")
    for name, leaf in found.items():
        if leaf.shape != expected[name].shape:
            raise ConfigError(
                f"its update of {name!r} has the shape {leaf.shape}, not {expected[name].shape}; a transformation of "
                "the gradients of single examples cannot be had: a step gives the gradient of the whole batch"
            )
