"""ConvNeXt: size as published, PyTorch's values and gradients, symmetries, stochastic depth."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models import convnext
from jaxlab.models.convnext import convolve_channels

B, H, W, CLASSES = 3, 16, 12, 5
TINY = {"blocks": (1, 1), "channels": (4, 6), "patch_size": 2, "kernel_size": 3, "layer_scale": 0.5}


def data(height=H, width=W, channels=3, classes=CLASSES):
    example = {"image": jax.ShapeDtypeStruct((height, width, channels), np.float32)}
    return DataSpec(example, 10, {"classes": tuple(map(str, range(classes)))})


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


images = functools.partial(normal, B, H, W, 3)


def shapes_of(model, spec):
    image = jax.ShapeDtypeStruct((1, *spec.example["image"].shape), np.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def drawn(model, spec):
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda x: generator.normal(0, 0.4, x.shape).astype(np.float32), shapes_of(model, spec))


def test_the_defaults_are_convnext_t_with_the_published_number_of_parameters():
    spec = data(224, 224, classes=1000)
    leaves = jax.tree.leaves(shapes_of(convnext.make(spec), spec))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == 28_589_128


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (35, 47, 1)])
def test_grey_images_and_any_size_at_least_the_total_stride_work(height, width, channels):
    spec = data(height, width, channels)
    model = convnext.make(spec, (1, 1, 1, 1), (2, 3, 4, 5))
    assert shapes_of(model, spec)["params"]["Conv_0"]["kernel"].shape == (4, 4, channels, 2)
    with pytest.raises(ConfigError, match=r"config\.model\.patch_size=4 .* at least 32 pixels.* side of 31"):
        convnext.make(data(31, 64))


@pytest.mark.parametrize("size", [(3, 3), (5, 3), (7, 7)])
def test_the_convolution_of_each_channel_is_flaxs_values_and_gradients(size):
    x_BHWC = normal(2, 6, 7, 3)
    layers = [
        nn.Conv(3, size, padding=[(n // 2, n // 2) for n in size], feature_group_count=3, conv_general_dilated=inner)
        for inner in (None, convolve_channels)
    ]
    variables = {"params": {"kernel": normal(*size, 1, 3, seed=1), "bias": normal(3, seed=2)}}

    @jax.jit
    def both(variables, x):
        results = []
        for layer in layers:
            values, pull = jax.vjp(layer.apply, variables, x)
            results.append((values, pull(jnp.cos(jnp.arange(values.size)).reshape(values.shape))))
        return results

    for found, expected in zip(*map(jax.tree.leaves, both(variables, x_BHWC)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def reference(variables, image_BHWC, *, options):
    """Compute the logits as the paper's PyTorch code does."""
    from torch.nn import functional
    from torch_oracle import convolve, dense, layer_norm

    params = variables["params"]

    def space(x_BHWC, layer, stride, padding, groups=1):
        return convolve(x_BHWC.permute(0, 3, 1, 2), layer, stride, padding, groups).permute(0, 2, 3, 1)

    x_BHWC, number, norms = image_BHWC, 0, 0
    for stage, blocks in enumerate(options["blocks"]):
        if stage == 0:
            x_BHWC = layer_norm(space(x_BHWC, params["Conv_0"], options["patch_size"], 0), params["LayerNorm_0"])
        else:
            x_BHWC = space(layer_norm(x_BHWC, params[f"LayerNorm_{norms}"]), params[f"Conv_{stage}"], 2, 0)
        norms += 1
        for _ in range(blocks):
            layers = params[f"Block_{number}"]
            y_BHWC = space(x_BHWC, layers["Conv_0"], 1, options["kernel_size"] // 2, x_BHWC.shape[-1])
            y_BHWC = dense(layer_norm(y_BHWC, layers["LayerNorm_0"]), layers["Dense_0"])
            x_BHWC = x_BHWC + layers["layer_scale"] * dense(functional.gelu(y_BHWC), layers["Dense_1"])
            number += 1
    return dense(layer_norm(x_BHWC.mean((1, 2)), params[f"LayerNorm_{norms}"]), params["Dense_0"])


def test_logits_and_gradients_are_those_of_the_same_network_in_pytorch():
    pytest.importorskip("torch")
    import torch_oracle

    model = convnext.make(data(), **TINY)

    def apply(variables, image):
        return model.apply(variables, image, train=False)["logits"]

    theirs = functools.partial(reference, options=TINY)
    torch_oracle.compare(apply, theirs, torch_oracle.initial(model, images()), images())


def test_mirrored_kernels_see_a_mirrored_image_as_the_network_sees_it():
    model = convnext.make(data(), **TINY)
    variables = drawn(model, data())
    mirrored = jax.tree.map(lambda x: x[:, ::-1] if x.ndim == 4 else x, variables)
    logits = jax.jit(lambda variables, image: model.apply(variables, image, train=False)["logits"])
    np.testing.assert_allclose(logits(variables, images()), logits(mirrored, images()[:, :, ::-1]), atol=1e-5)
    assert not np.allclose(logits(variables, images()), logits(variables, images()[:, :, ::-1]), atol=1e-5)


def test_in_training_a_row_skips_a_block_whole_or_counts_it_by_one_over_the_chance_that_it_does_not():
    rate, rows = 0.25, 400
    block = convnext.Block(kernel_size=3, layer_scale=1.0, skip_rate=rate)
    x_BHWC = np.repeat(normal(1, 2, 3, 4), rows, axis=0)

    @jax.jit
    def residuals(x):
        full, variables = block.init_with_output(jax.random.key(0), x[:1], False)
        return full - x[:1], block.apply(variables, x, True, rngs={"dropout": jax.random.key(1)}) - x

    full, found = residuals(x_BHWC)
    skipped = np.isclose(found, 0, atol=1e-6).all((1, 2, 3))
    np.testing.assert_allclose(found[~skipped], np.repeat(full, (~skipped).sum(), 0) / (1 - rate), atol=1e-5)
    assert abs(skipped.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / rows)


def test_later_blocks_are_skipped_more_often_and_the_first_never():
    model = convnext.make(data(), **{**TINY, "blocks": (2, 2)}, stochastic_depth=0.3)
    rates = []

    def note(next_function, arguments, options, context):
        if isinstance(context.module, convnext.Block):
            rates.append(context.module.skip_rate)
        return next_function(*arguments, **options)

    with nn.intercept_methods(note):
        shapes_of(model, data())
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3])


def test_without_layer_scale_there_is_no_such_parameter_and_with_it_blocks_start_near_the_identity():
    spec = data()
    assert (
        "layer_scale" not in shapes_of(convnext.make(spec, **{**TINY, "layer_scale": 0.0}), spec)["params"]["Block_0"]
    )
    block = convnext.Block(kernel_size=3, layer_scale=1e-6, skip_rate=0.0)
    x_BHWC = normal(2, 4, 4, 3)
    found = jax.jit(lambda x: block.init_with_output(jax.random.key(0), x, False)[0])(x_BHWC)
    np.testing.assert_allclose(found, x_BHWC, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (1,)}, r"blocks=\(1,\) and channels=\(4, 6\) must be equally long"),
        ({"patch_size": 0}, r"config\.model\.patch_size=0: expected"),
        ({"kernel_size": 4}, r"config\.model\.kernel_size=4.*odd.*did you mean 5"),
        ({"layer_scale": -1.0}, r"config\.model\.layer_scale=-1\.0"),
        ({"stochastic_depth": 1.0}, r"config\.model\.stochastic_depth=1\.0"),
        ({"dropout": -0.5}, r"config\.model\.dropout=-0\.5"),
    ],
)
def test_an_option_that_cannot_be_is_an_error_that_names_it(options, message):
    with pytest.raises(ConfigError, match=message):
        convnext.make(data(), **{**TINY, **options})
