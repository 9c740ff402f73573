"""Two towers: a query's and a candidate's fields to vectors whose product is their score (Yi et al. 2019,
"Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys, section 4; Huang et al. 2013).

Each tower embeds its ids, sets its numbers beside them and passes all through dense layers.
Shape letters: B batch, I items, D width.
Usage: ``spec("jaxlab.models.two_tower:make", sizes=(("user", 943), ("item", 1682)))`` with ``inputs=("user", "item")``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models.columns import Columns, Embedded, Sizes, columns_of
from jaxlab.models.dense import Dense
from jaxlab.models.options import rate, within


class Tower(nn.Module):
    """Features through hidden layers with ReLU to a vector, of length 1 if wanted."""

    columns: Columns
    order: tuple[int, ...]
    embedding_width: int
    hidden: tuple[int, ...]
    width: int
    dropout: float
    normalise: bool

    @nn.compact
    def __call__(self, fields: tuple[jax.Array, ...], train: bool) -> jax.Array:
        """Return vectors [B, D]."""
        if len(fields) != len(self.order):
            names = (*self.columns.numeric, *self.columns.categories)
            raise ConfigError(
                f"config.objective.inputs: a tower was called with {len(fields)} fields; expected "
                f"{len(names)}: {', '.join(sorted(names))}, as config.model orders them"
            )
        x_BD = Embedded(self.columns, self.embedding_width, 0.0)([fields[place] for place in self.order], train)
        for width in self.hidden:
            x_BD = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(Dense(width)(x_BD)))
        x_BD = Dense(self.width)(x_BD)
        return unit(x_BD) if self.normalise else x_BD


def unit(x_BD: jax.Array) -> jax.Array:
    """Return the vectors at length 1, in float32 within; that of zeros is zeros, and so is its gradient."""
    square_B1 = jnp.sum(jnp.square(x_BD.astype(jnp.float32)), axis=-1, keepdims=True)
    return (x_BD * jax.lax.rsqrt(jnp.maximum(square_B1, 1e-12))).astype(x_BD.dtype)


class TwoTower(nn.Module):
    """Called with the query's fields, then the candidate's."""

    query_tower: Tower
    candidate_tower: Tower

    def __call__(self, *fields: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Return ``query`` [B, D], ``candidate`` [B, D] and their products, ``score`` [B]."""
        count = len(self.query_tower.order)
        query_BD, candidate_BD = self.query_tower(fields[:count], train), self.candidate_tower(fields[count:], train)
        score_B = jnp.einsum("BD,BD->B", query_BD, candidate_BD)
        return {"query": query_BD, "candidate": candidate_BD, "score": score_B}

    def queries(self, *fields: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Return ``query`` [B, D] of the query's fields alone."""
        return {"query": self.query_tower(fields, train)}

    def candidates(self, *fields: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Return ``candidate`` [B, D] of the candidate's fields alone, such as those of the whole catalogue."""
        return {"candidate": self.candidate_tower(fields, train)}

    def scores(self, *fields: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Return ``scores`` [B, I] of all items for the query's fields, where an item's id is its one field.

        Raises:
          ConfigError: the candidate has other fields, which ids alone do not tell.
        """
        columns = self.candidate_tower.columns
        if columns.numeric or len(columns.categories) != 1:
            names = ", ".join((*columns.categories, *columns.numeric))
            raise ConfigError(
                f"config.model.candidate: {names}: all items can be scored only where their id is their one field; "
                "give `candidates` the others in a function of your own"
            )
        item_ID = self.candidate_tower((jnp.arange(columns.codes[0]),), train)
        return {"scores": jnp.einsum("BD,ID->BI", self.query_tower(fields, train), item_ID)}


def make(
    data: DataSpec,
    query: tuple[str, ...] = ("user",),
    candidate: tuple[str, ...] = ("item",),
    numeric: tuple[str, ...] = (),
    sizes: Sizes = (),
    embedding_width: int = 32,
    hidden: tuple[int, ...] = (64,),
    width: int = 32,
    dropout: float = 0.0,
    normalise: bool = True,
) -> TwoTower:
    """Return two towers; they are called with the query's fields, then the candidate's, in the order given here.

    Args:
      data: has the fields; names ids as ``categories:NAME`` where they were encoded.
      query: the query's fields.
      candidate: the candidate's.
      numeric: which of both are numbers, [B] or [B, ...]; all others are ids [B] from 0.
      sizes: number of ids of the fields that the data does not name them for: ``(("user", 943), ("item", 1682))``.
      embedding_width: of every id; 0: half the number of ids, at most 50.
      hidden: widths of each tower's layers before the last.
      width: of the vectors.
      dropout: after each hidden layer.
      normalise: whether vectors have length 1, so that scores are cosines; the objective's temperature scales them.

    Raises:
      ConfigError: a field that is not there or of the wrong kind, or a number that cannot be.
      DataError: a field of ids whose number nobody states.
    """
    rate("dropout", dropout)
    for name, value in (*(("hidden", layer) for layer in hidden), ("width", width)):
        within(name, value, 1)
    within("embedding_width", embedding_width, 0)
    strangers = [name for name in numeric if name not in (*query, *candidate)]
    if strangers:
        raise ConfigError(
            f"config.model.numeric: {strangers[0]!r} is in neither query={query} nor candidate={candidate}"
        )

    def tower(fields: tuple[str, ...]) -> Tower:
        ids = tuple(name for name in fields if name not in numeric)
        columns = columns_of(data, tuple(name for name in fields if name in numeric), ids, sizes)
        order = tuple(fields.index(name) for name in (*columns.numeric, *columns.categories))
        return Tower(columns, order, embedding_width, hidden, width, dropout, normalise)

    return TwoTower(tower(query), tower(candidate))
