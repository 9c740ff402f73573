"""Negatives: how often each item is drawn, of what shape, and the same whoever draws them; counts of codes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import Loss
from jaxlab.data import histories, negatives, sampling
from jaxlab.data.arrays import ArraySource
from jaxlab.data.fitting import fit_all
from jaxlab.data.pipeline import Batches, RowRandomness
from jaxlab.objectives import rank

ITEMS, COUNTS = 6, (40, 0, 5, 20, 0, 35)
FACTS = {"categories:item": tuple("abcdef"), "categories:targets": tuple("abcdef")}
CHOSEN = ArraySource({"item": np.repeat(np.arange(ITEMS), COUNTS)}, FACTS)
MASK = (np.arange(4) < np.arange(1, 26)[:, None] % 5).astype(np.float32)
PLACES = ArraySource({"targets": np.arange(100).reshape(25, 4) % ITEMS, "target_mask": MASK}, FACTS)


def drawn(fittable, source, rows=slice(None), batch_size=None, seed=0):
    learnt = json.loads(json.dumps(fittable.fit(source)))
    size = batch_size or len(source)
    fields = source.__getitems__(np.arange(size)[rows] % len(source))
    return fittable.bind(learnt)(fields, RowRandomness(np.random.default_rng(seed), size, rows))["negatives"]


def test_uniform_negatives_are_uniform_also_over_pairs_of_a_row():
    found = drawn(negatives.uniform(2), CHOSEN, batch_size=20_000)
    assert found.dtype == np.int32
    assert found.shape == (20_000, 2)
    counts = np.bincount(found[:, 0] * ITEMS + found[:, 1], minlength=ITEMS**2)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("mask", ["", "target_mask"])
def test_popular_items_are_drawn_as_often_as_training_has_them_and_unseen_ones_as_if_once(mask):
    fields = PLACES.__getitems__(np.arange(25))
    weight = fields["target_mask"] if mask else np.ones((25, 4))
    counts = np.bincount(fields["targets"].ravel(), weight.ravel(), ITEMS)
    fittable = negatives.popularity(3, "targets", mask)
    learnt = fittable.fit(PLACES)
    assert learnt == {"counts": counts.astype(int).tolist()}
    assert fittable.meta(learnt) == {"counts:targets": tuple(counts.astype(int))}
    found = drawn(fittable, PLACES, batch_size=3000)
    assert found.shape == (3000, 4, 3)
    share = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    assert stats.chisquare(np.bincount(found.ravel(), minlength=ITEMS), share * found.size).pvalue > 1e-3
    flat = drawn(negatives.popularity(1), CHOSEN, batch_size=30_000)
    share = np.maximum(COUNTS, 1) / np.maximum(COUNTS, 1).sum()
    assert stats.chisquare(np.bincount(flat.ravel(), minlength=ITEMS), share * flat.size).pvalue > 1e-3


@pytest.mark.parametrize("make", [negatives.uniform, negatives.popularity])
def test_a_row_s_negatives_are_the_same_whichever_process_draws_them_and_whatever_the_others_hold(make):
    whole = drawn(make(4), CHOSEN)
    for rows in (slice(0, 30), slice(30, 100), slice(7, 8)):
        np.testing.assert_array_equal(drawn(make(4), CHOSEN, rows), whole[rows])
    assert not np.array_equal(drawn(make(4), CHOSEN, seed=1), whole)
    fitted = fit_all((make(4),), CHOSEN, None)
    batches = [
        Batches(CHOSEN, fitted.transforms, 10, 3, training=True, rows=rows)[5]["negatives"]
        for rows in (slice(None), slice(0, 5), slice(5, 10))
    ]
    np.testing.assert_array_equal(batches[0], np.concatenate(batches[1:]))


@pytest.mark.parametrize(("make", "correction"), [(negatives.uniform, "uniform"), (negatives.popularity, "popularity")])
def test_with_the_correction_the_sampled_denominator_is_that_of_all_items_on_average(make, correction):
    """The draws have just the shares that the objective takes off; the chosen item, drawn too, is left out by it."""
    fit = fit_all((make(2000),), CHOSEN, None)
    batch = Batches(CHOSEN, fit.transforms, 100, 0, training=False)[0]
    data = CHOSEN.spec._replace(
        example={"item": CHOSEN.spec.example["item"], "negatives": jax.ShapeDtypeStruct((2000,), np.int32)},
        meta={**CHOSEN.spec.meta, **fit.meta},
    )
    logits_I = jnp.linspace(-1.0, 1.0, ITEMS)

    def apply(item, negative):
        return {"score": logits_I[item], "negative_scores": logits_I[negative]}, {}

    objective = rank.sampled_softmax(data, inputs=("item",), correction=correction)
    loss = objective(apply, batch)
    assert isinstance(loss, Loss)
    exact = -jax.nn.log_softmax(logits_I)[batch["item"]].mean()
    assert float(loss.total / loss.weight) == pytest.approx(float(exact), abs=0.02)


def test_negatives_of_histories_have_the_codes_that_these_name():
    source = ArraySource({"user": np.arange(30) % 3, "item": np.arange(30) * 5, "time": np.arange(30)})
    found = histories.make(source, "train", 6)
    assert negatives.uniform(2, "targets").fit(found) == {"items": 30}
    counts = negatives.popularity(2, "targets", "target_mask").fit(found)["counts"]
    rows = found.__getitems__(np.arange(3))
    assert sum(counts) == rows["target_mask"].sum() == found.spec.meta["target_count"]
    assert drawn(negatives.popularity(2, "targets"), found).shape == (3, 6, 2)


def test_codes_are_counted_by_their_names_also_those_that_training_never_has():
    for part, source, field in (
        (sampling.count_codes(), CHOSEN, "item"),
        (sampling.count_codes("targets", "target_mask"), PLACES, "targets"),
    ):
        learnt = json.loads(json.dumps(part.fit(source)))
        counts = part.meta(learnt)[f"counts:{field}"]
        assert len(counts) == ITEMS
        assert sum(counts) == (MASK.sum() if field == "targets" else 100)
        fields = source.__getitems__(np.arange(3))
        assert part.bind(learnt)(fields, None) is fields
    assert sampling.count_codes().fit(CHOSEN) == {"counts:item": list(COUNTS)}
    assert sampling.count_codes(codes=8).fit(CHOSEN)["counts:item"] == [*COUNTS, 0, 0]


@pytest.mark.parametrize(
    ("learn", "error", "message"),
    [
        (lambda: negatives.uniform(0), ConfigError, "count=0: expected"),
        (lambda: negatives.uniform(items=-1), ConfigError, "items=-1: expected"),
        (lambda: negatives.uniform(item="itme").fit(CHOSEN), ConfigError, "no field 'itme'; did you mean 'item'"),
        (lambda: negatives.uniform(items=5).fit(CHOSEN), ConfigError, "items=5: the data names 6"),
        (
            lambda: negatives.uniform().fit(ArraySource({"item": np.arange(3)})), ConfigError,
            "no fact 'categories:item'",
        ),
        (lambda: negatives.uniform().fit(ArraySource({"item": np.ones(3)})), DataError, "expected codes"),
        (
            lambda: negatives.popularity(items=3).fit(ArraySource({"item": np.arange(5)})), DataError,
            "'item' holds the code 3; expected 0 to 2",
        ),
        (lambda: negatives.popularity(items=3).fit(ArraySource({"item": [0, -1]})), DataError, "holds the code -1"),
        (
            lambda: negatives.popularity(item="targets", mask="mask").fit(
                ArraySource({"targets": np.ones((3, 2), int), "mask": np.ones(3)}, FACTS)
            ),
            DataError, r"'mask' has the shape \(3,\)",
        ),
        (lambda: negatives.popularity(mask="msk").fit(CHOSEN), ConfigError, "mask='msk': the data has no such field"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_from_is_explained(learn, error, message):
    with pytest.raises(error, match=message):
        learn()
