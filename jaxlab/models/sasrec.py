"""SASRec: what a user chooses next, by causal self-attention over what they chose (Kang & McAuley 2018,
arXiv 1808.09781).

Every place of the sequence scores all items by the product with their embeddings, which the input shares (section 3.4).
With `jaxlab.objectives.language.causal` all items compete; called with targets and negatives too, as by
`jaxlab.objectives.rank.bpr`, it scores those alone, as the paper does with one negative a place (section 3.6).
Shape letters: B batch, T places, D width, V items, N negatives.
Usage: ``spec("jaxlab.models.sasrec:make", items=1683)`` with ``inputs=("items", "item_mask")``, or
``inputs=("items", "item_mask", "targets"), item="targets"``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models.attend import keys
from jaxlab.models.columns import codes_of
from jaxlab.models.options import within
from jaxlab.models.positions import Learned
from jaxlab.models.transformer import Layers, Stack


class SASRec(nn.Module):
    """Embedded items plus learnt positions through blocks whose feed-forward is as wide as they are."""

    items: int
    max_length: int
    layers: Layers

    def setup(self) -> None:
        init = nn.initializers.normal(0.02)
        self.embedding = nn.Embed(self.items, self.layers.width, embedding_init=init)
        self.positions = Learned(self.max_length, self.layers.width, init)
        self.dropout = nn.Dropout(self.layers.dropout)
        self.stack = Stack(self.layers)

    def __call__(
        self,
        items_BT: jax.Array,
        mask_BT: jax.Array | None = None,
        targets_BT: jax.Array | None = None,
        negatives_BTN: jax.Array | None = None,
        *,
        train: bool,
    ) -> dict[str, jax.Array]:
        """Return ``logits`` [B, T, V] of the item after each place; or with targets their ``score`` [B, T] alone.

        Args:
          items_BT: ids in the order of time; beyond the table they give nan.
          mask_BT: 1 where there is an item, 0 for padding, on whichever side; positions count the items alone.
          targets_BT: the item that came after each place.
          negatives_BTN: items that did not, for ``negative_scores`` [B, T, N].
          train: whether there is dropout.
        """
        y_BTD = self._read(items_BT, mask_BT, train)
        if targets_BT is None:
            return {"logits": self.embedding.attend(y_BTD)}
        results = {"score": jnp.einsum("BTD,BTD->BT", y_BTD, self.embedding(targets_BT))}
        if negatives_BTN is not None:
            results["negative_scores"] = jnp.einsum("BTD,BTND->BTN", y_BTD, self.embedding(negatives_BTN))
        return results

    def scores(self, items_BT: jax.Array, mask_BT: jax.Array | None = None, *, train: bool) -> dict[str, jax.Array]:
        """Return ``scores`` [B, V] of all items after the last one of each row."""
        mask_BT = jnp.ones(items_BT.shape) if mask_BT is None else mask_BT
        last_B = jnp.where(mask_BT > 0, jnp.arange(items_BT.shape[1]), 0).max(axis=1)
        y_BTD = self._read(items_BT, mask_BT, train)
        last_BD = jnp.take_along_axis(y_BTD, last_B[:, None, None], axis=1)[:, 0]
        return {"scores": self.embedding.attend(last_BD)}

    def _read(self, items_BT: jax.Array, mask_BT: jax.Array | None, train: bool) -> jax.Array:
        """Return what each place knows of itself and those before it [B, T, D]."""
        mask_BT = jnp.ones(items_BT.shape) if mask_BT is None else mask_BT
        position_BT = jnp.maximum(jnp.cumsum(mask_BT > 0, axis=1) - 1, 0)
        x_BTD = self.dropout(self.embedding(items_BT) + self.positions(position_BT), deterministic=not train)
        return self.stack(x_BTD, keys(mask_BT), train=train)


def make(
    data: DataSpec,
    field: str = "items",
    items: int = 0,
    max_length: int = 0,
    width: int = 64,
    depth: int = 2,
    heads: int = 1,
    dropout: float = 0.2,
    attention: str = "einsum",
) -> SASRec:
    """Return a SASRec model; it is called with the items and perhaps their mask.

    Args:
      data: has the field; names the items as ``categories:FIELD``, or counts them as ``vocabulary_size``.
      field: items' ids [B, T] int32 in the order of time, any that only padding has among them.
      items: number of ids, where the data does not state it.
      max_length: rows of the table of positions; 0: as long as the field.
      width: of the embeddings.
      depth: number of blocks.
      heads: of the attention; must divide the width.
      dropout: of embeddings, attention weights, hidden features and sublayers.
      attention: its implementation, see `jaxlab.models.transformer.Layers`.

    Raises:
      ConfigError: a field that is not there or holds no sequences, fewer items or positions than the data has, or a
        number that cannot be.
      DataError: neither the data nor the config states how many items there are.
    """
    count = codes_of(data, field, items, "items", int(data.meta.get("vocabulary_size", 0)))
    shape = data.example[field].shape
    if len(shape) != 1:
        raise ConfigError(f"config.model.field={field!r}: has {len(shape)} axes a row; expected one, of items in time")
    within("max_length", max_length or shape[0], shape[0])
    layers = Layers(
        width, depth, heads, hidden=width, is_causal=True, activation="relu", dropout=dropout,
        attention_dropout=dropout, hidden_dropout=dropout, attention=attention,
    )  # fmt: skip
    return SASRec(count, max_length or shape[0], layers)
