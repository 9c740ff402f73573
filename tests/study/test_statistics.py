"""The statistics of a study against SciPy's, brute force and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxlab.study import statistics

numbers = st.floats(-5, 5, allow_nan=False).map(lambda x: round(x, 3))
samples = st.lists(numbers, min_size=2, max_size=9)


def normal(seed: int, n: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, n)


@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_the_paired_test_and_interval_are_scipys(n):
    values_N, baseline_N = normal(n, n, 0.4), normal(n + 1, n)
    found = statistics.compare(values_N, baseline_N)
    oracle = stats.ttest_rel(values_N, baseline_N)
    assert found.t_p == pytest.approx(oracle.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)), rel=1e-9)
    spread = statistics.spread(values_N, "max")
    assert (spread.low, spread.high) == pytest.approx(stats.t.interval(0.95, n - 1, spread.mean, stats.sem(values_N)))
    assert (spread.best, spread.worst) == (values_N.max(), values_N.min())
    assert statistics.spread(values_N, "min").best == values_N.min()


@pytest.mark.parametrize("n", [2, 5, 9, 12])
def test_the_exact_sign_flip_test_is_scipys(n):
    differences_N = normal(n, n, 0.5)
    oracle = stats.permutation_test(
        (differences_N,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert statistics.permutation_test(differences_N) == pytest.approx(oracle.pvalue)


def test_the_drawn_sign_flip_test_is_near_the_t_test_for_normal_differences():
    differences_N = normal(3, 60, 0.25)
    drawn = statistics.permutation_test(differences_N)
    assert drawn == pytest.approx(stats.ttest_1samp(differences_N, 0).pvalue, rel=0.25)
    assert statistics.permutation_test(np.full(60, 1.0)) == pytest.approx(1 / 20001)  # never zero


@given(samples)
def test_differences_without_noise_are_not_made_certain(values):
    constant_N = np.full(len(values), 0.1)
    found = statistics.compare(np.array(values) + constant_N, np.array(values))
    assert found.t_p >= 2 / 2 ** len(values) - 1e-12
    same = statistics.compare(np.array(values), np.array(values))
    assert (same.difference, same.t_p, same.permutation_p) == (0.0, 1.0, 1.0)


def test_one_seed_says_nothing():
    found = statistics.compare(np.array([1.0]), np.array([0.0]))
    assert found.difference == 1.0
    assert all(math.isnan(x) for x in (found.low, found.high, found.t_p, found.permutation_p, found.effect))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_step_down_procedure_rejects(p_values):
    adjusted = statistics.holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if (len(p_values) - rank) * p_values[i] > level:  # the procedure as Holm wrote it: stop at the first
                break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))


def test_holm_leaves_out_what_has_no_value():
    assert statistics.holm([0.01, math.nan, 0.04])[::2] == [0.02, 0.04]
    assert math.isnan(statistics.holm([0.01, math.nan])[1])


@pytest.mark.parametrize(("n", "comparisons"), [(3, 1), (3, 4), (3, 20), (5, 4), (12, 1), (40, 9)])
def test_the_detectable_difference_is_found_with_the_power_it_promises(n, comparisons):
    deviation = 0.3
    least = statistics.minimum_detectable(deviation, n, comparisons)
    drawn_RN = np.random.default_rng(n).normal(least, deviation, (4000, n))
    p_R = stats.ttest_1samp(drawn_RN, 0, axis=1).pvalue
    share = np.mean(p_R < 0.05 / comparisons)
    assert share == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 4000))


@pytest.mark.parametrize("n", [2, 4, 9, 30])
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_power_is_the_noncentral_ts_where_scipy_has_it(n, shift):
    critical, away = stats.t.ppf(0.975, n - 1), shift * math.sqrt(n)
    oracle = stats.nct.sf(critical, n - 1, away) + stats.nct.cdf(-critical, n - 1, away)
    assert statistics.power(shift, 1.0, n, 0.05) == pytest.approx(oracle, abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.2, 3.0), st.integers(1, 6))
def test_the_seeds_needed_are_the_fewest_that_suffice(ratio, comparisons):
    n = statistics.seeds_needed(ratio, 1.0, comparisons)
    assert statistics.minimum_detectable(1.0, n, comparisons) <= ratio
    assert n == 2 or statistics.minimum_detectable(1.0, n - 1, comparisons) > ratio


def test_seeds_needed_has_no_answer_for_nothing():
    assert statistics.seeds_needed(0.0, 1.0) is None
    assert statistics.seeds_needed(1e-9, 1.0) is None


def test_an_interaction_is_what_is_left_of_the_sum_of_both():
    base_N, first_N, second_N = (normal(i, 12) for i in range(3))
    both_N = first_N + second_N - base_N + 0.7
    assert statistics.interaction(base_N, first_N, second_N, both_N).difference == pytest.approx(0.7)
    swapped = statistics.interaction(base_N, second_N, first_N, both_N)
    assert swapped.difference == pytest.approx(0.7)
    assert statistics.interaction(base_N, first_N, second_N, both_N - 0.7).difference == pytest.approx(0, abs=1e-12)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=7))
def test_the_pareto_set_has_what_nothing_dominates(points):
    costs, values = zip(*points, strict=True)
    found = statistics.pareto(costs, values, "max")
    for (cost, value), is_best in zip(points, found, strict=True):
        dominated = any(c <= cost and v >= value and (c < cost or v > value) for c, v in points)
        assert is_best != dominated
    assert statistics.pareto(costs, [-v for v in values], "min") == found


def test_hedges_correction_is_that_of_the_exact_gamma_form():
    n, d = 10, 1.0
    exact = math.gamma((n - 1) / 2) / (math.sqrt((n - 1) / 2) * math.gamma((n - 2) / 2))
    assert statistics.hedges(d, 1.0, n) == pytest.approx(exact, rel=2e-3)
