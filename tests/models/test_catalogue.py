"""Ranks of whole catalogues are what counting one item after the other gives, for every recommender and any ties."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec
from jaxlab.data.arrays import ArraySource
from jaxlab.data.fitting import Transformed, fit_all
from jaxlab.data.seen import items as learn_items
from jaxlab.metrics import ranked, ranking
from jaxlab.models import catalogue, factorisation, mlp, sasrec, two_tower

B, T, USERS, ITEMS = 12, 5, 4, 9
INT = np.int32
SHAPES = {"user": ((), INT), "item": ((), INT), "rating": ((), np.float32), "items": ((T,), INT)}
SHAPES |= {"item_mask": ((T,), np.float32), "targets": ((T,), INT), "target_mask": ((T,), np.float32)}
SEEN = ((0, 3, 8), (), (1,), (0, 1, 2, 4, 5))  # by user
NAMES = {"categories:user": tuple("abcd"), **{f"categories:{x}": tuple("abcdefghi") for x in ("item", "items")}}
DATA = DataSpec({name: jax.ShapeDtypeStruct(*x) for name, x in SHAPES.items()}, B, {**NAMES, "seen:item": SEEN})


class Table(nn.Module):
    """A recommender of one's own: a score of each item for each user."""

    @nn.compact
    def __call__(self, user_B):
        return {"score": self.scores(user_B)["scores"][:, 0]}

    @nn.compact
    def scores(self, user_B):
        table = self.param("table", nn.initializers.zeros, (USERS, ITEMS))
        return {"scores": table[user_B]}


def batch_of(seed=0):
    random = np.random.default_rng(seed)
    real = random.random((2, B, T)) < 0.6
    return {
        "user": random.integers(0, USERS, B).astype(INT),
        "item": random.integers(0, ITEMS, B).astype(INT),
        "items": random.integers(0, ITEMS, (B, T)).astype(INT),
        "item_mask": real[0].astype(np.float32),
        "targets": random.integers(0, ITEMS, (B, T)).astype(INT),
        "target_mask": real[1].astype(np.float32),
        "mask": (random.random(B) < 0.8).astype(np.float32),
    }


def rank_of(score_V, item, had):
    """Return how many items that were not had score no less than the item, by counting them, and 1."""
    return 1 + sum(not score_V[v] < score_V[item] for v in range(len(score_V)) if v != item and v not in had)


def table_of(seed, tied):
    score_UV = np.random.default_rng(seed).normal(0, 2, (USERS, ITEMS)).astype(np.float32)
    return np.round(score_UV) if tied else score_UV


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.booleans(), st.booleans(), st.booleans())
def test_a_rank_is_found_by_counting_all_items_but_those_that_the_user_had(seed, tied, without_training, without_own):
    score_UV, batch = table_of(seed, tied), batch_of(seed)
    left_out = {"user": "user"} if without_training else {}
    left_out |= {"seen": "items", "seen_mask": "item_mask"} if without_own else {}
    found = catalogue.rank(DATA, **left_out)(Table(), {"params": {"table": score_UV}}, batch)["rank"]
    assert found.dtype == np.int32
    for b, user in enumerate(batch["user"]):
        had = set(SEEN[user]) if without_training else set()
        had |= {v for v, real in zip(batch["items"][b], batch["item_mask"][b], strict=True) if real and without_own}
        expected = rank_of(score_UV[user], batch["item"][b], had) if batch["mask"][b] else 0
        assert found[b] == expected


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_of_a_history_the_last_place_to_be_judged_is_ranked_and_a_row_without_one_is_not(seed):
    score_UV, batch = table_of(seed, False), batch_of(seed)
    ranks = catalogue.rank(DATA, item="targets", item_mask="target_mask")
    found = ranks(Table(), {"params": {"table": score_UV}}, batch)["rank"]
    for b, user in enumerate(batch["user"]):
        places = np.flatnonzero(batch["target_mask"][b])
        there = len(places) and batch["mask"][b]
        assert found[b] == (rank_of(score_UV[user], batch["targets"][b, places[-1]], ()) if there else 0)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.booleans())
def test_metrics_of_ranks_are_those_of_scores_and_without_ties_scikit_learns(seed, tied):
    score_UV, batch = table_of(seed, tied), {**batch_of(seed), "mask": np.ones(B, np.float32)}
    table = {"rank": np.asarray(catalogue.rank(DATA)(Table(), {"params": {"table": score_UV}}, batch)["rank"])}
    logits = score_UV[batch["user"]]
    outputs = {"logits": logits, "target": batch["item"]}
    for name, options in {"hit_rate": {"k": 3}, "recall": {"k": 3}, "ndcg": {"k": 3}, "mrr": {}}.items():
        additive = getattr(ranking, name)(**options)
        expected = additive.compute(jax.device_get(additive.update(outputs, batch)))
        metric = getattr(ranked, name)(**options)
        assert metric.prepare(table, {})(np.ones(B)) == pytest.approx(expected, abs=1e-6)
        if metric.interval is not None:
            assert metric.interval(table).point == pytest.approx(expected, abs=1e-6)
    if not tied:
        own = ndcg_score(np.eye(ITEMS)[batch["item"]], logits, k=3)
        assert ranked.ndcg(3).prepare(table, {})(np.ones(B)) == pytest.approx(own, abs=1e-6)


MODELS = {
    "factorisation": (factorisation.make(DATA, factors=3), ("user", "item"), {"inputs": ("user",)}),
    "two towers": (two_tower.make(DATA, hidden=(4,), width=3), ("user", "item"), {"inputs": ("user",)}),
    "SASRec": (
        sasrec.make(DATA, width=4, depth=1),
        ("items", "item_mask"),
        {"inputs": ("items", "item_mask"), "item": "targets", "item_mask": "item_mask"},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_scores_of_all_items_are_those_that_the_model_gives_each_alone(name):
    model, inputs, options = MODELS[name]
    batch = {**batch_of(), "mask": np.ones(B, np.float32)}
    batch["item_mask"][:, 0] = 1
    flag = {} if name == "factorisation" else {"train": False}
    fields = [batch[field] for field in inputs]
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *fields, **flag))
    random = np.random.default_rng(1)
    variables = jax.tree.map(lambda x: random.normal(0.2, 0.7, x.shape).astype(np.float32), shapes)
    if name == "SASRec":  # what it says of all items after the last one
        last_B = np.where(batch["item_mask"] > 0, np.arange(T), 0).max(axis=1)
        score_BV = np.asarray(model.apply(variables, *fields, train=False)["logits"])[np.arange(B), last_B]
        item_B = batch["targets"][np.arange(B), last_B]
    else:
        pairs = [model.apply(variables, batch["user"], np.full(B, v, INT), **flag)["score"] for v in range(ITEMS)]
        score_BV, item_B = np.stack(pairs, axis=1), batch["item"]
    found = jax.jit(lambda v, b: catalogue.scores_of(model, v, tuple(b[x] for x in options["inputs"])))(
        variables, batch
    )
    np.testing.assert_allclose(found, score_BV, rtol=1e-4, atol=1e-5)
    ranks = catalogue.rank(DATA, **options)(model, variables, batch)["rank"]
    assert ranks.tolist() == [rank_of(score, item, ()) for score, item in zip(np.asarray(found), item_B, strict=True)]


def test_a_model_that_tells_nothing_apart_or_says_nan_finds_nothing():
    batch = {**batch_of(), "mask": np.ones(B, np.float32)}
    for score in (0.0, np.nan, np.inf):
        table = np.full((USERS, ITEMS), score, np.float32)
        assert (catalogue.rank(DATA)(Table(), {"params": {"table": table}}, batch)["rank"] == ITEMS).all()


def test_what_users_had_is_learnt_from_training_alone_and_survives_json():
    fields = {"user": np.array([2, 0, 2, 2, 0], INT), "item": np.array([5, 1, 0, 5, 3], INT)}
    train = ArraySource(fields, NAMES)
    fit = fit_all((learn_items(),), train, None)
    assert fit.meta["seen:item"] == ((1, 3), (), (0, 5))
    rows = Transformed(train, fit.transforms, fit.meta).__getitems__(np.arange(5))
    assert set(rows) == set(fields)
    history = {"user": fields["user"][:2], "items": np.array([[4, 4, 1], [2, 0, 0]], INT)}
    history["item_mask"] = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    fit = fit_all((learn_items(item="items", mask="item_mask"),), ArraySource(history, NAMES), None)
    assert fit.meta["seen:items"] == ((2,), (), (4,))


def test_a_user_beyond_those_of_training_has_had_nothing():
    data = DATA._replace(meta={**NAMES, "seen:item": SEEN[:2]})
    score_UV, batch = table_of(0, False), {**batch_of(), "mask": np.ones(B, np.float32)}
    found = catalogue.rank(data, user="user")(Table(), {"params": {"table": score_UV}}, batch)["rank"]
    had = [*SEEN[:2], (), ()]
    assert found.tolist() == [
        rank_of(score_UV[u], v, had[u]) for u, v in zip(batch["user"], batch["item"], strict=True)
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"item": "itme"}, "no field 'itme'; did you mean 'item'"),
        ({"item": "rating"}, "'rating' holds float32; expected ids"),
        ({"inputs": ()}, r"inputs=\(\)"),
        ({"seen_mask": "item_mask"}, "seen_mask='item_mask': expected its field"),
        ({"user": "user", "item": "targets"}, r"lacks .*jaxlab\.data\.seen:items.*targets"),
    ],
)
def test_options_that_do_not_fit_the_data_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        catalogue.rank(DATA, **options)


def test_a_model_without_scores_of_all_items_is_named():
    images = DataSpec({"image": jax.ShapeDtypeStruct((2,), np.float32)}, 1, {"classes": ("a", "b")})
    with pytest.raises(ConfigError, match=r"config\.model is a jaxlab\.models\.mlp\.\w+, which has no method `scores`"):
        catalogue.rank(DATA)(mlp.make(images, None), {}, batch_of())
    towers = two_tower.make(DATA, candidate=("item", "rating"), numeric=("rating",), hidden=(4,), width=3)
    with pytest.raises(ConfigError, match="item, rating: all items can be scored only"):
        jax.eval_shape(lambda: towers.init(jax.random.key(0), batch_of()["user"], train=False, method="scores"))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"user": "usr"}, ConfigError, "no field 'usr'; did you mean 'user'"),
        ({"item": "rating"}, DataError, "'rating' hold float.*; expected ids from 0"),
    ],
)
def test_fields_that_hold_no_choices_are_named(options, error, said):
    fields = {"user": np.array([0, 1], INT), "item": np.array([1, 2], INT), "rating": np.array([1.0, 2.0], np.float32)}
    with pytest.raises(error, match=said):
        fit_all((learn_items(**options),), ArraySource(fields, NAMES), None)
