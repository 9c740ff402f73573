"""Several gradient transformations in a row.

Usage: ``spec("jaxlab.optim.chain:make", transforms=(spec("optax:clip", max_delta=1.0), spec("optax:sgd", ...)))``.
Clipping acts on the gradient of the whole batch: accumulation and devices are summed before the optimizer is called.
"""

from __future__ import annotations

import optax


def make(transforms: tuple[optax.GradientTransformation, ...]) -> optax.GradientTransformation:
    """Return the chain, the first applied first."""
    return optax.chain(*transforms) if transforms else optax.identity()
