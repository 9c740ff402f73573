"""Sampling draws each row as often as its weight says, to less than one draw, and weights are scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import sampling
from jaxlab.data.arrays import ArraySource
from jaxlab.data.subset import Subset

COUNTS = (90, 9, 1)


def make_source(counts=COUNTS, **meta):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return ArraySource({"label": labels}, meta)


class Mixture(ArraySource):
    """Arrays with a weight for each row, as a mixture of sources has."""

    row_weights = np.repeat([3.0, 1.0], 10)


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 1.0])
def test_a_class_is_drawn_in_proportion_to_its_rows_to_the_power_that_is_left(power):
    source = make_source()
    weights = sampling.balanced(power)(source)
    assert weights.shape == (100,)
    assert weights.dtype == np.float64
    assert weights.mean() == pytest.approx(1)
    drawn = np.bincount(source.__getitems__(np.arange(100))["label"], weights)
    expected = np.asarray(COUNTS, float) ** (1 - power)
    np.testing.assert_allclose(drawn, 100 * expected / expected.sum())
    if power == 0.5:
        np.testing.assert_array_equal(weights, sampling.square_root()(source))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), min_size=1, max_size=60).filter(any), st.integers(0, 99))
def test_each_row_is_drawn_as_often_as_its_weight_says_to_less_than_one_draw(weights, seed):
    rows = sampling.weighted_order(np.asarray(weights), seed, epoch=0)
    assert rows.dtype == np.int32
    assert rows.shape == (len(weights),)
    expected = np.asarray(weights) / np.mean(weights)
    drawn = np.bincount(rows, minlength=len(weights))
    assert (np.abs(drawn - expected) < 1 + 1e-6).all()
    assert (drawn[np.asarray(weights) == 0] == 0).all()


def test_equal_weights_make_a_permutation():
    assert sorted(sampling.weighted_order(np.full(1000, 0.1), 3, 1).tolist()) == list(range(1000))


def test_draws_are_right_on_average_over_epochs_and_are_shuffled():
    weights = np.random.default_rng(0).uniform(0, 3, 50)
    epochs = [sampling.weighted_order(weights, 0, epoch) for epoch in range(2000)]
    drawn = np.mean([np.bincount(rows, minlength=50) for rows in epochs], axis=0)
    np.testing.assert_allclose(drawn, weights / weights.mean(), atol=0.06)  # five deviations of a share of 2000 epochs
    at_place = np.mean(epochs, axis=0)  # the mean row at each place of the order is that of all draws
    np.testing.assert_allclose(at_place, (weights @ np.arange(50)) / weights.sum(), atol=1.6)


def test_the_order_is_a_function_of_weights_seed_and_epoch():
    weights = sampling.balanced()(make_source())
    first = sampling.weighted_order(weights, 1, 2)
    assert np.array_equal(first, sampling.weighted_order(weights, 1, 2))
    assert not np.array_equal(first, sampling.weighted_order(weights, 1, 3))
    assert not np.array_equal(first, sampling.weighted_order(weights, 2, 2))


def test_the_table_of_counts_says_what_the_order_does():
    source = make_source(classes=("plenty", "some", "one", "none"))
    weights = sampling.balanced()(source)
    table = sampling.class_counts(source, weights)
    assert {name: n for name, (n, _) in table.items()} == {"plenty": 90, "some": 9, "one": 1, "none": 0}
    labels = source.__getitems__(np.arange(100))["label"]
    drawn = np.mean([np.bincount(labels[sampling.weighted_order(weights, 0, e)], minlength=4) for e in range(30)], 0)
    np.testing.assert_allclose([draws for _, draws in table.values()], [100 / 3] * 3 + [0])
    np.testing.assert_allclose(drawn, [100 / 3] * 3 + [0], atol=3)
    assert sampling.class_counts(source)["some"] == (9, 9.0)
    assert list(sampling.class_counts(make_source())) == ["0", "1", "2"]


def test_a_mixture_s_weights_are_used_for_its_rows_and_those_of_its_parts():
    mixture = Mixture({"x": np.arange(20)})
    np.testing.assert_allclose(sampling.by_source()(mixture), np.repeat([1.5, 0.5], 10))
    part = sampling.by_source()(Subset(mixture, np.arange(5, 20), {}))
    assert part.mean() == pytest.approx(1)
    np.testing.assert_allclose(part / part[-1], np.repeat([3.0, 1.0], (5, 10)))
    with pytest.raises(DataError, match="no row_weights"):
        sampling.by_source()(make_source())
    with pytest.raises(DataError, match="no row_weights"):
        sampling.by_source()(Subset(make_source(), np.arange(5), {}))
    mixture.row_weights = np.ones(3)
    with pytest.raises(DataError, match=r"shape \(3,\) for 20 rows"):
        sampling.by_source()(mixture)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=9), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_class_weights_are_scikit_learn_s_and_of_mean_1_over_the_rows_for_any_power(counts, power):
    labels = np.repeat(np.arange(len(counts)), counts)
    oracle = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    np.testing.assert_allclose(sampling.class_weights(counts), oracle)
    weights = sampling.class_weights(counts, power)
    assert np.asarray(weights)[labels].mean() == pytest.approx(1)
    assert all(isinstance(weight, float) for weight in weights)


@pytest.mark.parametrize("power", [-0.1, 1.1])
def test_a_power_out_of_range_is_an_error(power):
    with pytest.raises(ConfigError, match="expected 0"):
        sampling.balanced(power)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [1.0, np.nan], [[1.0, 2.0]]])
def test_weights_that_cannot_be_drawn_by_are_an_error(weights):
    with pytest.raises(DataError, match="sampling weights"):
        sampling.weighted_order(np.asarray(weights), 0, 0)


def test_data_without_one_class_a_row_is_an_error():
    with pytest.raises(DataError, match="no field 'lable'; did you mean 'label'"):
        sampling.balanced(field="lable")(make_source())
    with pytest.raises(DataError, match="expected one class a row"):
        sampling.balanced()(ArraySource({"label": np.zeros((4, 2), np.int32)}))
    with pytest.raises(DataError, match="label 2 is outside the 2 classes"):
        sampling.balanced()(make_source(classes=("a", "b")))
    with pytest.raises(DataError, match="rows of every class"):
        sampling.class_weights((3, 0))
