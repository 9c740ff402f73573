"""The temporal convolutional network: causality, its receptive field, and the convolution itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models import tcn
from jaxlab.models.recurrent import length_mask

pytestmark = pytest.mark.slow  # compiles much; the contracts try every model in the quick part too

B, T, C = 3, 20, 2
_random = np.random.default_rng(0)
X = _random.standard_normal((B, T, C), np.float32)


def positive(shapes):
    """Return parameters by which every ReLU lets positive inputs through, so that a gradient is 0 only by structure."""
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda x: generator.uniform(0.1, 0.5, x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(("kernel", "levels"), [(2, 1), (2, 3), (3, 1), (3, 2), (5, 1)])
def test_a_step_depends_on_the_steps_of_the_receptive_field_before_it_and_no_others(kernel, levels):
    network = tcn.TCN((3,) * levels, kernel, True, 0.0)
    x = np.abs(X)
    variables = positive(jax.eval_shape(lambda: network.init(jax.random.key(0), x, train=False)))
    gradient = jax.jit(jax.grad(lambda x, t: network.apply(variables, x, train=False)[0, t].sum()))
    field = tcn.receptive_field(kernel, levels)
    for t in (0, 3, T - 1):
        seen = np.flatnonzero(np.abs(gradient(x, t)).sum(axis=(0, 2)))
        assert seen.tolist() == list(range(max(0, t - field + 1), t + 1))


@pytest.mark.parametrize("dilation", [1, 3])
def test_the_convolution_is_that_of_xla_with_zeros_before_the_first_step(dilation):
    layer = tcn.CausalConvolution(4, 3, dilation, False)
    variables = positive(jax.eval_shape(lambda: layer.init(jax.random.key(0), X)))
    expected = jax.lax.conv_general_dilated(
        X, variables["params"]["kernel"], (1,), [(2 * dilation, 0)], rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )  # fmt: skip
    np.testing.assert_allclose(layer.apply(variables, X), expected + variables["params"]["bias"], atol=1e-5)


def test_weight_normalisation_starts_as_none_and_makes_the_kernel_s_length_its_scale():
    plain, normed = (tcn.CausalConvolution(4, 3, 1, weight_norm) for weight_norm in (False, True))
    bare, variables = plain.init(jax.random.key(0), X), normed.init(jax.random.key(0), X)
    np.testing.assert_allclose(normed.apply(variables, X), plain.apply(bare, X), atol=1e-5)
    params = variables["params"]
    longer = {"params": {**params, "kernel": 3 * params["kernel"]}}
    np.testing.assert_allclose(normed.apply(longer, X), normed.apply(variables, X), atol=1e-5)
    gradient = jax.grad(lambda kernel: jnp.sin(normed.apply({"params": {**params, "kernel": kernel}}, X)).sum())
    along = jnp.sum(gradient(params["kernel"]) * params["kernel"], axis=(0, 1))
    np.testing.assert_allclose(along, np.zeros(4), atol=1e-3)  # orthogonal to the direction


def test_dropout_leaves_out_whole_channels():
    block = tcn.Block(8, 2, 1, False, 0.5)
    x = np.abs(np.repeat(X, 4, axis=-1))
    variables = positive(jax.eval_shape(lambda: block.init(jax.random.key(0), x, train=False)))
    variables["params"]["convolution_1"]["kernel"] *= 0
    variables["params"]["convolution_1"]["bias"] = np.ones(8, np.float32)
    residual_BTF = block.apply(variables, x, train=True, rngs={"dropout": jax.random.key(0)}) - x
    np.testing.assert_allclose(residual_BTF, np.broadcast_to(residual_BTF[:, :1], residual_BTF.shape), atol=1e-5)
    assert {0, 2} == set(np.round(residual_BTF[:, 0]).astype(int).reshape(-1).tolist())


def data(**facts):
    return DataSpec({}, 10, {"classes": ("a", "b", "c"), **facts})


@pytest.mark.parametrize("vocabulary_size", [0, 11])
def test_the_classifier_reads_the_last_real_step_so_padding_after_it_changes_nothing(vocabulary_size):
    model = tcn.classify(data(vocabulary_size=vocabulary_size), channels=(4, 5), kernel=2, dropout=0.3)
    x = _random.integers(0, 11, (B, T)).astype(np.int32) if vocabulary_size else X
    variables = positive(jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x))
    apply = jax.jit(functools.partial(model.apply, variables, train=False))
    lengths = np.array([T, 4, 0])
    first = apply(x, length_mask(lengths, T))["logits"]
    assert first.shape == (B, 3)
    assert np.isfinite(first).all()
    other = x.copy()
    other[1, 4:], other[2] = 3, 5
    np.testing.assert_array_equal(apply(other, length_mask(lengths, T))["logits"], first)
    np.testing.assert_allclose(apply(x[1:2, :4], None)["logits"], first[1:2], rtol=1e-5)
    np.testing.assert_allclose(apply(x, None)["logits"][0], first[0], rtol=1e-5)


def windowed(length, horizon):
    shapes = {"past": (length, 2), "target": (horizon, 1)}
    return DataSpec({name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}, 10, {})


def test_a_receptive_field_that_does_not_reach_the_past_is_an_error_that_names_one_that_covers_all():
    assert tcn.receptive_field(3, 2) == 13
    tcn.make(windowed(30, 12), channels=(4, 4), kernel=3)
    with pytest.raises(ConfigError, match=r"13 steps; did you mean 4 channels, for the whole window of 43"):
        tcn.make(windowed(30, 13), channels=(4, 4), kernel=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 1}, "config.model.kernel=1: expected 2 or more"),
        ({"channels": ()}, "config.model.channels"),
        ({"channels": (4, 0)}, "config.model.channels"),
        ({"dropout": 1.0}, "config.model.dropout=1.0"),
        ({"vocabulary_size": 3}, "vocabulary too small"),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(options, message):
    with pytest.raises(ConfigError, match=message):
        tcn.classify(data(vocabulary_size=11), **options)
