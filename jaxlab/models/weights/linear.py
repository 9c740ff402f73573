"""Rules that many families share: a linear layer and a normalisation, as PyTorch stores them."""

from __future__ import annotations

from jaxlab.models.weights.rules import CONVOLUTION, TRANSPOSED, Rule


def linear(foreign: str, ours: str) -> tuple[Rule, Rule]:
    """Return the rules of ``foreign.weight`` [O, I] and ``foreign.bias``."""
    return Rule(f"{foreign}.weight", (f"{ours}/kernel",), TRANSPOSED), Rule(f"{foreign}.bias", (f"{ours}/bias",))


def linear_as_here(foreign: str, ours: str) -> tuple[Rule, Rule]:
    """Return the rules of a linear layer whose ``weight`` is [I, O], as GPT-2's were written."""
    return Rule(f"{foreign}.weight", (f"{ours}/kernel",)), Rule(f"{foreign}.bias", (f"{ours}/bias",))


def norm(foreign: str, ours: str) -> tuple[Rule, Rule]:
    """Return the rules of a normalisation's ``weight`` and ``bias``."""
    return Rule(f"{foreign}.weight", (f"{ours}/scale",)), Rule(f"{foreign}.bias", (f"{ours}/bias",))


def batch_norm(foreign: str, ours: str) -> tuple[Rule, ...]:
    """Return the rules of batch normalisation under `ours`, a path without its collection, and its running moments."""
    return (
        *norm(foreign, f"params/{ours}"),
        Rule(f"{foreign}.running_mean", (f"batch_stats/{ours}/mean",)),
        Rule(f"{foreign}.running_var", (f"batch_stats/{ours}/var",)),
        Rule(f"{foreign}.num_batches_tracked", ()),
    )


def convolution(foreign: str, ours: str) -> tuple[Rule, Rule]:
    """Return the rules of a convolution's ``weight`` [O, I, H, W] and ``bias``."""
    return Rule(f"{foreign}.weight", (f"{ours}/kernel",), CONVOLUTION), Rule(f"{foreign}.bias", (f"{ours}/bias",))
