"""Which dtype a step computes in; parameters, statistics and the optimizer stay float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import PyTree


def compute_dtype(precision: str) -> jnp.dtype | None:
    """Return the dtype to compute in, or None for that of the parameters.

    Raises:
      ConfigError: a precision that is not offered.
    """
    dtypes = {"float32": None, "bfloat16": jnp.dtype(jnp.bfloat16)}
    if precision not in dtypes:
        raise ConfigError(f"config.train.precision={precision!r}: expected one of {', '.join(dtypes)}")
    return dtypes[precision]


def cast(tree: PyTree, dtype: jnp.dtype | None) -> PyTree:
    """Return the tree with its floating-point arrays in `dtype`, or as it is for None."""
    if dtype is None:
        return tree
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
