"""ResNets: sizes as published, PyTorch's values and gradients, symmetries, and options that cannot be."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec
from jaxlab.models import resnet

B, H, W, CLASSES = 3, 33, 17, 5


def data(height=H, width=W, channels=3, classes=CLASSES):
    example = {"image": jax.ShapeDtypeStruct((height, width, channels), np.float32)}
    return DataSpec(example, 10, {"classes": tuple(map(str, range(classes)))})


def images(channels=3, seed=0):
    return np.random.default_rng(seed).standard_normal((B, H, W, channels), np.float32)


def shapes_of(model, spec):
    image = jax.ShapeDtypeStruct((1, *spec.example["image"].shape), np.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def count(model, spec):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(model, spec)["params"]))


IMAGENET, CIFAR = data(224, 224, classes=1000), data(32, 32, classes=10)


@pytest.mark.parametrize(
    ("factory", "options", "parameters"),
    [
        (resnet.resnet18, {}, 11_689_512),
        (resnet.resnet34, {}, 21_797_672),
        (resnet.resnet50, {}, 25_557_032),
        (resnet.resnet50, {"width": 2}, 68_883_240),
        (resnet.resnet50, {"blocks": (3, 4, 23, 3)}, 44_549_160),
    ],
)
def test_a_named_size_has_the_published_number_of_parameters(factory, options, parameters):
    assert count(factory(IMAGENET, None, **options), IMAGENET) == parameters


@pytest.mark.parametrize(("depth", "width", "millions"), [(28, 10, 36.5), (40, 4, 8.9), (16, 8, 11.0)])
def test_a_wide_network_has_the_papers_number_of_parameters_as_its_layers_add_up(depth, width, millions):
    blocks, ends = (depth - 4) // 6, (16, *(16 * width * 2**stage for stage in range(3)))
    expected = 9 * 3 * 16 + 2 * ends[-1] + ends[-1] * 10 + 10  # stem, last normalisation, output
    for before, after in itertools.pairwise(ends):
        expected += 2 * before + 9 * before * after + 2 * after + 9 * after**2 + before * after  # with a 1x1 shortcut
        expected += (blocks - 1) * (2 * (2 * after) + 2 * 9 * after**2)
    assert count(resnet.wide(CIFAR, None, depth, width), CIFAR) == expected
    assert round(expected / 1e6, 1) == millions


@pytest.mark.parametrize("stem", ["imagenet", "small", "small_pool"])
def test_grey_images_and_any_size_at_least_the_total_stride_work(stem):
    side = resnet.STEM_STRIDES[stem] * 4
    for spec in (data(side, side, 1), data(side + 3, side + 5, 1)):
        model = resnet.make(spec, None, channels=(2, 3, 4), blocks=(1, 1, 1), stem=stem)
        image = jnp.zeros((1, *spec.example["image"].shape))
        outputs, _ = jax.eval_shape(lambda x, m=model: m.init_with_output(jax.random.key(0), x, train=False), image)
        assert outputs["logits"].shape == (1, CLASSES)
    with pytest.raises(ConfigError, match=rf"config\.model\.stem='{stem}'.* at least {side} pixels"):
        resnet.make(data(side, side - 1), None, stem=stem)


SMALL = {"blocks": (1, 1), "channels": (4, 6)}
NETWORKS = {
    "basic": {**SMALL, "block": "basic", "stem": "small_pool"},
    "bottleneck": {**SMALL, "block": "bottleneck", "stem": "imagenet"},
    "wide_bottleneck": {**SMALL, "blocks": (1, 2), "block": "bottleneck", "stem": "small", "width": 2},
    "resnet_d": {**SMALL, "block": "bottleneck", "stem": "small", "shortcut": "pool"},
    "preactivation": {**SMALL, "block": "basic", "stem": "small", "width": 2, "preactivation": True},
}


def reference(variables, image_BHWC, *, options, train):
    """Compute the logits as torchvision's networks do, and those of the wide networks' authors."""
    from torch.nn import functional
    from torch_oracle import convolve, dense

    def norm(scope, layer, x):
        params, stats = (functools.reduce(dict.get, scope, variables[top])[layer] for top in ("params", "batch_stats"))
        moments = (None, None) if train else (stats["mean"].detach(), stats["var"].detach())
        return functional.batch_norm(x, *moments, params["scale"], params["bias"], training=train, eps=1e-5)

    def block(name, x, stride):
        params, scope = variables["params"][name], (name,)
        strides = (1, stride, 1) if options["block"] == "bottleneck" else (stride, 1)
        after, y, start = not options.get("preactivation"), x, x
        for place, each in enumerate(strides):
            if not after:
                y = functional.relu(norm(scope, f"BatchNorm_{place}", y))
                start = y if place == 0 else start
            y = convolve(y, params[f"Conv_{place}"], each, len(params[f"Conv_{place}"]["kernel"]) // 2)
            if after:
                y = norm(scope, f"BatchNorm_{place}", y)
                y = functional.relu(y) if place < len(strides) - 1 else y
        if f"Conv_{len(strides)}" in params:
            x = x if after else start
            if options.get("shortcut") == "pool" and stride == 2:
                x, stride = functional.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False), 1
            x = convolve(x, params[f"Conv_{len(strides)}"], stride, 0)
            x = norm(scope, f"BatchNorm_{len(strides)}", x) if after else x
        return functional.relu(x + y) if after else x + y

    large, after = options["stem"] == "imagenet", not options.get("preactivation")
    x = convolve(image_BHWC.permute(0, 3, 1, 2), variables["params"]["Conv_0"], 1 + large, 3 if large else 1)
    x = functional.relu(norm((), "BatchNorm_0", x)) if after else x
    x = functional.max_pool2d(x, 3, 2, 1) if large else x
    x = functional.max_pool2d(x, 2) if options["stem"] == "small_pool" else x
    kind = "Block" if after else "PreactivationBlock"
    strides = [2 if stage and place == 0 else 1 for stage, n in enumerate(options["blocks"]) for place in range(n)]
    for place, stride in enumerate(strides):
        x = block(f"{kind}_{place}", x, stride)
    x = x if after else functional.relu(norm((), "BatchNorm_0", x))
    return dense(x.mean((2, 3)), variables["params"]["Dense_0"])


@pytest.mark.parametrize(
    ("name", "train"),
    [
        ("basic", False), ("bottleneck", False), ("wide_bottleneck", False), ("resnet_d", True),
        ("preactivation", True),
    ],
)  # fmt: skip
def test_logits_and_gradients_are_those_of_the_same_network_in_pytorch(name, train):
    pytest.importorskip("torch")
    import torch_oracle

    model = resnet.make(data(), None, **NETWORKS[name])

    def apply(variables, image):
        outputs = model.apply(variables, image, train=train, mutable="batch_stats" if train else False)
        return (outputs[0] if train else outputs)["logits"]

    theirs = functools.partial(reference, options=NETWORKS[name], train=train)
    torch_oracle.compare(apply, theirs, torch_oracle.initial(model, images()), images())


def test_the_bottleneck_s_stride_is_that_of_its_3x3_so_that_no_pixel_is_left_out():
    model = resnet.make(data(), None, "bottleneck", (1, 1), (2, 2))
    convolutions = model._convolutions(2, 2)
    assert [(each.size, each.stride) for each in convolutions] == [(1, 1), (3, 2), (1, 1)]
    block = resnet.Block(convolutions, "conv", zero_init=False, dropout=0.0, batch_axis=None)
    x_BHWC = jnp.abs(images(4))
    variables = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, None, False), x_BHWC)
    ones = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), variables)
    gradient_BHWC = jax.jit(jax.grad(lambda x: block.apply(ones, x, None, False).sum()))(x_BHWC)
    assert np.abs(gradient_BHWC).min() > 0  # a strided 1x1 would see a quarter of the pixels


@functools.cache
def drawn(name):
    """Return variables with numbers that are no special case."""
    generator = np.random.default_rng(2)
    shapes = shapes_of(resnet.make(data(), None, **NETWORKS[name]), data())
    return jax.tree.map(lambda x: generator.uniform(0.1, 0.5, x.shape).astype(np.float32) - 0.05 * (x.ndim > 1), shapes)


def logits_of(name, variables, *inputs):
    model = resnet.make(data(), None, **NETWORKS[name])
    function = jax.jit(lambda variables, image: model.apply(variables, image, train=False)["logits"])
    return [function(*both) for both in zip(variables, inputs, strict=True)]


def test_mirrored_kernels_see_a_mirrored_image_as_the_network_sees_it_for_paddings_are_symmetric():
    name = "bottleneck"
    kernels_mirrored = jax.tree.map(lambda x: x[:, ::-1] if x.ndim == 4 else x, drawn(name))
    image = images()  # odd sides: then also the grid of every second pixel is its own mirror image
    plain, mirrored, other = logits_of(
        name, (drawn(name), kernels_mirrored, drawn(name)), image, image[:, :, ::-1], image[:, :, ::-1]
    )
    np.testing.assert_allclose(plain, mirrored, rtol=1e-4)
    assert not np.allclose(plain, other, rtol=1e-4)


def test_an_object_on_black_moved_by_the_total_stride_has_the_same_logits():
    name = "wide_bottleneck"  # its small stem leaves all that the object reaches within the image

    def without_offsets(path, x):
        return np.zeros_like(x) if path[-1].key in ("bias", "mean") and "Dense_0" not in str(path) else x

    variables = jax.tree_util.tree_map_with_path(without_offsets, drawn(name))
    image = np.zeros((B, H, W, 3), np.float32)
    image[:, 12:15, 6:8] = images()[:, :3, :2]
    plain, moved, less = logits_of(name, (variables,) * 3, image, np.roll(image, 2, axis=1), np.roll(image, 1, axis=1))
    np.testing.assert_allclose(plain, moved, rtol=1e-4)
    assert not np.allclose(plain, less, rtol=1e-4)


def test_same_padding_is_tensorflow_s_and_differs_at_strides_alone():
    def logits(padding, blocks, side):
        spec = data(side, side)
        model = resnet.make(spec, None, blocks=blocks, channels=(2,) * len(blocks), padding=padding)
        variables = jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), shapes_of(model, spec))
        return jax.jit(lambda x: model.apply(variables, x, train=False)["logits"])(images()[:, :side, :side])

    for blocks, side, equal in (((1,), 8, True), ((1, 1), 8, False)):
        assert np.allclose(logits("same", blocks, side), logits("symmetric", blocks, side), atol=1e-5) == equal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "bottle"}, r"config\.model\.block='bottle'.*did you mean 'bottleneck'"),
        ({"stem": "cifar"}, r"config\.model\.stem='cifar'.*imagenet, small, small_pool"),
        ({"shortcut": "avg"}, r"config\.model\.shortcut='avg'.*conv, pool"),
        ({"padding": "SAME"}, r"config\.model\.padding='SAME'.*symmetric, same"),
        ({"dropout": 1.0}, r"config\.model\.dropout=1\.0"),
        ({"block_dropout": -0.1}, r"config\.model\.block_dropout=-0\.1"),
        ({"blocks": (1, 2)}, r"channels=\(16, 32, 64\) and blocks=\(1, 2\) must be equally long"),
        ({"blocks": ()}, r"config\.model\.blocks=\(\)"),
        ({"channels": (4, 0, 4)}, r"config\.model\.channels=\(4, 0, 4\)"),
        ({"width": 0}, r"config\.model\.width=0: expected"),
    ],
)
def test_an_option_that_cannot_be_is_an_error_that_names_it(options, message):
    with pytest.raises(ConfigError, match=message):
        resnet.make(data(), None, **options)


@pytest.mark.parametrize("depth", [4, 27, 30])
def test_a_wide_network_of_a_depth_that_blocks_cannot_give_is_an_error(depth):
    with pytest.raises(ConfigError, match=rf"config\.model\.depth={depth}: expected 6 n \+ 4"):
        resnet.wide(data(), None, depth)


def test_a_field_image_that_is_none_is_an_error():
    spec = data()._replace(example={"image": jax.ShapeDtypeStruct((64,), np.float32)})
    with pytest.raises(DataError, match=r"shape \(64,\).*height, width, channels"):
        resnet.make(spec, None)
