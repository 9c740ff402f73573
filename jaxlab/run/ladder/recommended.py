"""The rung of recommenders that rank a whole catalogue: everyone is shown what most choices of training are of.

Ranks are found by the config's own ``config.generate``, so the same items are left out and ties count in the same way.
Shape letters: N rows, B of them at once, T places of a history, V items. Usage: ``fits = rungs(problem)``.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core.types import Array, Batch
from jaxlab.models.catalogue import Ranking
from jaxlab.run.ladder.problem import RANKS, Columns, Fit, Fitted, Problem
from jaxlab.run.ladder.rows import Rows

_BATCH = 512  # rows at once


def rungs(problem: Problem) -> Mapping[str, Fit]:
    """Return popularity, where the ranks are those of `jaxlab.models.catalogue`."""
    ranking = problem.generate
    if problem.kind != RANKS or not isinstance(ranking, Ranking):
        return {}
    return {"popularity": lambda: _popularity(problem, ranking)}


def _popularity(problem: Problem, ranking: Ranking) -> Fitted:
    train = {**problem.train.inputs, **problem.train.fields}
    items = train[ranking.item]
    real = items[train[ranking.item_mask] > 0] if ranking.item_mask else items.reshape(-1)
    known = len(problem.data.meta.get(f"categories:{ranking.item}", ()))
    count_V = np.bincount(real, minlength=known)
    score_V = jnp.asarray(count_V, jnp.float32)

    @jax.jit
    def rank(batch: Batch) -> Array:
        return ranking.rank(jnp.broadcast_to(score_V, (len(batch["mask"]), len(score_V))), batch)["rank"]

    def predict(rows: Rows) -> Columns:
        fields = {**rows.inputs, **rows.fields}
        wanted = {name: fields[name] for name in ranking.fields}
        wanted["mask"] = np.ones(len(rows), np.float32)
        batches = ({name: x[i : i + _BATCH] for name, x in wanted.items()} for i in range(0, len(rows), _BATCH))
        return {"rank": np.concatenate([np.asarray(rank(batch)) for batch in batches])}

    return Fitted(predict, len(problem.train), "how often an item was chosen in training, the same list for everyone")
