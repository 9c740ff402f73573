"""A table's fields as a model sees them: numbers side by side, and codes of categories with an embedding each.

How many codes a field has is a fact of the data: ``categories:NAME``, the name of each code, which the transform
`jaxlab.data.table_categories.ordinal` states, with code 0 for what training never saw. Fields of codes without names
(users, items of your own) have their number given by the model's option `sizes`.
Shape letters: B batch, K values of a field, F numbers, W an embedding's width, D all of a row's features.
Usage: ``columns_of(data, ("features",), ("colour",), (("shop", 1024),))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import DataSpec

Sizes = tuple[tuple[str, int], ...]
"""Pairs of a field and its number of codes."""


class Columns(NamedTuple):
    """The fields of a model in the order in which it is called: all numbers, then all categories."""

    numeric: tuple[str, ...]
    widths: tuple[int, ...]
    categories: tuple[str, ...]
    codes: tuple[int, ...]

    def split(self, fields: Sequence[jax.Array]) -> tuple[jax.Array | None, Sequence[jax.Array]]:
        """Return the numbers [B, F], None if there are none, and each category's codes [B].

        Raises:
          ConfigError: not as many fields as there are columns.
        """
        names = (*self.numeric, *self.categories)
        if len(fields) != len(names):
            raise ConfigError(
                f"config.objective.inputs: the model was called with {len(fields)} fields; expected {len(names)}, in "
                f"this order: {', '.join(names)}"
            )
        numbers = [x.reshape(x.shape[0], -1) for x in fields[: len(self.numeric)]]
        return jnp.concatenate(numbers, axis=1) if numbers else None, fields[len(self.numeric) :]


class Embedded(nn.Module):
    """A row's numbers beside an embedding of each of its categories (Guo & Berkhahn 2016, arXiv 1604.06737)."""

    columns: Columns
    width: int
    dropout: float

    @nn.compact
    def __call__(self, fields: Sequence[jax.Array], train: bool) -> jax.Array:
        """Return the features [B, D]."""
        numbers_BF, codes = self.columns.split(fields)
        parts = [] if numbers_BF is None else [numbers_BF]
        for name, count, code_B in zip(self.columns.categories, self.columns.codes, codes, strict=True):
            width = self.width or embedding_width(count)
            x_BW = nn.Embed(count, width, name=f"{name}_embedding")(code_B)
            parts.append(nn.Dropout(self.dropout, deterministic=not train)(x_BW))
        return jnp.concatenate(parts, axis=1)


def embedding_width(count: int) -> int:
    """Return the width of an embedding of `count` codes by a rule of thumb: half as many, at most 50."""
    return min(50, (count + 1) // 2)


def columns_of(data: DataSpec, numeric: tuple[str, ...], categories: tuple[str, ...], sizes: Sizes = ()) -> Columns:
    """Return the columns of a table.

    Args:
      data: has the fields, and names the codes of the categories.
      numeric: fields of numbers, [B] or [B, ...].
      categories: fields of codes [B].
      sizes: number of codes of the categories that the data does not name them for, as ``(("shop", 1024),)``.

    Raises:
      ConfigError: no field, one that the data lacks or that is of the other kind, or a size that cannot be.
      DataError: a category whose number of codes nobody states.
    """
    if not numeric and not categories:
        raise ConfigError("config.model: numeric=(), categories=(): expected at least one field")
    given = sizes_of(sizes)
    for option, names in (("numeric", numeric), ("categories", categories), ("sizes", tuple(given))):
        if isinstance(names, str) or len({*names}) != len(names):
            raise ConfigError(f"config.model.{option}={names!r}: expected a tuple of different names")
        for name in names:
            if name not in data.example:
                raise ConfigError(
                    f"config.model.{option}={names!r}: the data has no field {name!r}{did_you_mean(name, data.example)}"
                )
    for name in numeric:
        if np.dtype(data.example[name].dtype).kind not in "biuf":
            raise ConfigError(f"config.model.numeric={numeric!r}: {name!r} holds no numbers; encode it or leave it out")
    widths = tuple(int(np.prod(data.example[name].shape)) for name in numeric)
    codes = tuple(codes_of(data, name, given.get(name, 0), "sizes") for name in categories)
    return Columns(tuple(numeric), widths, tuple(categories), codes)


def sizes_of(sizes: Sizes) -> dict[str, int]:
    """Return the number of codes by field; ConfigError for what are no pairs of a name and a number."""
    pairs = all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in sizes)
    if not pairs or not all(isinstance(name, str) and isinstance(count, int) for name, count in sizes):
        raise ConfigError(f"config.model.sizes={sizes!r}: expected pairs of a field and a number: (('shop', 1024),)")
    return dict(sizes)


def codes_of(data: DataSpec, field: str, given: int, option: str, known: int = 0) -> int:
    """Return how many codes `field` has: `given`, or as many as the data names as ``categories:FIELD``, or `known`.

    Args:
      data: of the run.
      field: whole numbers [B] or [B, T].
      given: by the config's `option`; 0 if it says nothing.
      option: its name, for messages.
      known: by another fact of the data; 0 if there is none.

    Raises:
      ConfigError: no such field, one that holds no whole numbers, or fewer given than the data has.
      DataError: neither the data nor the config states a number.
    """
    if field not in data.example:
        raise ConfigError(f"config.model: the data has no field {field!r}{did_you_mean(field, data.example)}")
    if np.dtype(data.example[field].dtype).kind not in "iu":
        raise ConfigError(
            f"config.model: {field!r} holds {np.dtype(data.example[field].dtype)}; expected codes from 0, as by "
            f'spec("jaxlab.data.table_categories:ordinal", columns=({field!r},))'
        )
    named = len(data.meta.get(f"categories:{field}", ())) or known
    if given < 0 or 0 < given < named:
        raise ConfigError(f"config.model.{option}: {given} codes for {field!r}; expected at least {max(named, 1)}")
    if not (given or named):
        raise DataError(
            f"the data does not say how many codes {field!r} has (categories:{field}, as "
            f'spec("jaxlab.data.table_categories:ordinal", columns=({field!r},)) states); or set '
            f"config.model.{option}"
        )
    return given or named
