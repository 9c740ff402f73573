"""Intervals against scipy, scikit-learn, the definitions written out, and the coverage that they promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from jaxlab.metrics.intervals import (
    blocks,
    bootstrap,
    delong,
    delong_covariance,
    draws,
    examples,
    groups,
    memory,
    of_sums,
    series,
    wilson,
)
from jaxlab.metrics.paired import delong_test, mcnemar, paired_bootstrap


def mean(sums):
    return sums[0] / sums[1] if sums[1] else math.nan


def rows_of(values):
    return np.stack([values, np.ones(len(values))], axis=1)


def interval(rows, resampling=None, **options):
    drawn = examples(len(rows)) if resampling is None else resampling
    return bootstrap([of_sums(rows, mean)], drawn, **options)[""]


def paired(first, second, **options):
    numbers = (of_sums(rows, mean) for rows in (first, second))
    return paired_bootstrap(*numbers, examples(len(first)), **options)[""]


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_is_scipys(n, share):
    successes = round(share * n)
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson(successes, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.low <= found.point <= found.high


scores = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60).filter(
    lambda rows: len({positive for positive, _ in rows}) == 2
)


@settings(deadline=None)
@given(scores)
def test_delongs_area_is_scikit_learns_ties_included(rows):
    positive, score = map(np.array, zip(*rows, strict=True))
    assert delong(positive, score).point == pytest.approx(roc_auc_score(positive, score), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(scores, st.randoms(use_true_random=False))
def test_delongs_covariance_is_that_of_the_placements_written_out(rows, random):
    positive, first = map(np.array, zip(*rows, strict=True))
    second = first + np.array([random.randint(-2, 2) for _ in rows])
    above, below = [], []
    for score in (first, second):
        wins = np.array([[(p > q) + (p == q) / 2 for q in score[~positive]] for p in score[positive]])
        above.append(wins.mean(axis=1))
        below.append(wins.mean(axis=0))
    expected = np.zeros((2, 2))
    for placements in (above, below):
        if len(placements[0]) > 1:
            expected += np.cov(placements) / len(placements[0])
    np.testing.assert_allclose(delong_covariance(positive, np.stack([first, second]))[1], expected, atol=1e-12)


def test_one_class_has_no_area_and_no_examples_have_no_interval():
    with pytest.raises(ValueError, match="3 positive and 0 negative examples is undefined"):
        delong(np.ones(3, bool), np.arange(3))
    with pytest.raises(ValueError, match="no examples"):
        interval(np.zeros((0, 2)))
    with pytest.raises(ValueError, match="no examples"):
        wilson(0, 0)


def test_a_statistic_without_a_value_is_undefined_and_not_zero():
    found = interval(np.zeros((5, 2)))
    assert found.method == "undefined"
    assert math.isnan(found.point)
    assert math.isnan(found.low)


def test_resamples_in_which_it_is_undefined_are_counted():
    rows = np.zeros((4, 2))
    rows[0] = 3, 1  # the one example with a weight is missing from (3/4)^4 of the resamples
    found = interval(rows)
    lost = int(found.method.split(", ")[1].split()[0])
    assert lost == pytest.approx(1000 * 0.75**4, abs=60)
    assert (found.point, found.low, found.high) == (3, 3, 3)


def test_the_bootstrap_of_a_mean_is_scipys():
    values = np.random.default_rng(0).exponential(size=200)
    found = interval(rows_of(values), resamples=20_000)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_every_resample_has_as_many_units_and_draws_each_equally_often():
    drawn = np.array(list(draws(examples(7), 4000, 0)))
    assert (drawn.sum(axis=1) == 7).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.06)


def test_groups_of_equal_rows_are_worth_one_row_each():
    values = np.random.default_rng(0).normal(size=30)
    alone = interval(rows_of(values))
    fivefold, names = np.repeat(values, 5), np.repeat(np.arange(30), 5)
    grouped = interval(rows_of(fivefold), groups(names))
    assert grouped.n == 30
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    naive = interval(rows_of(fivefold))
    assert naive.high - naive.low < (grouped.high - grouped.low) / 1.8  # by the square root of 5


def test_a_group_comes_with_all_its_examples_or_with_none():
    names = np.array(["b", "a", "b", "c", "a", "a"])
    for weights in draws(groups(names), 50, 0):
        assert all(len(set(weights[names == name])) == 1 for name in "abc")
        assert sum(weights[names == name][0] for name in "abc") == 3


@given(st.integers(8, 40), st.integers(1, 10), st.integers(0, 5))
def test_a_resample_of_blocks_is_runs_of_neighbours_around_the_end(n, length, seed):
    resampling = blocks(n, length)
    length = int(resampling.method.split()[-1])
    starts = np.random.default_rng(seed).integers(0, n, -(-n // length))
    expected = np.zeros(n)
    for start in starts:
        expected[(start + np.arange(length)) % n] += n / (len(starts) * length)
    np.testing.assert_allclose(resampling.draw(np.random.default_rng(seed)), expected, atol=1e-9)


def remembering(seed, length=400, share=0.8):
    noise = np.random.default_rng(seed).normal(size=length + 100)
    values = np.zeros_like(noise)
    for place in range(1, len(noise)):
        values[place] = share * values[place - 1] + noise[place]
    return values[100:]


def test_blocks_of_a_series_give_wider_intervals_than_its_rows():
    rows = rows_of(remembering(0))
    wide, single = interval(rows, series(rows)), interval(rows)
    assert wide.point == pytest.approx(single.point)
    assert wide.high - wide.low > 1.7 * (single.high - single.low)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mean", "share", "area"])
def test_nineteen_of_twenty_intervals_hold_the_truth(kind):
    held, repeats = 0, 400
    for seed in range(repeats):
        generator = np.random.default_rng(seed)
        if kind == "mean":
            found, truth = interval(rows_of(generator.normal(size=100)), resamples=300, seed=seed), 0.0
        elif kind == "share":
            found, truth = wilson(int((generator.random(80) < 0.9).sum()), 80), 0.9
        else:
            positive = np.arange(120) < 60
            found, truth = delong(positive, generator.normal(size=120) + positive), stats.norm.cdf(1 / math.sqrt(2))
        held += found.low <= truth <= found.high
    assert held / repeats == pytest.approx(0.95, abs=0.035)  # three standard errors


def block_length(values):
    return int(series(rows_of(values)).method.split()[-1])


def test_blocks_grow_with_memory_and_length_by_the_cube_root():
    lengths = [block_length(remembering(0, 8000, share)) for share in (0.0, 0.3, 0.8)]
    assert lengths == sorted(lengths)
    assert lengths[2] == pytest.approx((1.5 * (1.6 / 0.36) ** 2 * 8000) ** (1 / 3), rel=0.1)
    assert block_length(remembering(0, 1000, 0.8)) == pytest.approx(lengths[2] / 2, rel=0.15)
    assert block_length(np.ones(10)) == 1
    assert memory(rows_of(np.ones(1))) == 0


def test_mcnemar_is_the_binomial_test_of_who_is_right_where_they_differ():
    first = np.array([1] * 20 + [0] * 8 + [1] * 2, bool)
    second = np.array([1] * 20 + [1] * 8 + [0] * 2, bool)
    assert mcnemar(first, second) == pytest.approx(2 * stats.binom.cdf(2, 10, 0.5))
    assert mcnemar(first, first) == 1.0


def test_paired_is_narrower_than_apart_and_sees_what_apart_does_not():
    base = np.random.default_rng(0).normal(size=300)
    better = base + 0.1 + 0.2 * np.random.default_rng(1).normal(size=300)
    found = paired(rows_of(base), rows_of(better))
    assert found.difference == pytest.approx((better - base).mean())
    assert found.low > 0
    assert found.p < 0.01
    swapped = paired(rows_of(better), rows_of(base))
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))


def test_of_equal_models_nothing_is_found():
    rows = rows_of(np.random.default_rng(0).normal(size=50))
    assert paired(rows, rows)[2:6] == (0, 0, 0, 1)
    positive, score = np.arange(40) < 20, np.random.default_rng(1).normal(size=40)
    assert delong_test(positive, score, score).p == 1


@pytest.mark.slow
def test_without_a_difference_one_in_twenty_tests_finds_one():
    found, repeats = {"bootstrap": 0, "DeLong": 0}, 300
    for seed in range(repeats):
        generator = np.random.default_rng(seed)
        common = generator.normal(size=100)
        one, other = (common + generator.normal(size=100) for _ in range(2))
        found["bootstrap"] += paired(rows_of(one), rows_of(other), resamples=300, seed=seed).p < 0.05
        positive = np.arange(100) < 50
        found["DeLong"] += delong_test(positive, one + positive, other + positive).p < 0.05
    assert {name: count / repeats for name, count in found.items()} == pytest.approx(
        {"bootstrap": 0.05, "DeLong": 0.05}, abs=0.038
    )
