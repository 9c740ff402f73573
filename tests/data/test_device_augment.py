"""Mixup and cutmix mix a row and its label in the same proportion, from real rows alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import DataSpec
from jaxlab.data import device_augment

B, H, W, C = 1000, 13, 10, 5
META = {"classes": tuple("abcde")}
DATA = DataSpec(
    {"image": jax.ShapeDtypeStruct((H, W, 1), np.float32), "label": jax.ShapeDtypeStruct((), np.int32)}, B, META
)
FACTORIES = {"mixup": device_augment.mixup, "cutmix": device_augment.cutmix}
each = pytest.mark.parametrize("name", FACTORIES)


def make_batch(padded=()):
    """Return a batch in which every pixel of an image is its row's number."""
    mask = np.ones(B, np.float32)
    mask[list(padded)] = 0
    label = np.arange(B, dtype=np.int32) % C
    image = np.broadcast_to(np.arange(B, dtype=np.float32)[:, None, None, None], (B, H, W, 1)).copy()
    return {"image": image, "label": label, "mask": mask, "id": np.arange(B, dtype=np.int32)}


@functools.cache
def compiled(name, **options):
    return jax.jit(FACTORIES[name](DATA, **options))


def apply(name, batch, seed=0, **options):
    found = compiled(name, **options)(batch, jax.random.key(seed))
    return {field: np.asarray(value) for field, value in found.items()}


def one_hot(label):
    return np.eye(C, dtype=np.float32)[label]


@each
def test_a_row_s_label_holds_its_own_class_and_its_partners_in_the_shares_of_the_pixels(name):
    batch = make_batch()
    found = apply(name, batch)
    share_B = np.abs(found["image"] - batch["image"]).mean((1, 2, 3)) / np.where(np.arange(B), 1, B - 1)
    partner_B = np.roll(batch["label"], 1)
    expected = (1 - share_B)[:, None] * one_hot(batch["label"]) + share_B[:, None] * one_hot(partner_B)
    np.testing.assert_allclose(found["label_probs"], expected, atol=2e-4)  # the shares are read off numbers up to 999
    np.testing.assert_allclose(found["label_probs"].sum(-1), 1, atol=1e-6)
    assert found["label_probs"].dtype == np.float32
    assert len(np.unique(share_B)) > 30  # each row has its own share
    for field in ("label", "mask", "id"):
        assert np.array_equal(found[field], batch[field])


@pytest.mark.parametrize("alpha", [0.2, 40.0])  # below that, float32 cannot tell many shares from 1
def test_the_shares_of_mixup_follow_the_beta_distribution(alpha):
    batch = make_batch()
    share_B = apply("mixup", batch, alpha=alpha)["label_probs"][np.arange(B), batch["label"]]
    assert ((share_B >= 0) & (share_B <= 1)).all()
    assert stats.kstest(share_B, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_cutmix_pastes_one_rectangle_of_the_image_s_proportions_unless_an_edge_cuts_it():
    batch = make_batch()
    found = apply("cutmix", batch)
    pasted = (found["image"] != batch["image"])[..., 0]
    rows, columns = pasted.any(2), pasted.any(1)
    assert np.array_equal(pasted, rows[:, :, None] & columns[:, None, :])
    for side in (rows, columns):
        edges = np.abs(np.diff(np.pad(side, ((0, 0), (1, 1))).astype(int), axis=1)).sum(1)
        assert set(edges) == {0, 2}  # an interval or nothing
    inside = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1]) & pasted.any((1, 2))
    assert inside.sum() > 100
    assert (np.abs(rows.sum(1) / H - columns.sum(1) / W)[inside] < 1 / W).all()
    assert (pasted.mean(0) > 0.1).all()  # every place may be pasted


@each
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 7.0])
def test_padded_rows_neither_give_nor_take(name, garbage):
    padded = [3, 4, 20, B - 1]
    batch = make_batch(padded)
    batch["image"][padded] = garbage
    found = apply(name, batch)
    alone = sorted({*padded, *((row + 1) % B for row in padded)})
    assert np.array_equal(found["image"][alone], batch["image"][alone], equal_nan=True)
    assert np.array_equal(found["label_probs"][alone], one_hot(batch["label"][alone]))
    real = batch["mask"] > 0
    assert np.isfinite(found["image"][real]).all()
    others = np.setdiff1d(np.arange(B), alone)
    assert (found["label_probs"][others] < 1).all(-1).mean() > 0.5


@each
def test_it_is_a_function_of_batch_and_key(name):
    batch = make_batch()
    first, again, other = apply(name, batch), apply(name, batch), apply(name, batch, seed=1)
    assert all(np.array_equal(first[field], again[field]) for field in first)
    assert not np.array_equal(first["image"], other["image"])


@each
def test_probability_decides_how_many_rows_are_mixed(name):
    batch = make_batch()
    never = apply(name, batch, probability=0.0)
    assert np.array_equal(never["image"], batch["image"])
    assert np.array_equal(never["label_probs"], one_hot(batch["label"]))
    mixed = (apply(name, batch, alpha=3.0, probability=0.3)["image"] != batch["image"]).any((1, 2, 3))
    assert mixed.mean() == pytest.approx(0.3, abs=0.06)


def test_one_after_the_other_mixes_the_mixed_labels():
    batch = make_batch()
    first = apply("mixup", batch)
    both = apply("cutmix", first, seed=1)
    pasted_B = (both["image"] != first["image"]).mean((1, 2, 3))[:, None]
    expected = (1 - pasted_B) * first["label_probs"] + pasted_B * np.roll(first["label_probs"], 1, axis=0)
    np.testing.assert_allclose(both["label_probs"], expected, atol=2e-4)


def test_rows_of_any_shape_and_bfloat16_can_be_mixed_up():
    data = DATA._replace(example={"x": jax.ShapeDtypeStruct((3,), jnp.bfloat16), "y": DATA.example["label"]})
    batch = make_batch()
    batch = {"x": jnp.ones((B, 3), jnp.bfloat16), "y": batch["label"], "mask": batch["mask"]}
    found = jax.jit(device_augment.mixup(data, field="x", label="y"))(batch, jax.random.key(0))
    assert found["x"].dtype == jnp.bfloat16
    np.testing.assert_allclose(found["x"].astype(np.float32), 1, rtol=1e-2)
    assert found["y_probs"].shape == (B, C)


def test_bytes_can_be_cut_but_not_averaged():
    data = DATA._replace(example={**DATA.example, "image": jax.ShapeDtypeStruct((H, W, 1), np.uint8)})
    batch = make_batch()
    batch["image"] = batch["image"].astype(np.uint8)
    found = jax.jit(device_augment.cutmix(data))(batch, jax.random.key(0))
    assert found["image"].dtype == jnp.uint8
    with pytest.raises(ConfigError, match="the field 'image' is uint8"):
        device_augment.mixup(data)


@each
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha=0.0: expected a positive number"),
        ({"probability": 1.5}, "probability=1.5"),
        ({"field": "imgae"}, "'imgae'; the data has image, label"),
        ({"label": "class"}, "'class'; the data has image, label"),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error_that_names_it(name, options, message):
    with pytest.raises(ConfigError, match=message):
        FACTORIES[name](DATA, **options)


@each
def test_data_without_classes_or_images_are_errors(name):
    with pytest.raises(DataError, match="names no classes"):
        FACTORIES[name](DATA._replace(meta={}))
    with pytest.raises(ConfigError, match="expected H, W, C"):
        device_augment.cutmix(DATA, field="label")
