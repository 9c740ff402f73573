"""Each image transform does what its name says, to the chosen field alone, and never to the array it was given."""

import numpy as np
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.data import images
from jaxlab.data.pipeline import RowRandomness

B, H, W, C = 64, 9, 7, 3


def make_images(dtype=np.float32, seed=0):
    values = np.random.default_rng(seed).uniform(0, 255, (B, H, W, C))
    return values.astype(dtype)


def apply(transform, image_BHWC, seed=0):
    image_BHWC.setflags(write=False)  # so that a transform in place raises
    fields = {"image": image_BHWC, "other": np.arange(len(image_BHWC))}
    result = transform(fields, RowRandomness(np.random.default_rng(seed), len(image_BHWC), slice(None)))
    assert result["other"] is fields["other"]
    assert fields["image"] is image_BHWC
    return result["image"]


ALL = {
    "rescale": images.rescale(),
    "standardise": images.standardise((0.5,), (0.2,)),
    "random_flip": images.random_flip(),
    "random_shift": images.random_shift(),
    "random_erase": images.random_erase(probability=1.0),
}
GEOMETRIC = ("random_flip", "random_shift", "random_erase")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_shape_stays_and_the_dtype_too_unless_the_values_are_rescaled(name, dtype):
    found = apply(ALL[name], make_images(dtype))
    assert found.shape == (B, H, W, C)
    assert found.dtype == (dtype if name in GEOMETRIC else np.float32)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_random_transforms_repeat_with_the_same_random_numbers_and_differ_with_others(name):
    first = apply(ALL[name], make_images())
    assert np.array_equal(first, apply(ALL[name], make_images()))
    assert not np.array_equal(first, apply(ALL[name], make_images(), seed=1))


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_field_is_an_error_that_lists_the_fields(name):
    with pytest.raises(ConfigError, match="'image' is configured, but the data has the fields picture, label"):
        ALL[name](
            {"picture": make_images(), "label": np.arange(B)}, RowRandomness(np.random.default_rng(0), B, slice(B))
        )


def test_rescaling_is_the_stated_formula_and_by_default_takes_bytes_to_the_unit_interval():
    image = make_images(np.uint8)
    assert np.allclose(apply(images.rescale(), image), image / 255.0, atol=1e-6)
    assert np.allclose(apply(images.rescale(scale=2.0, offset=-3.0), image), image * 2.0 - 3.0)


def test_standardising_by_the_channels_own_statistics_gives_mean_0_and_deviation_1():
    image = make_images(np.uint8) // np.array([1, 2, 4], np.uint8)
    mean, std = ((image / 255.0).mean((0, 1, 2)), (image / 255.0).std((0, 1, 2)))
    found = apply(images.standardise(tuple(mean), tuple(std)), image)
    assert np.allclose(found.mean((0, 1, 2)), 0, atol=1e-4)
    assert np.allclose(found.std((0, 1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize(("mean", "std"), [((0.1, 0.2), (1.0,)), ((0.1,), (0.0,)), ((), ()), ((0.1,), (-1.0,))])
def test_standardising_by_impossible_statistics_is_an_error(mean, std):
    with pytest.raises(ConfigError, match="standardise"):
        images.standardise(mean, std)


def test_standardising_with_more_values_than_channels_is_an_error_and_not_an_image_with_more_channels():
    with pytest.raises(ConfigError, match=r"2 values.* 3 channels"):
        apply(images.standardise((0.1, 0.2), (1.0, 1.0)), make_images())
    with pytest.raises(ConfigError, match=r"3 values.* 1 channels"):
        apply(images.standardise((0.1,) * 3, (1.0,) * 3), make_images()[..., :1])


def test_a_flip_of_a_flip_is_the_image_and_probability_decides_who_is_flipped():
    image = make_images()
    always, never = images.random_flip(probability=1.0), images.random_flip(probability=0.0)
    assert np.array_equal(apply(always, image), image[:, :, ::-1])
    assert np.array_equal(apply(always, apply(always, image)), image)
    assert np.array_equal(apply(never, image), image)
    some = apply(images.random_flip(), image)
    flipped = (some == image[:, :, ::-1]).all((1, 2, 3))
    assert np.array_equal(some[~flipped], image[~flipped])
    assert 0.25 * B < flipped.sum() < 0.75 * B


def test_a_shift_holds_the_original_at_one_of_the_offsets_and_fills_the_rest_with_the_first_pixel():
    pixels, image = 2, make_images()
    moved = apply(images.random_shift(pixels=pixels), image)
    offsets = set()
    for before, after in zip(image, moved, strict=True):
        fits = []
        for down in range(-pixels, pixels + 1):
            for right in range(-pixels, pixels + 1):
                expected = np.broadcast_to(before[:1, :1], before.shape).copy()
                expected[max(down, 0) : H + min(down, 0), max(right, 0) : W + min(right, 0)] = before[
                    max(-down, 0) : H - max(down, 0), max(-right, 0) : W - max(right, 0)
                ]
                if np.array_equal(after, expected):
                    fits.append((down, right))
        assert len(fits) == 1
        offsets.add(fits[0])
    assert {down for down, _ in offsets} == {right for _, right in offsets} == set(range(-pixels, pixels + 1))


def test_a_shift_by_no_pixels_is_the_image_itself():
    image = make_images()
    assert np.array_equal(apply(images.random_shift(pixels=0), image), image)


def test_erasing_changes_one_rectangle_of_one_value_within_the_image_s_range_and_the_stated_area():
    smallest, largest, image = 0.1, 0.3, make_images()
    erased = apply(images.random_erase(probability=1.0, smallest=smallest, largest=largest), image)
    for before, after in zip(image, erased, strict=True):
        changed = (before != after).any(-1)
        rows, columns = changed.any(1), changed.any(0)
        assert np.array_equal(changed, rows[:, None] & columns[None])  # a full rectangle
        assert np.ptp(np.flatnonzero(rows)) + 1 == rows.sum()
        assert np.ptp(np.flatnonzero(columns)) + 1 == columns.sum()
        values = np.unique(after[changed])
        assert len(values) == 1
        assert before.min() <= values[0] <= before.max()
        tall, wide = rows.sum(), columns.sum()  # each side is rounded by less than a pixel
        assert (tall - 1) * (wide - 1) < largest * H * W
        assert (tall + 1) * (wide + 1) > smallest * H * W


def test_erasing_leaves_the_images_that_were_not_chosen():
    image = make_images()
    assert np.array_equal(apply(images.random_erase(probability=0.0), image), image)
    changed = (apply(images.random_erase(probability=0.5), image) != image).any((1, 2, 3))
    assert 0.25 * B < changed.sum() < 0.75 * B


@pytest.mark.parametrize("name", GEOMETRIC)
def test_an_image_is_transformed_alike_whatever_the_other_images_are(name):
    image, others = make_images(), make_images(seed=1)
    others[3] = image[3]
    assert np.array_equal(apply(ALL[name], image)[3], apply(ALL[name], others)[3])
