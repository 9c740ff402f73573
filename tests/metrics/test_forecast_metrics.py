"""Metrics beside the naive forecast are their formulas a window at a time, for any masks and cuts into batches."""

import functools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import DataSpec
from jaxlab.data import windows
from jaxlab.data.arrays import ArraySource
from jaxlab.metrics import forecast

B, L, H = 8, 7, 5
INPUTS, TARGETS = ("price", "demand", "hour"), ("hour", "demand")  # columns 2 and 1 of the past
COLUMNS = [2, 1]
SPEC = DataSpec(
    {
        "past": jax.ShapeDtypeStruct((L, 3), np.float32),
        "target": jax.ShapeDtypeStruct((H, 2), np.float32),
        "image": jax.ShapeDtypeStruct((2, 2, 3), np.float32),
    },
    B,
    {"inputs": INPUTS, "targets": TARGETS},
)
SEASONS = (1, 3, 6)
ERRORS = {"mae": np.abs, "mse": np.square, "rmse": np.square}
MASE = {season: forecast.mase(SPEC, season) for season in SEASONS}
SKILL = {(season, error): forecast.skill(SPEC, season, error) for season in SEASONS for error in ERRORS}
compiled = functools.cache(jax.jit)
cases = given(st.integers(0, 10_000), st.sampled_from([0, 1, 5]), st.sampled_from([1e-6, 1.0, 1e9]))


def rows_of(seed, scale=1.0):
    random = np.random.default_rng(seed)
    past = scale * random.normal(size=(B, L, 3)) + scale
    past[0, :, 1] = scale  # a column without a scale
    target, prediction = (scale * random.normal(size=(B, H, 2)) + scale for _ in range(2))
    outputs = {"target": target, "prediction": prediction, "target_weight": random.random((B, H, 2)) < 0.8}
    batch = {"past": past, "mask": random.random(B) < 0.8}
    return tuple({name: value.astype(np.float32) for name, value in fields.items()} for fields in (outputs, batch))


def measured(metric, outputs, batch, cut=0):
    """Measure in two batches, cut where told."""
    update = compiled(metric.update)
    parts = [
        jax.device_get(update(*({name: value[rows] for name, value in fields.items()} for fields in (outputs, batch))))
        for rows in (slice(0, cut), slice(cut, None))
        if len(batch["mask"][rows])
    ]
    return metric.compute(jax.tree.map(lambda *sums: np.sum(sums, axis=0, dtype=np.float64), *parts))


def numbers_of(outputs, batch):
    """Yield for each number to predict: its step, its column's past, the target and the prediction, in float64."""
    counted = (outputs["target_weight"] > 0) & (batch["mask"][:, None, None] > 0)
    for b, h, t in np.argwhere(counted):
        past = batch["past"][b, :, COLUMNS[t]].astype(np.float64)
        yield h, past, float(outputs["target"][b, h, t]), float(outputs["prediction"][b, h, t])


def same(found, expected):
    return math.isnan(found) if math.isnan(expected) else found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("season", SEASONS)
@settings(deadline=None, max_examples=20)
@cases
def test_mase_is_the_mean_of_errors_over_the_past_s_naive_error(season, seed, cut, scale):
    outputs, batch = rows_of(seed, scale)
    scaled = []
    for _, past, target, prediction in numbers_of(outputs, batch):
        naive = np.mean([abs(past[t] - past[t - season]) for t in range(season, L)])
        if naive > 0:
            scaled.append(abs(prediction - target) / naive)
    expected = np.mean(scaled) if scaled else math.nan
    assert same(measured(MASE[season], outputs, batch, cut), expected)


@pytest.mark.parametrize("season", SEASONS)
@pytest.mark.parametrize("error", ERRORS)
@settings(deadline=None, max_examples=20)
@cases
def test_skill_is_one_less_the_ratio_of_errors_with_the_repeated_season(season, error, seed, cut, scale):
    outputs, batch = rows_of(seed, scale)
    model, naive = [], []
    for h, past, target, prediction in numbers_of(outputs, batch):
        repeated = np.concatenate([past, np.tile(past[-season:], H)])[L + h]
        model.append(ERRORS[error](prediction - target))
        naive.append(ERRORS[error](repeated - target))
    ratio = np.sum(model) / np.sum(naive) if model else math.nan
    expected = 1 - (np.sqrt(ratio) if error == "rmse" else ratio)
    found = measured(SKILL[season, error], outputs, batch, cut)
    assert math.isnan(found) if math.isnan(expected) else found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_naive_forecast_itself_has_no_skill_and_a_perfect_one_has_all():
    outputs, batch = rows_of(0)
    repeated = batch["past"][:, [4, 5, 6, 4, 5]][:, :, COLUMNS]
    for error in ERRORS:
        assert measured(SKILL[3, error], {**outputs, "prediction": repeated}, batch) == pytest.approx(0)
        assert measured(SKILL[3, error], {**outputs, "prediction": outputs["target"]}, batch) == 1


@pytest.mark.parametrize("metric", [MASE[3], SKILL[3, "mae"], SKILL[1, "rmse"]])
def test_padding_may_hold_anything_and_of_nothing_there_is_no_number(metric):
    outputs, batch = rows_of(1)
    clean = measured(metric, outputs, batch)
    padded = batch["mask"] == 0
    for values in (*outputs.values(), batch["past"]):
        values[padded] = np.nan
    assert measured(metric, outputs, batch) == pytest.approx(clean)
    assert math.isnan(measured(metric, outputs, {**batch, "mask": 0 * batch["mask"]}))


def test_a_past_that_repeats_itself_has_no_scale_and_a_perfect_naive_forecast_leaves_no_skill():
    outputs, batch = rows_of(2)
    batch = {"past": np.ones_like(batch["past"]), "mask": np.ones(B, np.float32)}
    assert math.isnan(measured(MASE[3], outputs, batch))
    assert math.isnan(measured(SKILL[3, "mae"], {**outputs, "target": np.ones((B, H, 2), np.float32)}, batch))


def test_scale_and_offset_of_a_series_do_not_change_them():
    outputs, batch = rows_of(4)
    moved = {name: 4 * outputs[name] + 8 for name in ("target", "prediction")}
    other = {**outputs, **moved}, {**batch, "past": 4 * batch["past"] + 8}
    for metric in (MASE[3], SKILL[3, "mse"]):
        assert measured(metric, *other) == pytest.approx(measured(metric, outputs, batch), rel=1e-4)


def test_the_columns_are_those_that_windows_cut():
    series = np.arange(40, dtype=np.float32)
    rows = {"wide": np.stack([series, series**2], axis=1), "flag": series % 3, "demand": np.sin(series)}
    for targets, inputs in ((("demand",), ()), (("wide",), ()), (("flag", "demand"), ("demand", "flag"))):
        source = windows.make(ArraySource(rows, {}), length=6, horizon=4, targets=targets, inputs=inputs)
        batch = source.__getitems__(np.arange(len(source)))
        repeated = np.concatenate([rows[name].reshape(40, -1) for name in targets], axis=1)[batch["start"] + 5]
        outputs = {
            "target": batch["target"], "prediction": np.repeat(repeated[:, None], 4, axis=1),
            "target_weight": np.ones_like(batch["target"]),
        }  # fmt: skip
        metric = forecast.skill(source.spec)
        mask = {"mask": np.ones(len(source), np.float32)}
        assert metric.compute(metric.update(outputs, {**batch, **mask})) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: forecast.mase(SPEC, season=7), r"mase with season=7: the past has 7 rows; expected 1 to 6"),
        (lambda: forecast.skill(SPEC, season=8), r"skill with season=8: the past has 7 rows; expected 1 to 7"),
        (lambda: forecast.mase(SPEC, season=0), r"season=0"),
        (lambda: forecast.skill(SPEC, error="made"), r"error='made'; did you mean 'mae'"),
        (lambda: forecast.mase(SPEC, past="image"), r"past='image': expected a field of rows and columns"),
        (lambda: forecast.mase(SPEC, target="targets"), r"target='targets': expected a field"),
        (lambda: forecast.mase(SPEC._replace(meta={})), r"needs the data's facts 'inputs' and 'targets'"),
        (
            lambda: forecast.mase(SPEC._replace(meta={"inputs": ("price",), "targets": ("demand",)})),
            r"the past does not hold the target 'demand'",
        ),
        (
            lambda: forecast.mase(SPEC._replace(meta={"inputs": ("wide", "a"), "targets": ("a", "wide")})),
            r"fields of several columns .* name the targets a, wide first",
        ),
    ],
)
def test_windows_that_say_nothing_of_the_naive_forecast_are_an_error(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
