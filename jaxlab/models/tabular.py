"""A multilayer perceptron over a table's rows, with an embedding of each category (Guo & Berkhahn 2016,
arXiv 1604.06737).

Shape letters: B batch, D features, C classes or values to predict.
Usage: ``spec("jaxlab.models.tabular:make", categories=("colour", "shop"))`` with an objective whose
``inputs=("features", "colour", "shop")``: the numeric fields, then the categories, then ``mask`` if you like.
"""

from __future__ import annotations

import math

import jax
from flax import linen as nn

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import DataSpec
from jaxlab.models.columns import Columns, Embedded, Sizes, columns_of
from jaxlab.models.dense import Dense
from jaxlab.models.layers import BatchNorm
from jaxlab.models.options import rate, within


class Head(nn.Module):
    """One dense layer to ``logits`` of classes, or to a ``prediction`` of a shape of numbers."""

    classes: int
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x_BD: jax.Array) -> dict[str, jax.Array]:
        """Return ``logits`` [B, C] if there are classes, else ``prediction`` [B, ...]."""
        y_BC = Dense(self.classes or math.prod(self.shape))(x_BD)
        return {"logits": y_BC} if self.classes else {"prediction": y_BC.reshape(-1, *self.shape)}


class Tabular(nn.Module):
    """Features through dense layers with ReLU; optional batch normalisation and dropout after each hidden layer."""

    columns: Columns
    embedding_width: int
    embedding_dropout: float
    hidden: tuple[int, ...]
    dropout: float
    batch_norm: bool
    batch_axis: str | None
    classes: int
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, *fields: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Return the `Head`'s results for the columns' fields, after which the batch's ``mask`` [B] may come."""
        count = len(self.columns.numeric) + len(self.columns.categories)
        mask_B = fields[count] if len(fields) == count + 1 else None
        fields = fields if mask_B is None else fields[:count]
        x_BD = Embedded(self.columns, self.embedding_width, self.embedding_dropout)(fields, train)
        for width in self.hidden:
            x_BD = Dense(width, use_bias=not self.batch_norm)(x_BD)
            if self.batch_norm:
                x_BD = BatchNorm(self.batch_axis)(x_BD, mask_B, train=train)
            x_BD = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x_BD))
        return Head(self.classes, self.shape)(x_BD)


def head_of(data: DataSpec, target: str) -> tuple[int, tuple[int, ...]]:
    """Return the number of classes and no shape, or for a `target` of numbers 0 and its shape; or a ConfigError."""
    if not target:
        return len(data.classes), ()
    if target not in data.example:
        raise ConfigError(
            f"config.model.target={target!r}: the data has no such field{did_you_mean(target, data.example)}"
        )
    return 0, tuple(data.example[target].shape)


def make(
    data: DataSpec,
    batch_axis: str | None,
    numeric: tuple[str, ...] = ("features",),
    categories: tuple[str, ...] = (),
    sizes: Sizes = (),
    target: str = "",
    embedding_width: int = 0,
    embedding_dropout: float = 0.0,
    hidden: tuple[int, ...] = (256, 128),
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> Tabular:
    """Return a perceptron of embedded categories and numbers; called with numeric fields, then categories.

    Args:
      data: has the fields; names the codes of the categories (``categories:NAME``), and the classes.
      batch_axis: mapped axis of the batch, for batch normalisation.
      numeric: fields of numbers, [B] or [B, ...], scaled.
      categories: fields of codes [B]; 0 is the unknown of `jaxlab.data.table_categories.ordinal`.
      sizes: number of codes of the categories that the data does not name them for: ``(("shop", 1024),)``.
      target: field of numbers to predict, as ``prediction`` of its shape; empty: ``logits``, one a class of the data.
      embedding_width: of every category; 0: half the number of its codes, at most 50.
      embedding_dropout: on the embeddings.
      hidden: widths.
      dropout: after each hidden layer.
      batch_norm: whether hidden layers are normalised; pass ``mask`` as the last input to keep padding out of it.

    Raises:
      ConfigError: a field that is not there or of the wrong kind, or a number that cannot be.
      DataError: a category whose number of codes nobody states, or data without classes or `target`.
    """
    columns = columns_of(data, numeric, categories, sizes)
    rate("dropout", dropout)
    rate("embedding_dropout", embedding_dropout)
    for width in hidden:
        within("hidden", width, 1)
    within("embedding_width", embedding_width, 0)
    return Tabular(
        columns, embedding_width, embedding_dropout, hidden, dropout, batch_norm, batch_axis, *head_of(data, target)
    )
