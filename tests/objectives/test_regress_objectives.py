"""Losses of regression are their formulas in float64; where each is least lies what it is for."""

import jax
import numpy as np
import pytest
from objective_helpers import check_laws, data_of, judge, masked
from scipy import stats

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError
from jaxlab.objectives import regress

B, H, C = 6, 4, 2
QUANTILES = (0.1, 0.5, 0.8)
random = np.random.default_rng(0)


def draw(*shape):
    return random.normal(0, 2, shape).astype(np.float32)


FIELDS = {"past": draw(B, 3, C), "target": draw(B, H, C), "there": random.integers(0, 2, (B, H, C)).astype(np.float32),
          "steps": random.integers(0, 2, (B, H)).astype(np.int32)}  # fmt: skip
DATA = data_of(FIELDS)
POINT = {"forecast": draw(B, H, C)}
SPREAD = {"quantiles": draw(B, H, C, len(QUANTILES))}
NORMAL = {"mean": draw(B, H, C), "log_variance": draw(B, H, C)}


def pinball(y, found):
    below = y[..., None] < found
    return (np.abs(y[..., None] - found) * np.where(below, 1 - np.array(QUANTILES), QUANTILES)).mean(-1)


def huber(d, delta=0.7):
    return np.where(np.abs(d) <= delta, d**2 / 2, delta * (np.abs(d) - delta / 2))


CASES = {
    "squared": (regress.make, {}, POINT, lambda y, o: (y - o["forecast"]) ** 2),
    "absolute": (regress.absolute, {}, POINT, lambda y, o: np.abs(y - o["forecast"])),
    "huber": (regress.huber, {"delta": 0.7}, POINT, lambda y, o: huber(y - o["forecast"])),
    "quantile": (regress.quantile, {"quantiles": QUANTILES}, SPREAD, lambda y, o: pinball(y, o["quantiles"])),
    "gaussian": (regress.gaussian, {}, NORMAL,
                 lambda y, o: -stats.norm.logpdf(y, o["mean"], np.exp(o["log_variance"] / 2))),
}  # fmt: skip
each_case = pytest.mark.parametrize("name", CASES)


@each_case
@pytest.mark.parametrize("target_mask", ["", "there", "steps"])
def test_the_loss_is_its_formula_over_the_numbers_that_are_there(name, target_mask):
    make, options, outputs, formula = CASES[name]
    batch = masked(FIELDS)
    weight = np.broadcast_to(batch["mask"][:, None, None], (B, H, C))
    if target_mask:
        weight = weight * batch[target_mask].reshape(B, H, -1)
    target = np.where(weight > 0, FIELDS["target"], np.nan).astype(np.float32)  # missing ones hold nan
    loss = judge(make(DATA, target_mask=target_mask, **options), {**batch, "target": target}, outputs)
    each = formula(FIELDS["target"].astype(np.float64), {n: x.astype(np.float64) for n, x in outputs.items()})
    assert float(loss.total) == pytest.approx((each * weight).sum(), rel=1e-5)
    assert float(loss.weight) == weight.sum()
    results = loss.outputs
    assert all(results[n].shape == (B, H, C) for n in ("target", "prediction", "target_weight"))
    point = next(iter(outputs.values()))
    point = point[..., 1] if name == "quantile" else point
    assert np.array_equal(np.asarray(results["prediction"])[weight > 0], point[weight > 0])


@each_case
def test_they_keep_the_laws(name):
    make, options, outputs, _ = CASES[name]
    check_laws(make(DATA, target_mask="there", **options), FIELDS, outputs)


def test_a_plain_number_an_example_and_a_target_of_whole_numbers_work():
    fields = {"features": draw(B, 3), "target": np.arange(B, dtype=np.int32)}
    outputs = {"prediction": draw(B)}
    loss = judge(regress.make(data_of(fields), inputs=("features",), output="prediction"), masked(fields, ()), outputs)
    assert float(loss.total) == pytest.approx(((outputs["prediction"] - np.arange(B)) ** 2).sum(), rel=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_pinball_loss_is_least_at_the_quantile(share):
    y = np.sort(draw(101))
    fields = {"past": draw(101, 1), "target": y}
    objective = regress.quantile(data_of(fields), quantiles=(share,))

    @jax.jit
    def total(x):
        return judge(objective, masked(fields, ()), {"quantiles": x + np.zeros((101, 1))}).total

    losses = [float(total(value)) for value in y]
    assert y[int(np.argmin(losses))] == pytest.approx(np.quantile(y, share), abs=1e-6)


def test_the_gaussian_loss_is_least_at_mean_and_variance():
    y = draw(50)
    fields = {"past": draw(50, 1), "target": y}

    def total(parameters):
        outputs = {name: value + np.zeros(50) for name, value in parameters.items()}
        return judge(regress.gaussian(data_of(fields)), masked(fields, ()), outputs).total

    for slope in jax.grad(total)({"mean": y.mean(), "log_variance": np.log(y.var())}).values():
        assert float(slope) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("make", {"target": "tagret"}, "did you mean 'target'"),
        ("make", {"target_mask": "their"}, "did you mean 'there'"),
        ("absolute", {"inputs": ("pats",)}, "did you mean 'past'"),
        ("huber", {"delta": 0.0}, "delta=0.0: expected a number above 0"),
        ("quantile", {"quantiles": ()}, r"quantiles=\(\): expected rising numbers between 0 and 1"),
        ("quantile", {"quantiles": (0.5, 0.1)}, "rising"),
        ("quantile", {"quantiles": (0.5, 1.0)}, "rising"),
        ("gaussian", {"target": "y"}, "the objective names the field 'y'"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_the_config_path(factory, options, message):
    node = configs.spec(f"jaxlab.objectives.regress:{factory}", **options)
    with pytest.raises(ConfigError, match=f"^config.objective: .*{message}"):
        configs.build(node, path="config.objective", data=DATA)


@pytest.mark.parametrize("name", CASES)
def test_results_of_another_shape_are_an_error_and_not_broadcast(name):
    make, options, outputs, _ = CASES[name]
    wrong = {n: x[:, :1] for n, x in outputs.items()}
    with pytest.raises(ConfigError, match="has the shape"):
        judge(make(DATA, **options), masked(FIELDS), wrong)
    with pytest.raises(ConfigError, match="the model's result"):
        judge(make(DATA, **options), masked(FIELDS), {"other": FIELDS["target"]})
