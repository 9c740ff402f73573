"""Ranking metrics are what sorting the full catalogue gives, for any scores, ties, masks and cuts into batches."""

import functools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from jaxlab.core.errors import ConfigError
from jaxlab.metrics import ranking

T, V = 5, 9
SEEN = {"seen": "items", "seen_mask": "item_mask"}
METRICS = {
    "hit_rate": (ranking.hit_rate(3), ranking.hit_rate(3, **SEEN), lambda rank: float(rank <= 3)),
    "recall": (ranking.recall(3), ranking.recall(3, **SEEN), lambda rank: float(rank <= 3)),
    "ndcg": (ranking.ndcg(3), ranking.ndcg(3, **SEEN), lambda rank: (rank <= 3) / math.log2(1 + rank)),
    "mrr": (ranking.mrr(), ranking.mrr(**SEEN), lambda rank: 1 / rank),
}
each_metric = pytest.mark.parametrize("name", METRICS)
HIT_4, NDCG_4 = ranking.hit_rate(4), ranking.ndcg(4)
compiled = functools.cache(jax.jit)


def rows_of(seed, n, *, tied):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (n, T, V))
    outputs = {
        "logits": (np.round(logits) if tied else logits).astype(np.float32),
        "target": random.integers(0, V, (n, T)).astype(np.int32),
        "token_weight": (random.random((n, T)) < 0.5).astype(np.float32),
    }
    batch = {
        "mask": (random.random(n) < 0.8).astype(np.float32),
        "items": random.integers(0, V, (n, T)).astype(np.int32),
        "item_mask": (random.random((n, T)) < 0.7).astype(np.float32),
    }
    return outputs, batch


def measured(metric, outputs, batch, cut=0):
    """Measure in two batches, cut where told."""
    update = compiled(metric.update)
    parts = [
        jax.device_get(update(*({name: value[rows] for name, value in fields.items()} for fields in (outputs, batch))))
        for rows in (slice(0, cut), slice(cut, None))
        if len(batch["mask"][rows])
    ]
    return metric.compute(jax.tree.map(lambda *sums: np.sum(sums, axis=0, dtype=np.float64), *parts))


def ranks_of(outputs, batch, *, without_seen):
    """Return the rank of each user's last target, by counting one item after the other."""
    ranks = []
    for b in np.flatnonzero(batch["mask"] > 0):
        places = np.flatnonzero(outputs["token_weight"][b] > 0)
        if not len(places):
            continue
        t = places[-1]
        score, own = outputs["logits"][b, t], outputs["target"][b, t]
        had = {int(batch["items"][b, p]) for p in range(t + 1) if batch["item_mask"][b, p] > 0}
        rivals = [v for v in range(V) if v != own and not (without_seen and v in had)]
        ranks.append(1 + sum(score[v] >= score[own] for v in rivals))
    return ranks


@each_metric
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 4]), st.booleans(), st.booleans())
def test_it_is_the_mean_over_users_of_what_their_last_target_s_rank_gains(name, seed, cut, tied, without_seen):
    outputs, batch = rows_of(seed, 8, tied=tied)
    every, unseen, gain = METRICS[name]
    ranks = ranks_of(outputs, batch, without_seen=without_seen)
    found = measured(unseen if without_seen else every, outputs, batch, cut)
    if ranks:
        assert found == pytest.approx(np.mean([gain(rank) for rank in ranks]), abs=1e-6)
    else:
        assert math.isnan(found)


@each_metric
def test_of_one_user_it_is_what_that_rank_gains_and_of_none_there_is_no_number(name):
    outputs, batch = rows_of(5, 8, tied=False)
    every, _, gain = METRICS[name]
    alone = {**batch, "mask": np.eye(8, dtype=np.float32)[2]}
    assert measured(every, outputs, alone) == pytest.approx(gain(*ranks_of(outputs, alone, without_seen=False)))
    assert math.isnan(measured(every, outputs, {**batch, "mask": np.zeros(8, np.float32)}))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_of_one_prediction_a_row_they_are_scikit_learns(seed):
    n = 20
    random = np.random.default_rng(seed)
    outputs = {"logits": random.normal(size=(n, V)).astype(np.float32), "target": random.integers(0, V, n)}
    batch, relevant = {"mask": np.ones(n, np.float32)}, np.eye(V)[outputs["target"]]
    hit = top_k_accuracy_score(outputs["target"], outputs["logits"], k=4, labels=range(V))
    assert measured(HIT_4, outputs, batch) == pytest.approx(hit)
    ndcg = ndcg_score(relevant, outputs["logits"], k=4)
    assert measured(NDCG_4, outputs, batch) == pytest.approx(ndcg, abs=1e-6)


@each_metric
def test_a_model_that_tells_nothing_apart_is_ranked_last_and_so_is_one_of_nan(name):
    every, _, gain = METRICS[name]
    for score in (0.0, np.nan, np.inf):
        outputs = {"logits": np.full((2, V), score, np.float32), "target": np.array([0, 5])}
        found = measured(every, outputs, {"mask": np.ones(2, np.float32)})
        assert found == pytest.approx(gain(V), abs=1e-6)


@each_metric
def test_what_padding_holds_does_not_show(name):
    outputs, batch = rows_of(3, 10, tied=False)
    metric = METRICS[name][0]
    clean = measured(metric, outputs, batch)
    padded = batch["mask"] == 0
    outputs["logits"][padded], outputs["target"][padded], outputs["token_weight"][padded] = np.nan, 10**6, np.nan
    nothing = outputs["token_weight"] == 0
    outputs["logits"][nothing], outputs["target"][nothing] = np.nan, -1
    assert measured(metric, outputs, batch) == pytest.approx(clean)


def test_seen_items_are_those_of_the_whole_field_where_there_are_no_places():
    outputs = {"logits": np.arange(V, dtype=np.float32)[None], "target": np.array([4])}
    batch = {"mask": np.ones(1, np.float32), "items": np.array([[8, 7, 4, 0]])}
    assert measured(ranking.mrr(), outputs, batch) == pytest.approx(1 / 5)
    assert measured(ranking.mrr(seen="items"), outputs, batch) == pytest.approx(1 / 3)


@pytest.mark.parametrize("make", [ranking.hit_rate, ranking.recall, ranking.ndcg])
def test_a_list_of_nothing_is_an_error(make):
    with pytest.raises(ConfigError, match="k=0; expected at least 1"):
        make(k=0)


def test_a_mask_of_no_items_and_scores_of_no_catalogue_are_errors():
    with pytest.raises(ConfigError, match="seen_mask='item_mask': expected its field of items"):
        ranking.mrr(seen_mask="item_mask")
    outputs = {"logits": np.zeros((2, V), np.float32), "target": np.zeros((2, T), np.int32)}
    with pytest.raises(ConfigError, match=r"mrr reads logits .* \(2, 9\) and \(2, 5\)"):
        ranking.mrr().update(outputs, {"mask": np.ones(2, np.float32)})
