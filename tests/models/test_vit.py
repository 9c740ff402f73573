"""ViT: sizes as published, PyTorch's values and gradients, and what positions, patches and pooling mean."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.models import vit
from jaxlab.models.vision import convolve_patches

B, H, W, P, CLASSES = 2, 6, 9, 3, 5
TINY = {"width": 8, "depth": 2, "heads": 2, "patch_size": P}
POOLS = ("token", "mean")


def data(height=H, width=W, channels=3, classes=CLASSES):
    example = {"image": jax.ShapeDtypeStruct((height, width, channels), np.float32)}
    return DataSpec(example, 10, {"classes": tuple(map(str, range(classes)))})


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


images = functools.partial(normal, B, H, W, 3)


def shapes_of(model, spec):
    image = jax.ShapeDtypeStruct((1, *spec.example["image"].shape), np.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


@functools.cache
def network(pool):
    """Return parameters [drawn at random] and the jitted function from them and images to logits."""
    model = vit.make(data(), **TINY, pool=pool)
    generator = np.random.default_rng(1)
    variables = jax.tree.map(lambda x: generator.normal(0, 0.4, x.shape).astype(np.float32), shapes_of(model, data()))
    return variables, jax.jit(lambda variables, image: model.apply(variables, image, train=False)["logits"])


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    ("width", "heads", "parameters"), [(384, 6, 22_050_664), (768, 12, 86_567_656)], ids=["S16", "B16"]
)
def test_a_size_has_the_published_number_of_parameters(width, heads, parameters, scan):
    spec = data(224, 224, classes=1000)
    leaves = jax.tree.leaves(shapes_of(vit.make(spec, width=width, heads=heads, scan=scan), spec))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == parameters


@pytest.mark.parametrize(("pool", "tokens"), [("token", 7), ("mean", 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_patch_is_a_token_and_only_the_class_token_is_more(pool, tokens, channels):
    spec = data(channels=channels)
    params = shapes_of(vit.make(spec, **TINY, pool=pool), spec)["params"]
    assert params["positions"].shape == (tokens, 8)
    assert params["patches"]["kernel"].shape == (P, P, channels, 8)
    assert ("class_token" in params) == (pool == "token")


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (4, 5)])
def test_the_patches_convolution_is_flaxs_values_and_gradients_with_a_remainder_dropped(rows, columns):
    x_BHWC, size = normal(2, 9, 11, 3), (rows, columns)
    layers = [nn.Conv(4, size, size, "VALID", conv_general_dilated=inner) for inner in (None, convolve_patches)]
    variables = {"params": {"kernel": normal(*size, 3, 4, seed=1), "bias": normal(4, seed=2)}}

    @jax.jit
    def both(variables, x):
        results = []
        for layer in layers:
            values, pull = jax.vjp(layer.apply, variables, x)
            results.append((values, pull(jnp.cos(jnp.arange(values.size)).reshape(values.shape))))
        return results

    for found, expected in zip(*map(jax.tree.leaves, both(variables, x_BHWC)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def encoder_layer(tensors, x_BTD):
    """Compute a block by PyTorch's own encoder layer, with these parameters."""
    import torch

    layer = torch.nn.TransformerEncoderLayer(
        TINY["width"], TINY["heads"], 4 * TINY["width"], 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
    )
    attention, inner = tensors["attention"], [tensors["attention"][name] for name in ("query", "key", "value")]
    feed_forward = tensors["feed_forward"]
    parameters = {
        "self_attn.in_proj_weight": torch.cat([each["kernel"].T for each in inner]),
        "self_attn.in_proj_bias": torch.cat([each["bias"] for each in inner]),
    }
    for name, each in (
        ("self_attn.out_proj", attention["output"]), ("linear1", feed_forward["up"]), ("linear2", feed_forward["down"])
    ):  # fmt: skip
        parameters |= {f"{name}.weight": each["kernel"].T, f"{name}.bias": each["bias"]}
    for name, each in (("norm1", tensors["attention_norm"]), ("norm2", tensors["feed_forward_norm"])):
        parameters |= {f"{name}.weight": each["scale"], f"{name}.bias": each["bias"]}
    return torch.func.functional_call(layer, parameters, (x_BTD,))


def reference(variables, image_BHWC, *, pool):
    """Compute the logits as timm's network does."""
    import torch
    from torch_oracle import convolve, dense, layer_norm

    params = variables["params"]
    x_BTD = convolve(image_BHWC.permute(0, 3, 1, 2), params["patches"], P, 0).flatten(2).transpose(1, 2)
    if pool == "token":
        x_BTD = torch.cat([params["class_token"].expand(len(x_BTD), 1, -1), x_BTD], dim=1)
    x_BTD = x_BTD + params["positions"]
    for block in range(TINY["depth"]):
        x_BTD = encoder_layer(params["stack"][f"layers_{block}"], x_BTD)
    x_BTD = layer_norm(x_BTD, params["stack"]["norm"])
    return dense(x_BTD[:, 0] if pool == "token" else x_BTD.mean(1), params["head"])


@pytest.mark.parametrize("pool", POOLS)
def test_logits_and_gradients_are_those_of_the_same_network_in_pytorch(pool):
    pytest.importorskip("torch")
    import torch_oracle

    model = vit.make(data(), **TINY, pool=pool)

    def apply(variables, image):
        return model.apply(variables, image, train=False)["logits"]

    theirs = functools.partial(reference, pool=pool)
    torch_oracle.compare(apply, theirs, torch_oracle.initial(model, images()), images())


def permuted(image_BHWC, order):
    """Return the image with its patches, counted by rows, in another order."""
    patches = image_BHWC.reshape(B, H // P, P, W // P, P, 3).swapaxes(2, 3).reshape(B, -1, P, P, 3)[:, order]
    return patches.reshape(B, H // P, W // P, P, P, 3).swapaxes(2, 3).reshape(B, H, W, 3)


@pytest.mark.parametrize("pool", POOLS)
def test_only_positions_tell_the_order_of_patches(pool):
    variables, logits = network(pool)
    order, first = np.array([3, 0, 5, 1, 4, 2]), int(pool == "token")
    positions = variables["params"]["positions"]
    moved = {"params": {**variables["params"], "positions": np.r_[positions[:first], positions[first:][order]]}}
    expected = logits(variables, images())
    np.testing.assert_allclose(logits(moved, permuted(images(), order)), expected, atol=1e-4)
    assert not np.allclose(logits(variables, permuted(images(), order)), expected, atol=1e-2)


@pytest.mark.parametrize("pool", POOLS)
def test_a_scan_over_the_blocks_computes_what_the_blocks_one_by_one_do(pool):
    variables, logits = network(pool)
    params = variables["params"]
    blocks = [params["stack"][f"layers_{n}"] for n in range(TINY["depth"])]
    stack = {"layers": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks), "norm": params["stack"]["norm"]}
    model = vit.make(data(), **TINY, pool=pool, scan=True)
    scanned = {"params": {**params, "stack": stack}}
    found = jax.jit(lambda image: model.apply(scanned, image, train=False)["logits"])(images())
    np.testing.assert_allclose(found, logits(variables, images()), atol=1e-5)


def test_the_mean_is_that_of_all_tokens_and_each_counts_the_same():
    model = vit.make(data(), **{**TINY, "depth": 1}, pool="mean")
    variables = shapes_of(model, data())
    variables = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), variables)  # blocks that add nothing
    params = variables["params"]
    params["patches"]["kernel"], params["head"]["kernel"] = normal(P, P, 3, 8), normal(8, CLASSES, seed=1)
    params["stack"]["norm"]["scale"] = np.ones(8, np.float32)
    tokens_BTD = np.einsum("BIPJQC,PQCD->BIJD", images().reshape(B, 2, P, 3, P, 3), params["patches"]["kernel"])
    tokens_BTD = tokens_BTD.reshape(B, 6, 8)
    tokens_BTD = tokens_BTD - tokens_BTD.mean(-1, keepdims=True)
    tokens_BTD = tokens_BTD / np.sqrt((tokens_BTD**2).mean(-1, keepdims=True) + 1e-6)
    found = jax.jit(lambda image: model.apply(variables, image, train=False)["logits"])(images())
    np.testing.assert_allclose(found, tokens_BTD.mean(1) @ params["head"]["kernel"], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 4}, r"config\.model\.patch_size=4.*divisor of the image's sides, 6 and 9; did you mean 3"),
        ({"patch_size": 16}, r"config\.model\.patch_size=16.*did you mean 3"),
        ({"patch_size": 0}, r"config\.model\.patch_size=0"),
        ({"heads": 3}, r"config\.model\.heads=3.*did you mean"),
        ({"pool": "cls"}, r"config\.model\.pool='cls'.*token, mean"),
        ({"stochastic_depth": 1.0}, r"config\.model\.stochastic_depth=1\.0"),
        ({"attention": "flash"}, r"config\.model\.attention='flash'"),
    ],
)
def test_an_option_that_cannot_be_is_an_error_that_names_it(options, message):
    with pytest.raises(ConfigError, match=message):
        vit.make(data(), **{**TINY, **options})
