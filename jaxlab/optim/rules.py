"""Ordered-regex rules over parameter names, as the masks that optax takes.

Usage: ``spec("optax:adamw", mask=spec("jaxlab.optim.rules:where", rules=((".*/kernel", True), (".*", False))))``.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxlab.core import tree
from jaxlab.core.types import PyTree, Rules


def where(rules: Rules) -> Callable[[PyTree], PyTree]:
    """Return the function from parameters to a tree of the matched values; the first full match wins."""
    return lambda params: tree.match_tree(rules, params)
