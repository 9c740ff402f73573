"""Rules of single layers as PyTorch stores them, for the tables of all families."""

from __future__ import annotations

from jaxlab.models.weights.resizing import Resize, columns
from jaxlab.models.weights.rules import CONVOLUTION, SAME, TRANSPOSED, Form, Rule


def linear(foreign: str, ours: str, form: Form = TRANSPOSED, resize: Resize | None = None) -> tuple[Rule, Rule]:
    """Return the rules of ``foreign.weight`` [O, I] and ``foreign.bias`` [O]."""
    return (
        Rule(f"{foreign}.weight", (f"{ours}/kernel",), form, resize),
        Rule(f"{foreign}.bias", (f"{ours}/bias",), SAME, resize),
    )


def linear_as_here(foreign: str, ours: str) -> tuple[Rule, Rule]:
    """Return the rules of a linear layer whose ``weight`` is [I, O], as GPT-2's are."""
    return linear(foreign, ours, SAME)


def head(foreign: str, ours: str) -> tuple[Rule, Rule]:
    """Return the rules of a linear layer with one output a class, of which there may be more or fewer."""
    return linear(foreign, ours, resize=columns)


def convolution(foreign: str, ours: str) -> tuple[Rule, Rule]:
    """Return the rules of ``foreign.weight`` [O, I, H, W] and ``foreign.bias`` [O]."""
    return linear(foreign, ours, CONVOLUTION)


def norm(foreign: str, ours: str) -> tuple[Rule, Rule]:
    """Return the rules of a normalisation's ``weight`` and ``bias``."""
    return Rule(f"{foreign}.weight", (f"{ours}/scale",)), Rule(f"{foreign}.bias", (f"{ours}/bias",))


def batch_norm(foreign: str, ours: str) -> tuple[Rule, ...]:
    """Return the rules of batch normalisation under `ours`, a path without its collection, and its running moments."""
    return (
        *norm(foreign, f"params/{ours}"),
        Rule(f"{foreign}.running_mean", (f"batch_stats/{ours}/mean",)),
        Rule(f"{foreign}.running_var", (f"batch_stats/{ours}/var",)),
    )
