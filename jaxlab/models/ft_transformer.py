"""The FT-Transformer: a Transformer over a table's features (Gorishniy et al. 2021, arXiv 2106.11959, section 3.3).

Each number and each category of a row becomes a token; a last layer reads the token [CLS] that all of them inform.
Tokens have no order: features are told apart by their own weights.
Shape letters: B batch, F numbers, D width, T tokens ([CLS] first), S tokens that are read.
Usage: ``spec("jaxlab.models.ft_transformer:make", categories=("colour", "shop"))`` with an objective whose
``inputs=("features", "colour", "shop")``: the numeric fields, then the categories.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.types import DataSpec
from jaxlab.models.attention import Attention
from jaxlab.models.columns import Columns, Sizes, columns_of
from jaxlab.models.options import within
from jaxlab.models.tabular import Head, head_of
from jaxlab.models.transformer import FeedForward, Layers


class Tokenizer(nn.Module):
    """A number times a vector, or a category's vector, plus a bias vector each; before them [CLS] (figure 2a)."""

    columns: Columns
    width: int

    @nn.compact
    def __call__(self, fields: Sequence[jax.Array]) -> jax.Array:
        """Return tokens [B, T, D]."""
        numbers_BF, codes = self.columns.split(fields)
        bound = self.width**-0.5
        tokens = [jnp.broadcast_to(self._vectors("cls", 1, bound), (len(fields[0]), 1, self.width))]
        if numbers_BF is not None:
            weight_FD = self._vectors("number_weights", numbers_BF.shape[1], bound)
            bias_FD = self._vectors("number_biases", numbers_BF.shape[1], bound)
            tokens.append(jnp.einsum("BF,FD->BFD", numbers_BF, weight_FD) + bias_FD)
        for name, count, code_B in zip(self.columns.categories, self.columns.codes, codes, strict=True):
            embed = nn.Embed(count, self.width, embedding_init=symmetric(bound), name=f"{name}_embedding")
            tokens.append((embed(code_B) + self._vectors(f"{name}_bias", 1, bound))[:, None])
        return jnp.concatenate(tokens, axis=1)

    def _vectors(self, name: str, count: int, bound: float) -> jax.Array:
        return self.param(name, symmetric(bound), (count, self.width))


def symmetric(bound: float) -> nn.initializers.Initializer:
    """Return the initializer that draws evenly between -bound and bound."""

    def init(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class FTTransformer(nn.Module):
    """Blocks that normalise first, but for the very first of all sublayers; the last asks for [CLS] alone."""

    columns: Columns
    layers: Layers
    classes: int
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, *fields: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Return ``logits`` [B, classes], or where a target of numbers is named, its ``prediction`` [B, ...]."""
        layers = self.layers
        x_BTD = Tokenizer(self.columns, layers.width, name="tokenizer")(fields)
        drop = nn.Dropout(layers.dropout, deterministic=not train)
        for place in range(layers.depth):
            x_BSD = x_BTD if place == 0 else layers.normalise(f"attention_norm_{place}")(x_BTD)
            asking = slice(None) if place < layers.depth - 1 else slice(0, 1)
            attention = Attention(
                layers.heads, layers.heads, layers.width // layers.heads, True, False, 0.0, layers.attention_dropout,
                layers.attention, layers.kernel_init, layers.output_init, name=f"attention_{place}",
            )  # fmt: skip
            x_BTD = x_BTD[:, asking] + drop(attention(x_BSD[:, asking], x_BSD, cross=True, train=train))
            y_BTD = layers.normalise(f"feed_forward_norm_{place}")(x_BTD)
            x_BTD = x_BTD + drop(FeedForward(layers, name=f"feed_forward_{place}")(y_BTD, train=train))
        return Head(self.classes, self.shape, name="head")(nn.relu(layers.normalise("norm")(x_BTD[:, 0])))


def make(
    data: DataSpec,
    numeric: tuple[str, ...] = ("features",),
    categories: tuple[str, ...] = (),
    sizes: Sizes = (),
    target: str = "",
    width: int = 192,
    depth: int = 3,
    heads: int = 8,
    hidden: int = 256,
    dropout: float = 0.0,
    attention_dropout: float = 0.2,
    hidden_dropout: float = 0.1,
) -> FTTransformer:
    """Return an FT-Transformer of the paper's default size; called with numeric fields, then categories.

    Args:
      data: has the fields; names the codes of the categories (``categories:NAME``), and the classes.
      numeric: fields of numbers, [B] or [B, ...], scaled; each number is a token.
      categories: fields of codes [B]; 0 is the unknown of `jaxlab.data.table_categories.ordinal`.
      sizes: number of codes of the categories that the data does not name them for: ``(("shop", 1024),)``.
      target: field of numbers to predict, as ``prediction`` of its shape; empty: ``logits``, one a class of the data.
      width: of the tokens.
      depth: number of blocks.
      heads: of the attention; must divide the width.
      hidden: the ReGLU feed-forward's width; the paper's is 4 / 3 of the tokens'.
      dropout: of each sublayer's result.
      attention_dropout: of the attention's weights.
      hidden_dropout: of the feed-forward's hidden features.

    Raises:
      ConfigError: a field that is not there or of the wrong kind, or a number that cannot be.
      DataError: a category whose number of codes nobody states, or data without classes or `target`.
    """
    within("hidden", hidden, 1)
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # the Kaiming rule of the authors' code
    layers = Layers(
        width, depth, heads, hidden=hidden, epsilon=1e-5, activation="reglu", dropout=dropout,
        attention_dropout=attention_dropout, hidden_dropout=hidden_dropout, kernel_init=init, output_init=init,
    )  # fmt: skip
    return FTTransformer(columns_of(data, numeric, categories, sizes), layers, *head_of(data, target))
