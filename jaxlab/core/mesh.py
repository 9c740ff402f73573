"""The mesh's axes, and where a model says how its activations lie on them.

``data`` and ``fsdp`` split a batch's rows; ``fsdp`` splits parameters as well, which are gathered where they are used
(Rajbhandari et al. 2020, "ZeRO", arXiv 1910.02054); ``tensor`` splits matrices and heads (Shoeybi et al. 2019,
"Megatron-LM", arXiv 1909.08053); ``sequence`` splits the places of long inputs.
Usage in a module: ``x_BTD = constrain(x_BTD, BATCH, SEQUENCE, None)``.
"""

from __future__ import annotations

import math

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxlab.core.types import Array

DATA, FSDP, SEQUENCE, TENSOR = "data", "fsdp", "sequence", "tensor"
AXES = (DATA, FSDP, SEQUENCE, TENSOR)  # the last ones talk most: neighbours in the devices' order share them
BATCH = (DATA, FSDP)  # what a batch's rows are split over


def constrain(x: Array, *axes: tuple[str, ...] | str | None) -> Array:
    """Return `x`, which the compiled program splits as `axes` say, one entry a dimension.

    Changes no value. Without a mesh that XLA splits by itself (one device, pmap, plain JAX) nothing happens; an axis
    that does not divide its dimension is left out, as two heads cannot be spread over four devices.
    """
    sizes = _sizes()
    if not sizes:
        return x
    spec = [_dividing(length, axis, sizes) for length, axis in zip(x.shape, axes, strict=True)]
    return jax.lax.with_sharding_constraint(x, P(*spec))


def constrain_rows(x: Array) -> Array:
    """Return `x` [B, ...], split by rows alone: its gradient as well, which XLA might split as the next kernel is."""
    return constrain(x, BATCH, *(None,) * (x.ndim - 1))


def is_split(axis: str) -> bool:
    """Say whether the program that is traced spreads `axis` over several devices."""
    return _sizes().get(axis, 1) > 1


def rows_are_split() -> bool:
    """Say whether the program that is traced spreads a batch's rows: no dimension before them can then be joined."""
    return any(map(is_split, BATCH))


def _sizes() -> dict[str, int]:
    """Return the axes that XLA splits by itself, with their devices."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
    return {name: size for name, size, kind in axes if kind == AxisType.Auto}


def _dividing(length: int, axis: tuple[str, ...] | str | None, sizes: dict[str, int]) -> tuple[str, ...]:
    names = (axis,) if isinstance(axis, str) else axis or ()
    there = tuple(name for name in names if name in sizes)
    return there if length % math.prod(sizes[name] for name in there) == 0 else ()
