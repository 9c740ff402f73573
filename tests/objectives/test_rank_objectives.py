"""Losses of ranking are their formulas in float64, negatives are negatives, and corrections correct."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_helpers import check_laws, data_of, judge, masked

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError
from jaxlab.objectives import rank

B, N, ITEMS, D = 8, 4, 6, 3
random = np.random.default_rng(0)
COUNTS = (5, 1, 0, 8, 2, 4)
FIELDS = {
    "user": np.arange(B, dtype=np.int32), "item": np.array([0, 1, 2, 3, 3, 5, 0, 1], np.int32),
    "negatives": random.integers(0, ITEMS, (B, N)).astype(np.int32),
}  # fmt: skip
DATA = data_of(FIELDS, **{"counts:item": COUNTS, "categories:item": tuple("abcdef")})
OUTPUTS = {"score": random.normal(0, 2, B).astype(np.float32),
           "negative_scores": random.normal(0, 2, (B, N)).astype(np.float32)}  # fmt: skip
TOWERS = {name: random.normal(size=(B, D)).astype(np.float32) for name in ("query", "candidate")}
SHARES = np.maximum(COUNTS, 1) / np.maximum(COUNTS, 1).sum()
SAMPLED = [("none", None), ("uniform", np.full(ITEMS, 1 / ITEMS)), ("popularity", SHARES)]


def pairs_of(batch, shifts):
    """Yield each row and of its negatives the place, where their item is, and whether each counts."""
    for row in range(B):
        if not shifts:
            yield row, [(n, n, other != batch["item"][row]) for n, other in enumerate(batch["negatives"][row])]
            continue
        others = [(row + n) % B for n in range(1, shifts + 1)]
        yield (
            row,
            [
                (n, other, batch["mask"][other] > 0 and batch["item"][other] != batch["item"][row])
                for n, other in enumerate(others)
            ],
        )


@pytest.mark.parametrize("shifts", [0, N])
def test_bpr_is_its_formula(shifts):
    batch = masked(FIELDS)
    loss = judge(rank.bpr(DATA, shifts=shifts), batch, OUTPUTS)
    total = weight = 0.0
    for row, pairs in pairs_of(batch, shifts):
        margins = [
            float(OUTPUTS["score"][row]) - OUTPUTS["negative_scores"][row, n] for n, _, counts in pairs if counts
        ]
        if margins and batch["mask"][row]:
            total += np.mean([np.log(1 + np.exp(-margin)) for margin in margins])
            weight += 1
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert float(loss.weight) == weight


@pytest.mark.parametrize(("correction", "shares"), SAMPLED)
@pytest.mark.parametrize("shifts", [0, N])
def test_sampled_softmax_is_its_formula(correction, shares, shifts):
    batch = masked(FIELDS)
    loss = judge(rank.sampled_softmax(DATA, shifts=shifts, correction=correction), batch, OUTPUTS)
    total = 0.0
    for row, pairs in pairs_of(batch, shifts):
        others = batch["item"] if shifts else batch["negatives"][row]
        drawn = sum(batch["mask"][other] > 0 for _, other, _ in pairs) if shifts else N
        chosen, rest = np.exp(float(OUTPUTS["score"][row])), 0.0
        for n, other, counts in pairs:
            if counts:
                factor = 1.0 if shares is None else 1 / (drawn * shares[others[other]])
                rest += np.exp(float(OUTPUTS["negative_scores"][row, n])) * factor
        total -= batch["mask"][row] * np.log(chosen / (chosen + rest))
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert float(loss.weight) == batch["mask"].sum()


def test_the_negatives_of_shifts_are_the_items_of_the_next_rows_and_go_to_the_model_last():
    called = []

    def apply(*inputs):
        called.append(inputs)
        return OUTPUTS, {}

    rank.bpr(DATA, shifts=N)(apply, masked(FIELDS))
    user, item, negatives = called[0]
    assert np.array_equal(user, FIELDS["user"])
    assert np.array_equal(item, FIELDS["item"])
    assert np.array_equal(negatives, [[FIELDS["item"][(row + n) % B] for n in range(1, N + 1)] for row in range(B)])


def test_more_shifts_than_rows_give_no_row_its_own_item_and_no_item_twice():
    outputs = {**OUTPUTS, "negative_scores": np.zeros((B, 2 * B), np.float32)}
    fields = {**FIELDS, "item": np.arange(B, dtype=np.int32)}
    loss = judge(rank.sampled_softmax(data_of(fields), shifts=2 * B), masked(fields, ()), outputs)
    expected = [np.log((np.exp(s) + B - 1) / np.exp(s)) for s in OUTPUTS["score"].astype(np.float64)]
    assert float(loss.total) == pytest.approx(sum(expected), rel=1e-5)


def test_with_all_items_as_negatives_sampled_softmax_is_the_full_softmax():
    scores = random.normal(size=(B, ITEMS)).astype(np.float32)
    fields = {**FIELDS, "negatives": np.tile(np.arange(ITEMS, dtype=np.int32), (B, 1))}
    outputs = {"score": scores[np.arange(B), FIELDS["item"]], "negative_scores": scores}
    expected = -jax.nn.log_softmax(scores)[np.arange(B), FIELDS["item"]].sum()
    for correction in ("none", "uniform"):  # each item drawn once is what uniform draws give in the mean
        loss = judge(
            rank.sampled_softmax(data_of(fields), correction=correction, items=ITEMS), masked(fields, ()), outputs
        )
        assert float(loss.total) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("correction", "shares"), SAMPLED[1:])
def test_with_correction_the_mean_denominator_over_draws_is_that_of_all_items(correction, shares):
    draws = 40_000
    scores_I = random.normal(size=ITEMS).astype(np.float32)
    negatives = random.choice(ITEMS, size=(draws, N), p=shares).astype(np.int32)
    fields = {"user": np.zeros(draws, np.int32), "item": np.full(draws, 3, np.int32), "negatives": negatives}
    outputs = {"score": np.full(draws, scores_I[3]), "negative_scores": scores_I[negatives]}
    objective = rank.sampled_softmax(data_of(fields, **DATA.meta), correction=correction)

    def ratio(row):  # the denominator over exp(score), the exponential of a row's loss
        batch, results = jax.tree.map(lambda x: x[None], row)
        return jnp.exp(judge(objective, {**batch, "mask": jnp.ones(1)}, results).total)

    mean = np.mean(jax.jit(jax.vmap(ratio))((fields, outputs)))
    assert mean == pytest.approx(np.exp(scores_I).sum() / np.exp(scores_I[3]), rel=0.02)


@pytest.mark.parametrize("log_q", [0.0, 1.0])
def test_in_batch_softmax_is_its_formula(log_q):
    batch = masked(FIELDS)
    loss = judge(rank.in_batch_softmax(DATA, temperature=0.3, log_q=log_q), batch, TOWERS)
    query, candidate = (TOWERS[name].astype(np.float64) for name in ("query", "candidate"))
    total = 0.0
    for row in range(B):
        score = {c: query[row] @ candidate[c] / 0.3 - log_q * np.log(SHARES[batch["item"][c]]) for c in range(B)}
        others = [c for c in range(B) if batch["mask"][c] and batch["item"][c] != batch["item"][row]]
        total -= batch["mask"][row] * np.log(np.exp(score[row]) / np.exp([score[c] for c in (row, *others)]).sum())
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert float(loss.weight) == batch["mask"].sum()
    np.testing.assert_allclose(loss.outputs["score"][0], query[0] @ candidate[0] / 0.3, rtol=1e-5)


def test_the_log_q_correction_learns_the_scores_that_uniform_negatives_would_teach():
    """Where users choose by popularity alone, the corrected scores are the log shares and the plain ones are flat."""
    shares = np.array([0.5, 0.3, 0.15, 0.05])
    items = random.choice(4, size=(400, 8), p=shares).astype(np.int32)
    fields = {"user": items[0] * 0, "item": items[0]}
    data = data_of(fields, **{"counts:item": tuple(shares * 1000)})

    def learn(log_q):
        objective = rank.in_batch_softmax(data, log_q=log_q)

        def total(score_I):
            def one(item_B):
                towers = {"query": jnp.ones((8, 1)), "candidate": score_I[item_B][:, None]}
                return judge(objective, {"user": item_B * 0, "item": item_B, "mask": jnp.ones(8)}, towers).total

            return jax.vmap(one)(items).mean()

        @jax.jit
        def descend(score_I):
            return jax.lax.fori_loop(0, 400, lambda _, x: x - 0.3 * jax.grad(total)(x), score_I)

        found = np.asarray(descend(jnp.zeros(4)))
        return found - found.mean()

    log_shares = np.log(shares)
    np.testing.assert_allclose(learn(1.0) - learn(0.0), log_shares - log_shares.mean(), atol=1e-3)


LAWS = {
    "bpr": (rank.bpr, {}, OUTPUTS, True), "bpr in batch": (rank.bpr, {"shifts": N}, OUTPUTS, False),
    "sampled": (rank.sampled_softmax, {"correction": "popularity"}, OUTPUTS, True),
    "sampled in batch": (rank.sampled_softmax, {"shifts": N, "correction": "uniform"}, OUTPUTS, False),
    "in batch": (rank.in_batch_softmax, {"temperature": 0.5, "log_q": 1.0}, TOWERS, False),
}  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_they_keep_the_laws(name):
    make, options, outputs, adds_up = LAWS[name]
    if "shifts" in options:  # leaving rows out then changes who lends to whom
        check_padding_alone(make(DATA, **options), outputs)
    else:
        check_laws(make(DATA, **options), FIELDS, outputs, adds_up)


def check_padding_alone(objective, outputs):
    batch = masked(FIELDS)
    spoilt = {n: np.where(batch["mask"].reshape(-1, *(1,) * (x.ndim - 1)) > 0, x, np.nan) for n, x in outputs.items()}
    total = jax.jit(lambda outputs: judge(objective, batch, outputs).total)
    assert float(total(spoilt)) == float(total(outputs))
    for gradient in jax.tree.leaves(jax.jit(jax.grad(total))(spoilt)):
        assert np.isfinite(gradient).all()
        assert not gradient[batch["mask"] == 0].any()


def test_a_step_of_a_sequence_is_ranked_like_a_row():
    """[B, T] items, [B, T, N] negatives and a mask are the same rows laid out flat."""
    flat = {"item": FIELDS["item"], "negatives": FIELDS["negatives"]}
    deep = {"item": flat["item"].reshape(2, 4), "negatives": flat["negatives"].reshape(2, 4, N)}
    deep["weight"] = np.array([[1, 1, 0, 1], [1, 0, 1, 1]], np.float32)
    outputs = {"score": OUTPUTS["score"].reshape(2, 4), "negative_scores": OUTPUTS["negative_scores"].reshape(2, 4, N)}
    for make in (rank.bpr, rank.sampled_softmax):
        found = judge(make(data_of(deep), inputs=("item",), weights="weight"), masked(deep, ()), outputs)
        expected = judge(make(data_of(flat), inputs=("item",)), {**flat, "mask": deep["weight"].reshape(-1)}, OUTPUTS)
        assert float(found.total) == pytest.approx(float(expected.total), rel=1e-6)
        assert float(found.weight) == float(expected.weight)


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("bpr", {"inputs": ("usr", "item")}, "did you mean 'user'"),
        ("bpr", {"negatives": "negative"}, "did you mean 'negatives'.*shifts=8"),
        ("bpr", {"shifts": -1}, "shifts=-1: expected a number of 0 or more"),
        ("bpr", {"weights": "weight"}, "the objective names the field 'weight'"),
        ("sampled_softmax", {"correction": "popular"}, "correction='popular': .*did you mean 'popularity'"),
        ("sampled_softmax", {"correction": "popularity"}, "needs the data's fact 'counts:item'"),
        ("sampled_softmax", {"correction": "uniform"}, "items=0: expected their number"),
        ("in_batch_softmax", {"temperature": 0.0}, "temperature=0.0: expected a number above 0"),
        ("in_batch_softmax", {"log_q": -1.0}, "log_q=-1.0"),
        ("in_batch_softmax", {"log_q": 1.0}, "needs the data's fact 'counts:item'"),
        ("in_batch_softmax", {"item": "itme"}, "did you mean 'item'"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_the_config_path(factory, options, message):
    node = configs.spec(f"jaxlab.objectives.rank:{factory}", **options)
    with pytest.raises(ConfigError, match=f"^config.objective: .*{message}"):
        configs.build(node, path="config.objective", data=data_of(FIELDS))


def test_a_model_without_negative_scores_is_an_error_that_says_so():
    with pytest.raises(ConfigError, match="'negative_scores'; it returns score"):
        judge(rank.bpr(DATA), masked(FIELDS), {"score": OUTPUTS["score"]})
