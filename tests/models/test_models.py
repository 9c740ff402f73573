"""The image models: shapes, sizes, and that in evaluation a row's logits depend on that row alone."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import DataSpec
from jaxlab.models import cnn, convnext, mlp, resnet, vit

ROOT = Path(__file__).parents[2]
CLASSES = 7
B, H, W = 4, 9, 12


def data(height=H, width=W, channels=2, classes=CLASSES):
    example = {"image": jax.ShapeDtypeStruct((height, width, channels), np.float32)}
    return DataSpec(example, 10, {"classes": tuple(map(str, range(classes)))})


MODELS = {
    "mlp": mlp.make(data(), None, hidden=(8, 6), dropout=0.5),
    "mlp_norm": mlp.make(data(), None, hidden=(8,), dropout=0.5, batch_norm=True),
    "cnn": cnn.make(data(), None, channels=(4, 6), depth=(2, 1), hidden=(8,), dropout=0.5),
    "cnn_pool": cnn.make(data(), None, channels=(4,), depth=(1,), dropout=0.5, batch_norm=False, global_pool=True),
    "resnet": resnet.make(
        data(), None, channels=(4, 8), blocks=(1, 1), stem="small_pool", shortcut="pool", dropout=0.5
    ),
    "bottleneck": resnet.make(data(), None, "bottleneck", (1, 1), (2, 3), stem="imagenet", block_dropout=0.5),
    "wide": resnet.make(data(), None, blocks=(2, 1), channels=(2, 3), width=2, preactivation=True, block_dropout=0.5),
    "convnext": convnext.make(data(), (1, 2), (4, 6), patch_size=2, kernel_size=5, layer_scale=0.5, dropout=0.5),
    "vit": vit.make(data(), width=8, depth=2, heads=2, patch_size=3, dropout=0.5),
    "vit_mean": vit.make(data(), width=8, depth=2, heads=2, patch_size=3, pool="mean", stochastic_depth=0.5),
}
each_model = pytest.mark.parametrize("name", MODELS)


def images(seed=0, batch=B):
    return np.random.default_rng(seed).standard_normal((batch, H, W, 2), np.float32)


def shapes_of(model, image):
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


@functools.cache
def variables_of(name):
    """Return positive and negative numbers without a zero, so that every path through the model carries something."""
    generator = np.random.default_rng(1)
    shapes = shapes_of(MODELS[name], images())
    params = jax.tree.map(lambda x: generator.normal(0.1, 0.3, x.shape).astype(np.float32), shapes["params"])
    rest = {key: value for key, value in shapes.items() if key != "params"}
    return {"params": params, **jax.tree.map(lambda x: generator.uniform(0.5, 1, x.shape).astype(np.float32), rest)}


@functools.cache
def in_evaluation(name):
    """Return the function from (image, weight [B, C]) to the logits, and to their weighted sum's gradients."""

    @jax.jit
    def function(image, weight_BC):
        def score(params, image):
            logits_BC = MODELS[name].apply({**variables_of(name), "params": params}, image, train=False)["logits"]
            return jnp.sum(logits_BC * weight_BC), logits_BC

        gradients, logits_BC = jax.grad(score, argnums=(0, 1), has_aux=True)(variables_of(name)["params"], image)
        return logits_BC, *gradients

    return function


@functools.cache
def in_training(name):
    """Return the function from (image, mask, dropout seed) to the logits and the new state."""

    @jax.jit
    def function(image, mask_B, seed):
        inputs = (image, mask_B) if "batch_stats" in variables_of(name) else (image,)
        outputs, state = MODELS[name].apply(
            variables_of(name), *inputs, train=True, rngs={"dropout": jax.random.key(seed)}, mutable="batch_stats"
        )
        return outputs["logits"], state

    return function


@each_model
def test_a_model_returns_float_logits_for_each_row_and_class(name):
    for batch in (1, B):
        outputs = jax.eval_shape(
            functools.partial(MODELS[name].apply, train=False), variables_of(name), images(0, batch)
        )
        assert outputs["logits"] == jax.ShapeDtypeStruct((batch, CLASSES), np.float32)
    assert np.isfinite(in_evaluation(name)(images(), np.ones((B, CLASSES)))[0]).all()


@each_model
def test_in_bfloat16_the_model_computes_in_it_but_for_its_running_statistics(name):
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (variables_of(name)["params"], images()))
    variables = {**variables_of(name), "params": low[0]}
    outputs = jax.eval_shape(functools.partial(MODELS[name].apply, train=False), variables, low[1])
    assert outputs["logits"].dtype == jnp.bfloat16


@each_model
def test_in_evaluation_the_logits_of_a_row_depend_on_that_row_and_on_no_other(name):
    for row in range(B):
        weight_BC = np.zeros((B, CLASSES))
        weight_BC[row] = np.arange(1, CLASSES + 1)
        _, _, gradient_BHWC = in_evaluation(name)(images(), weight_BC)
        assert np.flatnonzero(np.abs(gradient_BHWC).sum(axis=(1, 2, 3))).tolist() == [row]


@each_model
def test_every_parameter_has_a_part_in_the_logits(name):
    _, gradient, _ = in_evaluation(name)(images(), np.arange(1.0, B * CLASSES + 1).reshape(B, CLASSES))
    without = {leaf for leaf, value in named_leaves(gradient).items() if not np.abs(value).max() > 0}
    assert all(leaf.endswith("key/bias") for leaf in without), without  # it adds the same to all of a query's scores


@each_model
def test_dropout_acts_in_training_and_evaluation_needs_no_key(name):
    first, again, other = (in_training(name)(images(), np.ones(B), seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    in_evaluation(name)(images(), np.ones((B, CLASSES)))  # would raise if dropout asked for a key


@pytest.mark.parametrize("name", ["mlp_norm", "cnn", "resnet", "bottleneck", "wide"])
def test_in_training_padded_rows_change_neither_the_real_rows_nor_the_running_statistics(name):
    mask_B, changed = np.array([1.0, 1.0, 0.0, 1.0]), images()
    changed[2] = 100.0
    (first, state), (second, other) = (in_training(name)(image, mask_B, 0) for image in (images(), changed))
    np.testing.assert_allclose(first[mask_B > 0], second[mask_B > 0], atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state, other)


def count(model, spec):
    image = jax.ShapeDtypeStruct((1, *spec.example["image"].shape), np.float32)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(model, image)["params"]))


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_resnet_of_n_blocks_a_stage_has_the_papers_number_of_parameters_and_its_own_shortcuts(depth, millions):
    blocks = (depth - 2) // 6
    spec = data(32, 32, 3, classes=10)
    found = count(resnet.make(spec, None, blocks=(blocks,) * 3), spec)
    shortcuts = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)  # the paper's have no parameters: 1x1 kernels and their norms
    assert round((found - shortcuts) / 1e6, 2) == millions


def test_a_block_starts_as_the_identity_of_its_non_negative_input():
    convolution = resnet.Convolution(channels=2, size=3, stride=1, padding="symmetric")
    block = resnet.Block((convolution,) * 2, shortcut="conv", zero_init=True, dropout=0.0, batch_axis=None)
    x_BHWC = jnp.abs(images())
    found = jax.jit(lambda x: block.init_with_output(jax.random.key(0), x, None, False)[0])(x_BHWC)
    assert np.array_equal(found, x_BHWC)


def test_the_cnn_of_the_fashion_mnist_config_has_fewer_parameters_than_its_text_states():
    config = configs.load(ROOT / "configs" / "fashion_mnist_cnn.py")
    spec = data(28, 28, 1, classes=10)
    assert count(configs.build(config.model, data=spec, batch_axis=None), spec) < 100_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (4, 6), "depth": (1,)}, "must be equally long"),
        ({"channels": (4, 6), "depth": (1, 0)}, r"config.model.depth=\(1, 0\): expected whole numbers of at least 1"),
        ({"channels": (4,) * 4, "depth": (1,) * 4}, "image side of 9 cannot be halved so often"),
    ],
)
def test_a_cnn_that_the_image_is_too_small_for_or_whose_widths_and_depths_do_not_fit_is_an_error(options, message):
    with pytest.raises(ConfigError, match=message):
        cnn.make(data(), None, **options)
