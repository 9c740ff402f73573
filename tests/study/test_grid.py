"""The algebra of arms obeys the laws that its names promise."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxlab.core.errors import UsageError
from jaxlab.study.grid import (
    Choice,
    Integers,
    LogUniform,
    Uniform,
    add_one_in,
    chain,
    draw,
    leave_one_out,
    product,
    sweep,
    two_way,
    zipped,
)

sweeps_of = {
    path: st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).map(lambda v, p=path: sweep(p, *v))
    for path in "abc"
}


@given(*sweeps_of.values())
def test_a_product_has_every_combination_once_however_it_is_bracketed(a, b, c):
    arms = product(a, b, c)
    assert arms == product(product(a, b), c) == product(a, product(b, c))
    assert len(arms) == len(a) * len(b) * len(c) == len(chain(arms))
    wanted = {(x["a"], y["b"], z["c"]) for x, y, z in itertools.product(a, b, c)}
    assert {(arm["a"], arm["b"], arm["c"]) for arm in arms} == wanted


@given(sweeps_of["a"], sweeps_of["b"])
def test_the_base_alone_is_neutral_and_a_chain_has_no_arm_twice(a, b):
    assert product(a, [{}]) == product([{}], a) == a
    assert chain(a, a, b) == chain(a, b) == [*a, *b]


@given(st.integers(1, 5))
def test_zipped_pairs_by_place(n):
    first, second = sweep("a", *range(n)), sweep("b", *range(n, 2 * n))
    assert zipped(first, second) == [{"a": i, "b": n + i} for i in range(n)]
    with pytest.raises(UsageError, match="equal lengths"):
        zipped(first, [*second, {}])


def test_two_arms_that_set_a_path_differently_do_not_combine():
    with pytest.raises(UsageError, match="to 1 and 2"):
        product(sweep("a", 1), sweep("a", 2))
    assert product(sweep("a", 1), sweep("a", 1)) == [{"a": 1}]


def test_leaving_one_out_and_adding_one_in_mirror_each_other():
    without = [{path: 0} for path in "abc"]
    everything = set("abc")
    out = [everything - set(arm) for arm in leave_one_out(*without)]
    only = [everything - set(arm) for arm in add_one_in(*without)]
    assert out == [everything, *({*everything} - {path} for path in "abc")]
    assert only == [set(), *({path} for path in "abc")]


def test_two_way_has_the_four_arms_of_an_interaction():
    assert two_way({"a": 1}, {"b": 2}) == [{}, {"b": 2}, {"a": 1}, {"a": 1, "b": 2}]


def test_draws_are_of_their_distributions_and_more_of_them_keep_the_first():
    space = {"u": Uniform(-1.0, 3.0), "l": LogUniform(1e-5, 1e-1), "i": Integers(2, 5), "c": Choice(("x", "y"))}
    arms = draw(2000, space, seed=3)
    assert arms[:50] == draw(50, space, seed=3) != draw(50, space, seed=4)
    assert stats.kstest([arm["u"] for arm in arms], stats.uniform(-1, 4).cdf).pvalue > 1e-3
    assert stats.kstest([arm["l"] for arm in arms], stats.loguniform(1e-5, 1e-1).cdf).pvalue > 1e-3
    for name, values in (("i", (2, 3, 4, 5)), ("c", ("x", "y"))):
        counts = [sum(arm[name] == value for arm in arms) for value in values]
        assert sum(counts) == 2000
        assert stats.chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef([arm["u"] for arm in arms], [arm["l"] for arm in arms])[0, 1]) < 0.1
    with pytest.raises(UsageError, match="0 < low < high"):
        LogUniform(0.0, 1.0).at(0.5)
