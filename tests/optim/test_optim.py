"""Schedules pass through their stated points; rules choose by name; a chain applies its parts in order."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.optim import chain, rules, schedules

PARAMS = {"dense": {"kernel": jnp.full((2,), 2.0), "bias": jnp.full((2,), 2.0)}, "norm": {"scale": jnp.full((2,), 2.0)}}


@pytest.mark.parametrize(("warmup", "top"), [(0.1, 10), (25, 25), (0.0, 0), (1, 1)])
def test_warmup_cosine_rises_to_the_peak_and_falls_to_its_end(warmup, top):
    schedule = schedules.warmup_cosine(100, peak=0.5, warmup=warmup, end=0.1)
    values = np.array([float(schedule(step)) for step in range(101)])
    assert values[0] == (0.0 if top else 0.5)
    assert values[top] == pytest.approx(0.5)
    assert values[100] == pytest.approx(0.05)
    assert float(schedule(1000)) == pytest.approx(0.05)
    assert values[top // 2] == pytest.approx(0.5 * (top // 2) / top if top else 0.5)  # a straight line
    middle = top + (100 - top) / 2
    assert float(schedule(middle)) == pytest.approx((0.5 + 0.05) / 2)  # half way down at half time
    assert (np.diff(values[: top + 1]) > 0).all()
    assert (np.diff(values[top:]) < 0).all()


@pytest.mark.parametrize("warmup", [100, 250, 0.999])
def test_a_warmup_that_fills_the_run_is_an_error(warmup):
    with pytest.raises(ConfigError, match=r"the warm-up takes .* steps, but the run has 100"):
        schedules.warmup_cosine(100, warmup=warmup)


def test_a_negative_warmup_is_an_error():
    with pytest.raises(ConfigError, match=r"warmup=-0\.5"):
        schedules.warmup_cosine(100, warmup=-0.5)


def test_a_run_of_one_step_takes_it_at_the_peak():
    assert float(schedules.warmup_cosine(1, peak=0.5)(0)) == 0.5


def test_parameters_that_the_rules_leave_out_do_not_decay():
    mask = rules.where(((".*/kernel", True), (".*", False)))
    optimizer = optax.adamw(0.1, weight_decay=0.5, mask=mask)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    after = optax.apply_updates(PARAMS, updates)
    np.testing.assert_allclose(after["dense"]["kernel"], 2.0 * (1 - 0.1 * 0.5))
    for kept in (after["dense"]["bias"], after["norm"]["scale"]):
        np.testing.assert_array_equal(kept, 2.0)


def test_the_first_rule_that_matches_the_whole_name_wins_and_an_uncovered_parameter_is_an_error():
    found = rules.where((("dense/.*", 1.0), (".*/(kernel|scale)", 2.0)))(PARAMS)
    assert found == {"dense": {"kernel": 1.0, "bias": 1.0}, "norm": {"scale": 2.0}}
    with pytest.raises(ConfigError, match="no rule covers the parameter 'dense/bias'"):
        rules.where(((".*/kernel", True), ("norm/.*", True)))(PARAMS)


def updated(optimizer, gradient):
    return optimizer.update(gradient, optimizer.init(gradient), gradient)[0]


def test_a_chain_applies_its_first_transformation_first():
    gradient = {"w": jnp.array([3.0])}
    clip, double = optax.clip(2.0), optax.scale(2.0)
    assert updated(chain.make((clip, double)), gradient)["w"] == 4.0
    assert updated(chain.make((double, clip)), gradient)["w"] == 2.0


def test_an_empty_chain_leaves_the_gradient_as_it_is():
    assert updated(chain.make(()), {"w": jnp.array([3.0])})["w"] == 3.0


def test_clipping_in_a_chain_scales_the_whole_gradient_by_its_global_norm():
    gradient = {"a": jnp.array([3.0, 0.0]), "b": {"c": jnp.array([[4.0]])}}  # norm 5
    found = updated(chain.make((optax.clip_by_global_norm(1.0), optax.sgd(1.0))), gradient)
    np.testing.assert_allclose(found["a"], [-0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(found["b"]["c"], [[-0.8]], rtol=1e-6)
