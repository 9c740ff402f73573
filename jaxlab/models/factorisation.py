"""Matrix factorisation with biases (Koren, Bell & Volinsky 2009, "Matrix Factorization Techniques for Recommender
Systems", IEEE Computer 42(8), equations 3 and 4).

A user's score of an item is ``offset + user's bias + item's bias + user's factors · item's factors``.
Shape letters: B batch, N negatives, I items, D factors.
Usage: ``spec("jaxlab.models.factorisation:make", users=943, items=1682)`` with ``inputs=("user", "item")``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab.core.types import DataSpec
from jaxlab.models.columns import codes_of
from jaxlab.models.options import within


class Factorisation(nn.Module):
    """A row of factors and a bias for each user and each item; ids beyond the tables give nan."""

    users: int
    items: int
    factors: int
    mean: float
    scale: float

    def setup(self) -> None:
        factors, bias = nn.initializers.normal(self.scale), nn.initializers.zeros
        self.offset = self.param("offset", nn.initializers.constant(self.mean), ())
        self.user_factors = nn.Embed(self.users, self.factors, embedding_init=factors)
        self.item_factors = nn.Embed(self.items, self.factors, embedding_init=factors)
        self.user_bias = nn.Embed(self.users, 1, embedding_init=bias)
        self.item_bias = nn.Embed(self.items, 1, embedding_init=bias)

    def __call__(
        self, user_B: jax.Array, item_B: jax.Array, negatives_BN: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Return ``score`` [B], also as ``prediction``, and for items that nobody chose ``negative_scores`` [B, N]."""
        score_B = self._score(user_B, item_B[:, None])[:, 0]
        results = {"score": score_B, "prediction": score_B}
        if negatives_BN is not None:
            results["negative_scores"] = self._score(user_B, negatives_BN)
        return results

    def scores(self, user_B: jax.Array) -> dict[str, jax.Array]:
        """Return ``scores`` [B, I] of all items."""
        product_BI = self.item_factors.attend(self.user_factors(user_B))
        return {"scores": self.offset + self.user_bias(user_B) + self.item_bias.embedding[:, 0] + product_BI}

    def _score(self, user_B: jax.Array, item_BN: jax.Array) -> jax.Array:
        product_BN = jnp.einsum("BD,BND->BN", self.user_factors(user_B), self.item_factors(item_BN))
        return self.offset + self.user_bias(user_B) + self.item_bias(item_BN)[..., 0] + product_BN


def make(
    data: DataSpec,
    user: str = "user",
    item: str = "item",
    users: int = 0,
    items: int = 0,
    factors: int = 32,
    mean: float = 0.0,
    scale: float = 0.1,
) -> Factorisation:
    """Return a matrix factorisation; it is called with the users, the items, and perhaps negative items [B, N].

    Args:
      data: names the users and items as ``categories:USER`` and ``categories:ITEM``, where they were encoded.
      user: field of users' ids [B], from 0.
      item: field of items' ids [B], from 0.
      users: how many there are, where the data does not name them.
      items: likewise.
      factors: numbers a user and an item have.
      mean: where the offset, which is learnt, starts: for ratings their mean.
      scale: standard deviation of the first factors.

    Raises:
      ConfigError: a field that is not there or holds no ids, fewer users or items than the data has, no factors.
      DataError: neither the data nor the config states how many users or items there are.
    """
    within("factors", factors, 1)
    within("scale", scale, 0)
    rows = codes_of(data, user, users, "users"), codes_of(data, item, items, "items")
    return Factorisation(*rows, factors, mean, scale)
