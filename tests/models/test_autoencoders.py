"""The autoencoders: shapes, masks and gradients, and the variational one's estimates where exact ones can be had."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models import autoencoder, sequence_autoencoder, vae

pytestmark = pytest.mark.slow  # compiles much; the contracts try every model in the quick part too

B, SHAPE = 4, (3, 2)
DATA = DataSpec({"image": jax.ShapeDtypeStruct(SHAPE, np.float32)}, 10, {})
MODELS = {
    "autoencoder": autoencoder.make(DATA, hidden=(7, 5), width=2, dropout=0.5),
    "vae": vae.make(DATA, hidden=(7, 5), width=2, dropout=0.5),
}
each_model = pytest.mark.parametrize("name", MODELS)


def images(seed=0):
    return np.random.default_rng(seed).random((B, *SHAPE), np.float32)


@functools.cache
def variables_of(name):
    """Return parameters without a zero."""
    generator = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: MODELS[name].init(jax.random.key(0), images(), train=False))
    return jax.tree.map(lambda x: generator.normal(0.2, 0.5, x.shape).astype(np.float32), shapes)


@functools.cache
def called(name, train):
    """Return the function from (variables, images, seed) to the results."""

    def call(variables, x, seed=0):
        rngs = {"params": jax.random.key(seed)} if train else None
        return MODELS[name].apply(variables, x, train=train, rngs=rngs)

    return jax.jit(call)


@each_model
def test_a_reconstruction_has_the_shape_of_the_example_and_depends_on_that_row_alone(name):
    x, variables = images(), variables_of(name)
    found, changed = called(name, False)(variables, x), x.copy()
    assert found["reconstruction"].shape == x.shape
    assert found["embedding"].shape == (B, 2)
    changed[1] += 1
    other = called(name, False)(variables, changed)
    for key, value in found.items():
        moved = np.abs(other[key] - value).reshape(B, -1).max(axis=1) > 0
        assert moved.tolist() == [False, True, False, False], key


@each_model
def test_every_parameter_has_a_part_in_the_reconstruction(name):
    weight = np.cos(np.arange(B * 6)).reshape(B, *SHAPE)

    @jax.jit
    @jax.grad
    def gradient(variables):
        return jnp.sum(MODELS[name].apply(variables, images(), train=False)["reconstruction"] * weight)

    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient(variables_of(name))))


@each_model
def test_training_is_random_by_its_key_and_evaluation_is_not(name):
    train = [called(name, True)(variables_of(name), images(), seed)["reconstruction"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(train[0], train[1])
    assert not np.allclose(train[0], train[2])
    called(name, False)(variables_of(name), images())  # would raise if it asked for a key


@pytest.mark.parametrize("objective", ["make", "elbo"])
def test_the_objectives_take_the_models_results_as_they_are(objective):
    name = {"make": "autoencoder", "elbo": "vae"}[objective]
    judge = configs.build(configs.spec(f"jaxlab.objectives.reconstruct:{objective}", likelihood="bernoulli"), data=DATA)
    loss = judge(
        lambda x: (called(name, False)(variables_of(name), x), {}), {"image": images(), "mask": np.ones(B, np.float32)}
    )
    assert np.isfinite(loss.total)
    assert loss.outputs["score"].shape == (B,)


def test_the_decoder_mirrors_the_encoder():
    shapes = jax.tree.map(np.shape, variables_of("autoencoder")["params"])
    kernels = {part: [layer["kernel"] for layer in layers.values()] for part, layers in shapes.items()}
    assert kernels == {"encoder": [(6, 7), (7, 5), (5, 2)], "decoder": [(2, 5), (5, 7), (7, 6)]}


LINEAR = vae.make(DATA, hidden=(), width=2)


def linear_variables(mean_weight, log_variance):
    """Return parameters of the linear model p(x | z) = N(W z + b, I) with q(z | x) = N(A (x - b), diagonal)."""
    generator = np.random.default_rng(3)
    orthogonal, _ = np.linalg.qr(generator.normal(size=(6, 2)))
    w_XD = orthogonal * np.array([1.5, 0.7])  # orthogonal columns: the true posterior's covariance is diagonal
    b_X = generator.normal(size=6)
    encoder = {"kernel": np.zeros((6, 4)), "bias": np.zeros(4)}
    encoder["kernel"][:, :2] = mean_weight(w_XD)
    encoder["bias"][:2] = -b_X @ encoder["kernel"][:, :2]
    encoder["bias"][2:] = log_variance(w_XD)
    parts = {"encoder": encoder, "decoder": {"kernel": w_XD.T, "bias": b_X}}
    params = {name: {"Dense_0": jax.tree.map(np.float32, part)} for name, part in parts.items()}
    return {"params": params}, w_XD, b_X


def exact(x_BX, w_XD, b_X):
    """Return log N(x; b, W Wᵀ + I) in float64."""
    covariance, centred = w_XD @ w_XD.T + np.eye(6), x_BX - b_X
    square_B = np.einsum("bx,xy,by->b", centred, np.linalg.inv(covariance), centred)
    return -(square_B + np.linalg.slogdet(covariance)[1] + 6 * math.log(2 * math.pi)) / 2


def posterior(scale=1.0):
    def precision(w_XD):  # of each number of the code
        return 1 + (w_XD**2).sum(axis=0)

    return lambda w_XD: scale * w_XD / precision(w_XD), lambda w_XD: -np.log(precision(w_XD))


def log_likelihood(variables, x, samples, seed=0):
    estimate = functools.partial(
        LINEAR.apply, train=False, method="log_likelihood", samples=samples, likelihood="gaussian"
    )
    return np.asarray(estimate(variables, x, seed=seed)["log_likelihood"])


def test_the_estimate_of_a_linear_model_with_its_true_posterior_is_exact_by_a_single_sample():
    variables, w_XD, b_X = linear_variables(*posterior())
    x = images()
    np.testing.assert_allclose(log_likelihood(variables, x, 1), exact(x.reshape(B, -1), w_XD, b_X), rtol=1e-4)


def test_with_another_posterior_the_estimate_rises_with_the_samples_to_the_likelihood():
    variables, w_XD, b_X = linear_variables(*posterior(scale=0.3))
    x = images()
    expected = exact(x.reshape(B, -1), w_XD, b_X)
    one = np.mean([log_likelihood(variables, x, 1, seed) for seed in range(40)], axis=0)
    many = log_likelihood(variables, x, 20_000)
    assert np.all(one < expected)
    np.testing.assert_allclose(many, expected, atol=0.05)


def test_the_gradient_through_the_draw_is_that_of_the_closed_form():
    """E[(m + s e)^2] is m^2 + s^2: its gradients are 2 m and, by log s^2, s^2."""
    variables, *_ = linear_variables(*posterior())
    identity = {"kernel": np.eye(2, 6, dtype=np.float32), "bias": np.zeros(6, np.float32)}
    variables["params"]["decoder"]["Dense_0"] = identity
    x, rows = images()[:1], 200_000

    @jax.jit
    @jax.grad
    def gradient(bias):
        encoder = {**variables["params"]["encoder"]["Dense_0"], "bias": bias}
        changed = {"params": {**variables["params"], "encoder": {"Dense_0": encoder}}}
        many = jnp.broadcast_to(x, (rows, *SHAPE))
        found = LINEAR.apply(changed, many, train=True, rngs={"params": jax.random.key(0)})
        return jnp.mean(jnp.sum(jnp.square(found["reconstruction"]), axis=(1, 2)))

    found = LINEAR.apply(variables, x, train=False)
    expected = np.concatenate([2 * found["mean"][0], np.exp(found["log_variance"][0])])
    np.testing.assert_allclose(gradient(variables["params"]["encoder"]["Dense_0"]["bias"]), expected, atol=0.02)


def test_in_evaluation_the_noise_of_all_rows_is_the_same_and_in_training_each_has_its_own():
    x = np.broadcast_to(images()[:1], (B, *SHAPE))
    variables, *_ = linear_variables(*posterior())
    still = LINEAR.apply(variables, x, train=False)["reconstruction"]
    drawn = LINEAR.apply(variables, x, train=True, rngs={"params": jax.random.key(0)})["reconstruction"]
    np.testing.assert_allclose(still, np.broadcast_to(still[:1], still.shape), rtol=1e-6)
    assert np.abs(np.diff(drawn, axis=0)).max(axis=(1, 2)).min() > 1e-3


def test_codes_and_decodes_are_methods_of_their_own():
    variables = variables_of("vae")
    code = MODELS["vae"].apply(variables, images(), train=False, method="encode")
    found = called("vae", False)(variables, images())
    np.testing.assert_allclose(code["mean"], found["embedding"], rtol=1e-5)
    decoded = MODELS["vae"].apply(variables, code["mean"], train=False, method="decode")
    assert decoded["reconstruction"].shape == (B, *SHAPE)


STEPS, VALUES = 5, 3
WINDOWS = DataSpec({"past": jax.ShapeDtypeStruct((STEPS, VALUES), np.float32)}, 10, {})
SEQUENCES = {
    cell: sequence_autoencoder.make(WINDOWS, cell=cell, features=6, layers=2, width=4, dropout=0.5)
    for cell in ("lstm", "gru")
}
each_cell = pytest.mark.parametrize("cell", SEQUENCES)
RIGHT = (np.arange(STEPS) < np.array([[5], [3], [1], [0]])).astype(np.float32)


def windows(seed=0):
    return np.random.default_rng(seed).normal(size=(B, STEPS, VALUES)).astype(np.float32)


@functools.cache
def sequence_variables(cell):
    generator = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: SEQUENCES[cell].init(jax.random.key(0), windows(), train=False))
    return jax.tree.map(lambda x: generator.normal(0.1, 0.5, x.shape).astype(np.float32), shapes)


@functools.cache
def written(cell):
    return jax.jit(functools.partial(SEQUENCES[cell].apply, sequence_variables(cell), train=False))


@each_cell
def test_a_window_is_written_alike_wherever_its_padding_is_and_whatever_that_holds(cell):
    x_BTF, lengths = windows(), RIGHT.sum(axis=1).astype(int)
    found = written(cell)(x_BTF, RIGHT)
    assert found["reconstruction"].shape == x_BTF.shape
    assert np.all(np.where(RIGHT[..., None] > 0, 0, found["reconstruction"]) == 0)
    junk = written(cell)(np.where(RIGHT[..., None] > 0, x_BTF, np.nan), RIGHT)
    left = np.zeros_like(x_BTF)
    for row, length in enumerate(lengths):
        left[row, STEPS - length :] = x_BTF[row, :length]
    moved = written(cell)(left, RIGHT[:, ::-1])
    for key in found:
        np.testing.assert_array_equal(junk[key], found[key])
    np.testing.assert_allclose(moved["embedding"], found["embedding"], atol=1e-6)
    for row, length in enumerate(lengths):
        one = moved["reconstruction"][row, STEPS - length :]
        np.testing.assert_allclose(one, found["reconstruction"][row, :length], atol=1e-6)
    short = written(cell)(x_BTF[1:2, :3], np.ones((1, 3), np.float32))
    np.testing.assert_allclose(short["reconstruction"][0], found["reconstruction"][1, :3], atol=1e-6)
    np.testing.assert_allclose(written(cell)(x_BTF)["embedding"][0], found["embedding"][0], atol=1e-6)


@each_cell
def test_every_parameter_has_a_part_in_what_is_written_and_the_gradient_stops_at_padding(cell):
    weight = np.cos(np.arange(B * STEPS * VALUES)).reshape(B, STEPS, VALUES)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(variables, x_BTF):
        found = SEQUENCES[cell].apply(variables, x_BTF, RIGHT, train=False)["reconstruction"]
        return jnp.sum(found * weight)

    params, inputs = gradient(sequence_variables(cell), windows())
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(params))
    np.testing.assert_array_equal(np.abs(inputs).max(axis=2) > 0, RIGHT > 0)


def test_the_window_is_written_from_its_end_and_only_the_embedding_carries_it():
    model = SEQUENCES["gru"]
    variables = jax.tree.map(np.array, sequence_variables("gru"))
    variables["params"]["embedding"]["kernel"][:] = 0
    found = model.apply(variables, windows(), train=False)["reconstruction"]
    np.testing.assert_allclose(found, np.broadcast_to(found[:1], found.shape), rtol=1e-6)
    short = model.apply(variables, windows()[:, :2], train=False)["reconstruction"]
    np.testing.assert_allclose(short, found[:, -2:], rtol=1e-5)  # the last steps are written first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "ltsm"}, "config.model.cell='ltsm'.*did you mean 'lstm'"),
        ({"features": 0}, "config.model.features=0"),
        ({"width": 0}, "config.model.width=0"),
        ({"field": "pasd"}, "config.model.field='pasd'.*did you mean 'past'"),
    ],
)
def test_options_of_the_sequence_autoencoder_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        sequence_autoencoder.make(WINDOWS, **options)


def test_a_field_without_steps_is_no_window():
    flat = DataSpec({"past": jax.ShapeDtypeStruct((4,), np.float32)}, 10, {})
    with pytest.raises(ConfigError, match=r"config.model.field='past': has 1 axes a row; expected two"):
        sequence_autoencoder.make(flat)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (autoencoder, {"width": 0}, "config.model.width=0"),
        (autoencoder, {"hidden": (8, 0)}, "config.model.hidden=0"),
        (autoencoder, {"dropout": 1.0}, "config.model.dropout=1.0"),
        (vae, {"width": -1}, "config.model.width=-1"),
        (vae, {"field": "imag"}, "config.model.field='imag'.*did you mean 'image'"),
    ],
)
def test_what_cannot_be_is_an_error_before_anything_is_compiled(family, options, message):
    with pytest.raises(ConfigError, match=message):
        family.make(DATA, **options)


def test_a_likelihood_that_there_is_not_is_an_error():
    with pytest.raises(ConfigError, match="did you mean 'gaussian'"):
        LINEAR.apply({}, images(), train=False, method="log_likelihood", likelihood="gausian")
