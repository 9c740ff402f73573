"""Each shared layer equals the plain one that it replaces, values and gradients."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxlab.models.dense import Dense, rows_by_matrix, times
from jaxlab.models.layers import BatchNorm, convolve, max_pool

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


plain = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=DIMENSIONS)


def assert_same(x_BHWC, kernel_HWCF, strides, padding, **options):
    """Compare values and both gradients of the two convolutions."""

    @jax.jit
    def both(x, kernel):
        results = []
        for function in (convolve, plain):
            bound = functools.partial(function, window_strides=strides, padding=padding, **options)
            value, pull = jax.vjp(bound, x, kernel)
            results.append((value, *pull(jnp.cos(jnp.arange(value.size)).reshape(value.shape))))
        return results

    for found, expected in zip(*both(x_BHWC, kernel_HWCF), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_convolve_is_laxs_convolution_for_any_kernel_stride_and_padding(size, stride, padding):
    assert_same(normal(2, 9, 8, 3), normal(size, size, 3, 4, seed=1), (stride, stride), padding)


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding"),
    [
        ((1, 7, 11, 1), (3, 2), (2, 3), "SAME"),
        ((2, 5, 5, 2), (5, 5), (1, 1), "VALID"),
        ((2, 6, 7, 2), (3, 3), (2, 1), ((1, 2), (0, 3))),
        ((1, 4, 4, 2), (1, 3), (3, 2), [(0, 0), (1, 1)]),
        ((2, 1, 1, 3), (3, 3), (1, 1), "SAME"),
    ],
)
def test_convolve_is_laxs_convolution_where_sides_differ_and_padding_is_given_in_pixels(
    shape, kernel, strides, padding
):
    assert_same(normal(*shape), normal(*kernel, shape[-1], 3, seed=1), strides, padding)


@pytest.mark.parametrize(
    "options",
    [{"feature_group_count": 2}, {"lhs_dilation": (2, 1)}, {"rhs_dilation": (2, 2)}],
    ids=lambda options: next(iter(options)),
)
def test_grouped_and_dilated_convolutions_fall_back_to_laxs(options):
    x, kernel = normal(2, 9, 8, 4), normal(3, 3, 4 // options.get("feature_group_count", 1), 6, seed=1)
    options = {**options, "padding": [(1, 1), (0, 2)], "window_strides": (1, 1), "dimension_numbers": DIMENSIONS}
    assert np.array_equal(convolve(x, kernel, **options), jax.lax.conv_general_dilated(x, kernel, **options))


@pytest.mark.parametrize("options", [{}, {"feature_group_count": 2}, {"kernel_dilation": 2}, {"padding": "CIRCULAR"}])
def test_flaxs_convolution_layer_is_the_same_with_convolve_inside(options):
    x_BHWC = normal(2, 7, 6, 4)
    layers = [nn.Conv(6, (3, 3), strides=2, conv_general_dilated=inner, **options) for inner in (None, convolve)]
    variables = layers[0].init(jax.random.key(0), x_BHWC)
    expected, found = jax.jit(lambda x: [layer.apply(variables, x) for layer in layers])(x_BHWC)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 9, 2), (2, 3, 5, 1)])
def test_max_pool_is_flaxs_gradient_included_and_drops_a_remainder_at_the_edge(shape, size):
    x_BHWC = normal(*shape)

    @jax.jit
    def both(x):
        results = []
        for function in (lambda x: max_pool(x, size), lambda x: nn.max_pool(x, (size, size), (size, size))):
            value, pull = jax.vjp(function, x)
            results.append((value, *pull(jnp.cos(jnp.arange(value.size)).reshape(value.shape))))
        return results

    for found, expected in zip(*both(x_BHWC), strict=True):
        np.testing.assert_array_equal(found, expected)


class Normalise(nn.Module):
    """A batch normalisation alone."""

    @nn.compact
    def __call__(self, x, mask_B=None, *, train):
        return BatchNorm(None)(x, mask_B, train=train)


@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 3, 5)])
def test_batch_norm_with_a_mask_has_the_statistics_of_the_real_rows_whatever_the_padding_holds(shape):
    x, mask_B = np.array(normal(*shape)), np.array([1, 0, 1, 1, 0, 1], np.float32)
    x[mask_B == 0] = 1e4
    real = x[mask_B == 1]
    module = Normalise()
    variables = module.init(jax.random.key(0), x, train=False)
    masked, state = module.apply(variables, x, mask_B, train=True, mutable="batch_stats")
    alone, state_alone = module.apply(variables, real, train=True, mutable="batch_stats")
    np.testing.assert_allclose(masked[mask_B == 1], alone, atol=1e-5)
    for found, expected in zip(jax.tree.leaves(state), jax.tree.leaves(state_alone), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    axes = tuple(range(real.ndim - 1))
    np.testing.assert_allclose(alone, (real - real.mean(axes)) / np.sqrt(real.var(axes) + 1e-5), atol=1e-4)


class NormaliseAndPool(nn.Module):
    """A batch normalisation and a maximum: that of the layer, or one after it."""

    inside: bool
    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x, mask_B):
        norm = BatchNorm(None, name="norm")
        if self.inside:
            return norm(x, mask_B, train=True, pool=self.pool)
        return self.pool(norm(x, mask_B, train=True))


@pytest.mark.parametrize("scale", [(2.0, -0.5, 1.0), (-1.0, 0.3, 0.0)])
@pytest.mark.parametrize(
    "pool", [max_pool, functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding="SAME")]
)
def test_a_pool_inside_batch_norm_is_the_pool_after_it_gradients_and_statistics_included(pool, scale):
    x_BHWC, mask_B = normal(4, 7, 6, 3), jnp.array([1.0, 1.0, 0.0, 1.0])
    params = {"norm": {"scale": jnp.array(scale), "bias": normal(3, seed=1)}}
    stats = {"norm": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}

    @functools.partial(jax.jit, static_argnums=0)
    def all_of(inside, params, x_BHWC):
        def apply(params, x_BHWC):
            variables = {"params": params, "batch_stats": stats}
            return NormaliseAndPool(inside, pool).apply(variables, x_BHWC, mask_B, mutable="batch_stats")

        values, pull, state = jax.vjp(apply, params, x_BHWC, has_aux=True)
        return values, pull(jnp.cos(jnp.arange(values.size)).reshape(values.shape)), state

    values, (of_params, of_x), state = all_of(True, params, x_BHWC)
    expected, (expected_of_params, expected_of_x), expected_state = all_of(False, params, x_BHWC)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert jax.tree.map(jnp.array_equal, state, expected_state) == jax.tree.map(lambda _: True, state)
    certain = np.array(scale) != 0  # else all are the largest, and any of them may have the gradient
    np.testing.assert_allclose(of_params["norm"]["bias"], expected_of_params["norm"]["bias"], atol=1e-4)
    for found, wanted in ((of_params["norm"]["scale"], expected_of_params["norm"]["scale"]), (of_x, expected_of_x)):
        np.testing.assert_allclose(found[..., certain], wanted[..., certain], atol=1e-4)
    assert np.all(np.isfinite(of_x))
    assert np.all(of_params["norm"]["scale"] != 0)  # a scale of 0 is not stuck there


def test_batch_norm_in_evaluation_uses_the_running_statistics_and_leaves_them():
    x = normal(6, 5)
    module = Normalise()
    variables = module.init(jax.random.key(0), x, train=False)
    _, state = module.apply(variables, x, train=True, mutable="batch_stats")
    running = state["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(running["mean"], 0.1 * x.mean(0), atol=1e-6)  # momentum 0.9 from zero
    found = module.apply({**variables, **state}, x, train=False)
    np.testing.assert_allclose(found, (x - running["mean"]) / np.sqrt(running["var"] + 1e-5), atol=1e-4)


def dot_generals(jaxpr):
    """Return for each product in a program the shapes of both sides, and the axes of each that it contracts."""
    found = [equation for equation in jaxpr.eqns if equation.primitive.name == "dot_general"]
    return [([x.aval.shape for x in each.invars], each.params["dimension_numbers"][0]) for each in found]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
@pytest.mark.parametrize("leading", [(), (3,), (400,), (2, 3), (20, 30), (4, 5, 30)])
def test_rows_times_a_matrix_are_the_product_and_gradients_are_products_of_two_axes(leading, shape, axis):
    matrix, x = normal(*shape, seed=1), normal(*leading, shape[axis])
    factor = normal(*leading, shape[1 - axis], seed=2)

    def gradients(function):
        return jax.value_and_grad(lambda x, matrix: (function(x, matrix) * factor).sum(), (0, 1))

    found = jax.jit(gradients(lambda x, matrix: times(x, matrix, axis)))(x, matrix)
    expected = gradients(lambda x, matrix: x @ (matrix if axis == 0 else matrix.T))(x, matrix)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3), found, expected)
    products = dot_generals(jax.make_jaxpr(gradients(lambda *given: times(*given, axis)))(x, matrix).jaxpr)
    assert all(len(of_side) <= 1 for _, axes in products for of_side in axes)
    ((_, right),) = (shapes for shapes, _ in dot_generals(jax.make_jaxpr(lambda *a: times(*a, axis))(x, matrix).jaxpr))
    assert right[0] <= right[1] or np.prod(leading) < 256  # of many rows the gradient, of this shape, is wide


def test_rows_times_a_matrix_under_a_map_in_other_types_and_with_several_axes_contracted():
    x, matrix = normal(2, 3, 5), normal(5, 4, seed=1)
    stacked = jax.vmap(times)(normal(7, 300, 5), normal(7, 5, 4))
    np.testing.assert_allclose(stacked, jnp.einsum("SND,SDF->SNF", normal(7, 300, 5), normal(7, 5, 4)), atol=1e-5)
    assert times(x.astype(jnp.bfloat16), matrix.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert times(x.astype(jnp.bfloat16), matrix).dtype == jnp.float32
    several = (((1, 2), (0, 1)), ((), ()))
    other = normal(3, 5, 4)
    np.testing.assert_allclose(rows_by_matrix(x, other, several), jax.lax.dot_general(x, other, several), atol=1e-5)


def test_dense_is_flaxs_layer_with_the_same_names_and_initial_values():
    x = normal(20, 30, 6)
    ours, theirs = Dense(3), nn.Dense(3)
    assert type(ours).__name__ == "Dense"
    variables = ours.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, theirs.init(jax.random.key(0), x))
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5)
