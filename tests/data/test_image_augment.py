"""Crops, colours and RandAugment agree with Pillow, operation by operation, and treat a row alike in any slice."""

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data import image_colour, image_geometry, images, rand_augment
from jaxlab.data.pipeline import RowRandomness

B, H, W = 48, 21, 17


def make_images(channels=3, dtype=np.uint8, seed=0):
    """Return images that are neither flat nor noise, some of them of few grey levels or of a narrow range."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    wave = (
        generator.uniform(0.05, 0.5, (B, 1, 1, channels)) * y[..., None]
        + generator.uniform(0, 6, (B, 1, 1, 1)) * 0.1 * x[..., None]
    )
    image = 127 + generator.uniform(20, 120, (B, 1, 1, 1)) * np.sin(wave) + generator.normal(0, 6, (B, H, W, channels))
    image[0], image[1, :12], image[2] = 77, 0, image[2] // 64 * 64
    return np.clip(image, 0, 255).astype(dtype)


def apply(transform, image_BHWC, seed=0, rows=slice(None), total=None):
    image_BHWC.setflags(write=False)
    fields = {"image": image_BHWC[rows], "other": np.arange(3)}
    result = transform(fields, RowRandomness(np.random.default_rng(seed), total or len(image_BHWC), rows))
    assert result["other"] is fields["other"]
    return result["image"]


def by_pillow(function, byte_BHWC):
    pictures = [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in byte_BHWC]
    return np.stack([np.asarray(function(i, picture)) for i, picture in enumerate(pictures)]).reshape(byte_BHWC.shape)


def apart(found, expected):
    return np.abs(found.astype(int) - expected.astype(int))


ALL = {
    "erase": images.random_erase(probability=1.0, value="noise"),
    "shift": images.random_shift(pixels=4, fill=0),
    "crop": image_geometry.random_resized_crop(),
    "jitter": image_colour.colour_jitter(hue=0.2),
    "randaugment": rand_augment.make(layers=3),
}
BYTES = ("jitter", "randaugment")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", ALL)
def test_a_slice_of_the_rows_is_transformed_as_in_the_whole_batch_and_shape_and_dtype_stay(name, dtype, channels):
    image = (make_images(channels) / (255 if dtype == np.float32 else 1)).astype(dtype)
    whole = apply(ALL[name], image)
    assert whole.shape == image.shape
    assert whole.dtype == dtype
    parts = [apply(ALL[name], image, rows=rows) for rows in (slice(0, 5), slice(5, 30), slice(30, B))]
    assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(whole, apply(ALL[name], image))
    assert (whole != apply(ALL[name], image, seed=1)).any((1, 2, 3)).mean() > 0.8


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_transformed_alike_whatever_the_others_are(name):
    image, others = make_images(), make_images(seed=1)
    others[3] = image[3]
    assert np.array_equal(apply(ALL[name], image)[3], apply(ALL[name], others)[3])


@pytest.mark.parametrize(
    ("operation", "enhancer"),
    [
        (image_colour.adjust_brightness, ImageEnhance.Brightness),
        (image_colour.adjust_contrast, ImageEnhance.Contrast),
        (image_colour.adjust_saturation, ImageEnhance.Color),
        (image_colour.adjust_sharpness, ImageEnhance.Sharpness),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_enhancing_is_pillows_within_a_level_and_a_factor_of_1_is_the_image(operation, enhancer, channels):
    image = make_images(channels)
    factor_B = np.random.default_rng(0).uniform(0, 2, B)
    found = operation(image, factor_B)
    expected = by_pillow(lambda i, picture: enhancer(picture).enhance(factor_B[i]), image)
    # Pillow rounds the smoothed or grey base down or up before it is mixed, by factors of up to 2
    assert apart(found, expected).max() <= 2
    assert apart(found, expected).mean() < 0.6
    assert np.array_equal(operation(image, np.ones(B)), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_posterise_solarise_autocontrast_and_equalise_are_pillows(channels):
    image = make_images(channels)
    bits_B, threshold_B = np.arange(B) % 8 + 1, np.linspace(0, 256, B)
    found = image_colour.posterise(image, bits_B)
    assert np.array_equal(found, by_pillow(lambda i, p: ImageOps.posterize(p, int(bits_B[i])), image))
    found = image_colour.solarise(image, threshold_B)
    assert np.array_equal(found, by_pillow(lambda i, p: ImageOps.solarize(p, threshold_B[i]), image))
    assert apart(image_colour.autocontrast(image), by_pillow(lambda i, p: ImageOps.autocontrast(p), image)).max() <= 1
    assert np.array_equal(image_colour.equalise(image), by_pillow(lambda i, p: ImageOps.equalize(p), image))


def test_the_hue_is_turned_as_in_the_standard_librarys_colour_system():
    image, turn_B = make_images()[:6, :5, :5], np.linspace(-0.5, 0.5, 6)
    found = image_colour.turn_hue(image, turn_B)
    for before, after, turn in zip(image, found, turn_B, strict=True):
        for pixel, turned in zip(before.reshape(-1, 3), after.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
            assert np.allclose(turned / 255, colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), atol=1 / 255)
    assert np.array_equal(image_colour.turn_hue(make_images(), np.zeros(B)), make_images())


def test_jitter_keeps_grey_grey_stays_within_its_ranges_and_is_nothing_at_strength_0():
    image = make_images()
    still = image_colour.colour_jitter(brightness=0, contrast=0, saturation=0, hue=0)
    assert np.array_equal(apply(still, image), image)
    grey = np.repeat(make_images(1), 3, axis=3)
    found = apply(image_colour.colour_jitter(hue=0.5), grey)
    assert (found == found[..., :1]).all()
    brighter = apply(image_colour.colour_jitter(brightness=0.5, contrast=0, saturation=0), np.full_like(image, 100))
    level_B = brighter[:, 0, 0, 0]
    assert (brighter == level_B[:, None, None, None]).all()
    assert 50 <= level_B.min() < 65
    assert 135 < level_B.max() <= 150


def test_the_order_of_the_jitters_operations_differs_between_images():
    image = np.repeat(make_images()[5:6], B, axis=0)
    image_BHWC = apply(image_colour.colour_jitter(brightness=0.9, contrast=0.9, saturation=0.9), image)
    assert len(np.unique(image_BHWC.reshape(B, -1), axis=0)) == B


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_a_move_is_pillows_affine_transform(name, channels):
    image, strength_B = make_images(channels), np.random.default_rng(1).uniform(0, 1, B)
    sign_B = np.where(np.arange(B) % 2, 1, -1)
    found = rand_augment.make_operations(fill=9)[name](image, strength_B, sign_B)
    amount_B = strength_B * sign_B
    fill = 9 if channels == 1 else (9, 9, 9)

    def move(i, picture):
        if name == "rotate":
            return picture.rotate(30 * amount_B[i], Image.Resampling.BILINEAR, fillcolor=fill)
        along, across = (0.3 * amount_B[i] if name == f"shear_{axis}" else 0.0 for axis in "xy")
        right, down = (
            150 / 331 * amount_B[i] * n if name == f"translate_{a}" else 0.0 for a, n in (("x", W), ("y", H))
        )
        matrix = (1, along, right - along * H / 2, across, 1, down - across * W / 2)
        return picture.transform(
            picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill
        )

    different = apart(found, by_pillow(move, image))
    assert np.quantile(different, 0.99) <= 1  # Pillow works in fixed point, so a pixel on the edge may fall outside
    assert different.mean() < 0.55  # where it cuts fractions off, half a level on average


@pytest.mark.parametrize("channels", [1, 3])
def test_an_operation_of_strength_0_is_the_image_unless_it_has_no_strength(channels):
    image = make_images(channels)
    operations = rand_augment.make_operations()
    assert len(operations) == 14
    for name, operation in operations.items():
        found = operation(image, np.zeros(B), np.ones(B))
        assert np.array_equal(found, image) == (name not in ("autocontrast", "equalise")), name


def test_every_operation_but_the_identity_changes_more_the_stronger_it_is():
    image = make_images()[3:]
    for name, operation in rand_augment.make_operations().items():
        weak, strong = (
            apart(operation(image, np.full(len(image), s), np.ones(len(image))), image).mean() for s in (0.2, 1.0)
        )
        assert weak <= strong
        assert (strong > 0) == (name != "identity")


def test_randaugment_draws_all_operations_equally_often_and_none_for_0_layers():
    image = np.repeat(make_images(seed=4)[5:6], 2800, axis=0)
    assert np.array_equal(apply(rand_augment.make(layers=0), image), image)
    found = apply(rand_augment.make(layers=1, magnitude=5), image)
    unchanged = (found == image).all((1, 2, 3)).sum()
    assert 130 < unchanged < 270  # 200 expected
    assert len(np.unique(found.reshape(2800, -1), axis=0)) == 14 + 9  # nine operations have a sign


@pytest.mark.parametrize("name", BYTES)
def test_standardised_images_are_augmented_as_their_bytes_are_when_black_and_white_are_stated(name):
    image, mean, std = make_images(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    black, white = (tuple((v - m) / s for m, s in zip(mean, std, strict=True)) for v in (0, 1))
    standard = images.standardise(mean, std)
    factory = {"jitter": image_colour.colour_jitter, "randaugment": rand_augment.make}[name]
    found = apply(factory(black=black, white=white), apply(standard, image))
    assert np.allclose(found, apply(standard, apply(factory(), image)), atol=1e-5)
    with pytest.raises(DataError, match=r"'image' holds values from .* give the transform black= and white="):
        apply(factory(), apply(standard, image))


@pytest.mark.parametrize("name", BYTES)
def test_images_of_two_channels_are_an_error(name):
    with pytest.raises(DataError, match="expected images of 1 or 3 channels"):
        apply(ALL[name], make_images()[..., :2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [None, 12, (30, 11)])
def test_a_resized_crop_is_pillows_of_one_rectangle_of_the_allowed_area_and_ratio(channels, size):
    y, x = np.mgrid[:H, :W] + 0.5
    scale, ratio = (0.2, 0.8), (0.5, 1.5)
    ramps = np.stack(np.broadcast_arrays(x, y, x * y), axis=-1)[None].repeat(B, 0).astype(np.float32)
    crop = image_geometry.random_resized_crop(size=size, scale=scale, ratio=ratio)
    places = apply(crop, ramps)  # the centre of an image whose values are positions says where it was cut
    rows, columns = (H, W) if size is None else (12, 12) if size == 12 else size
    assert places.shape == (B, rows, columns, 3)
    wide, tall = (
        (places[:, -2, -2, axis] - places[:, 1, 1, axis]) * n / (n - 3) for axis, n in ((0, columns), (1, rows))
    )
    left, top = (places[:, 1, 1, axis] - 1.5 * side / n for axis, side, n in ((0, wide, columns), (1, tall, rows)))
    image = make_images(channels)
    found = apply(crop, image)
    for i in range(B):
        picture = Image.fromarray(image[i, ..., 0] if channels == 1 else image[i])
        box = (left[i], top[i], left[i] + wide[i], top[i] + tall[i])
        expected = picture.transform((columns, rows), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        inner = apart(found[i].reshape(rows, columns, -1), np.asarray(expected).reshape(rows, columns, -1))[1:-1, 1:-1]
        assert np.quantile(inner, 0.99) <= 1
    assert (left > -0.1).all()
    assert (top > -0.1).all()
    assert (left + wide < W + 0.1).all()
    assert (top + tall < H + 0.1).all()
    assert 0.2 * H * W * 0.95 < (wide * tall).min() < 0.3 * H * W
    assert 0.5 * H * W < (wide * tall).max() < 0.8 * H * W * 1.05
    assert 0.5 * 0.95 < (wide / tall).min() < 0.8
    assert 1.1 < (wide / tall).max() < 1.5 * 1.05


def test_a_crop_of_everything_is_the_image_and_one_that_never_fits_is_central():
    square = make_images()[:, :W]
    assert np.array_equal(apply(image_geometry.random_resized_crop(scale=(1, 1), ratio=(1, 1)), square), square)
    image = make_images()
    whole = apply(image_geometry.random_resized_crop(scale=(1, 1), ratio=(W / H, W / H)), image)
    assert apart(whole, image).max() <= 1
    found = apply(image_geometry.random_resized_crop(size=W, scale=(1, 1), ratio=(1, 1)), image)
    assert np.array_equal(found, image[:, (H - W) // 2 : (H - W) // 2 + W])


def test_a_filled_shift_is_a_window_of_the_padded_image():
    image, fill = make_images(), (1, 2, 3)
    found = apply(images.random_shift(pixels=4, fill=fill), image)
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4), (0, 0)))
    outside = np.pad(np.zeros((H, W), bool), 4, constant_values=True)
    padded[:, outside] = fill
    for i in range(B):
        assert any(np.array_equal(found[i], padded[i, y : y + H, x : x + W]) for y in range(9) for x in range(9))


def test_erasing_writes_the_number_or_the_noise_that_was_asked_for_in_the_shape_that_was_asked_for():
    image = np.maximum(make_images(), 1)
    found = apply(images.random_erase(probability=1.0, value=0, smallest=0.2, ratio=(2.0, 4.0)), image)
    erased = (found == 0).all(-1)
    assert np.array_equal(found[~erased], image[~erased])
    tall, wide = erased.any(2).sum(1), erased.any(1).sum(1)
    assert (tall + 1 > 2 * (wide - 1)).all()
    assert (tall - 1 < 4 * (wide + 1)).all()
    noisy = apply(images.random_erase(probability=1.0, value="noise", smallest=0.2), image)[5]
    assert len(np.unique(noisy[(noisy != image[5]).any(-1)])) > 20


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (images.random_shift, {"pixels": -1}, "pixels=-1"),
        (images.random_erase, {"value": "noize"}, "did you mean 'noise'"),
        (images.random_erase, {"smallest": 0.5}, "smallest=0.5"),
        (images.random_erase, {"probability": 1.5}, "probability=1.5"),
        (images.random_erase, {"ratio": (2.0, 1.0)}, "ratio="),
        (image_geometry.random_resized_crop, {"scale": (0.0, 1.0)}, "scale="),
        (image_geometry.random_resized_crop, {"ratio": (2.0, 1.0)}, "ratio="),
        (image_geometry.random_resized_crop, {"size": 0}, "size=0"),
        (image_colour.colour_jitter, {"hue": 0.6}, "hue=0.6"),
        (image_colour.colour_jitter, {"contrast": -1.0}, "contrast=-1.0"),
        (rand_augment.make, {"layers": -1}, "layers=-1"),
        (rand_augment.make, {"magnitude": 31}, "magnitude=31"),
        (rand_augment.make, {"fill": 256}, "fill=256"),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error_that_names_it(factory, options, message):
    with pytest.raises(ConfigError, match=message):
        factory(**options)


@pytest.mark.parametrize("options", [{"fill": 300}, {"fill": (1, 2)}, {"fill": 0.5}])
def test_a_fill_that_does_not_fit_the_images_is_an_error(options):
    with pytest.raises(ConfigError, match="random_shift: fill"):
        apply(images.random_shift(**options), make_images())


def test_black_above_white_is_an_error():
    with pytest.raises(ConfigError, match="white must be above black"):
        apply(rand_augment.make(black=1.0, white=0.0), make_images())
