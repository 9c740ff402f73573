"""Named leaves of a tree of arrays, and ordered-regex rules over the names.

Usage: ``match(rules, named_leaves(params))`` gives each parameter the value of the first rule that fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import PyTree, Rules


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Return the leaves by their slash-joined path, e.g. ``Dense_0/kernel``, in the tree's own order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def match(rules: Rules, names: Iterable[str]) -> dict[str, Any]:
    """Return for each name the value of the first rule whose expression matches the whole name.

    Raises:
      ConfigError: a name that no rule covers, so that nothing is decided by accident.
    """
    try:
        compiled = [(re.compile(pattern), value) for pattern, value in rules]
    except re.error as error:
        raise ConfigError(f"rule {error.pattern!r} is not a regular expression: {error}") from error
    matched: dict[str, Any] = {}
    for name in names:
        for pattern, value in compiled:
            if pattern.fullmatch(name):
                matched[name] = value
                break
        else:
            patterns = ", ".join(repr(pattern.pattern) for pattern, _ in compiled)
            raise ConfigError(f"no rule covers the parameter {name!r}; rules, in order: {patterns or 'none'}")
    return matched


def match_tree(rules: Rules, tree: PyTree) -> PyTree:
    """Return a tree of the same structure whose leaves are the matched values."""
    values = match(rules, named_leaves(tree))
    return jax.tree.unflatten(jax.tree.structure(tree), list(values.values()))


def replaced(tree: PyTree, values: Mapping[str, Any]) -> PyTree:
    """Return the tree with the leaves that `values` names exchanged, in the dtypes that they had.

    Raises:
      ConfigError: a name that the tree has not, or a value of another shape.
    """
    leaves = named_leaves(tree)
    for name, value in values.items():
        if name not in leaves:
            raise ConfigError(f"no parameter is named {name!r}{did_you_mean(name, leaves)}")
        if np.shape(value) != np.shape(leaves[name]):
            raise ConfigError(f"{name!r} has the shape {np.shape(leaves[name])}; its value has {np.shape(value)}")
    changed = [jnp.asarray(values[name], x.dtype) if name in values else x for name, x in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(tree), changed)


def pack(tree: PyTree) -> jax.Array:
    """Return all numbers of a tree of float32 arrays as one vector [N]: one buffer to pass on instead of many."""
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def packed_shape(shapes: PyTree) -> jax.ShapeDtypeStruct:
    """Return the shape of `pack` of a tree with such shapes."""
    return jax.eval_shape(pack, shapes)


def unpack(vector: np.ndarray, shapes: PyTree) -> PyTree:
    """Return the tree with such shapes that was packed into `vector` [N], on the host."""
    leaves, structure = jax.tree.flatten(shapes)
    pieces = np.split(vector, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return jax.tree.unflatten(structure, [p.reshape(leaf.shape) for p, leaf in zip(pieces, leaves, strict=True)])
