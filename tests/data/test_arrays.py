"""Arrays in memory are served as they were given, in dtypes that JAX has, or refused with the reason."""

import jax
import numpy as np
import pytest

from jaxlab.core.errors import DataError
from jaxlab.data.arrays import ArraySource


@pytest.mark.parametrize(
    ("given", "served"),
    [("float64", "float32"), ("int64", "int32"), ("uint64", "uint32"), ("float16", "float16"), ("uint8", "uint8"),
     ("bool", "bool"), ("int8", "int8"), ("float32", "float32")],
)  # fmt: skip
def test_a_field_is_served_in_the_dtype_that_a_device_would_hold(given, served):
    source = ArraySource({"x": np.ones((3, 2), given)})
    assert source.spec.example["x"] == jax.ShapeDtypeStruct((2,), np.dtype(served))
    rows = source.__getitems__(np.array([0, 2]))["x"]
    assert rows.dtype == served
    assert jax.device_put(rows).dtype == served


def test_rows_come_in_the_order_asked_for_with_repetition():
    source = ArraySource({"x": np.arange(10).reshape(5, 2), "y": np.arange(5.0)}, {"classes": ("a",)})
    rows = source.__getitems__(np.array([4, 0, 4]))
    assert rows["x"].tolist() == [[8, 9], [0, 1], [8, 9]]
    assert rows["y"].tolist() == [4.0, 0.0, 4.0]
    assert len(source) == source.spec.size == 5
    assert source.spec.meta == {"classes": ("a",)}
    assert source.__getitems__(np.array([], int))["x"].shape == (0, 2)


def test_the_rows_handed_out_are_copies():
    source = ArraySource({"x": np.arange(5)})
    source.__getitems__(np.arange(5))["x"][:] = 0
    assert source.__getitems__(np.arange(5))["x"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "not empty"),
        ({"x": np.zeros((0, 3))}, "not empty"),
        ({"x": np.zeros(3), "y": np.zeros(4)}, r"equally long.*'x': 3, 'y': 4"),
        ({"x": np.float32(3)}, "equally long"),
        ({"x": np.array(["a", "b"])}, "field 'x' has dtype <U1"),
        ({"x": np.zeros(2, complex)}, "field 'x' has dtype complex"),
        ({"x": np.zeros(2, object)}, "field 'x' has dtype object"),
        ({"x": [[1, 2], [3]]}, "field 'x': .*expected rows of one shape"),
        ({"x": np.array([1, 2**40])}, "field 'x': values .* do not fit int32"),
        ({"x": np.array([1, 2**40], np.uint64)}, "field 'x': values .* do not fit uint32"),
    ],
)
def test_arrays_that_cannot_be_served_are_refused_by_field(arrays, message):
    with pytest.raises(DataError, match=message):
        ArraySource(arrays)
