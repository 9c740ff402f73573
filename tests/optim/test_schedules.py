"""Schedules equal their formulas, stay within the run, and refuse values that make no sense."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlab.core.errors import ConfigError
from jaxlab.optim import rising, schedules

T, W, PEAK = 200, 20, 0.5


@pytest.fixture(autouse=True)
def optimised():
    """Compile as users do: a power is a few bits worse in a program that is not optimised."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def rates(schedule, steps=T + 1):
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps)), np.float64)


def by_hand(after):
    """Return the line to the peak over W steps, then `after` of the step, in float64."""
    t = np.arange(T + 1, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(t < W, PEAK * t / W, after(t))


def test_a_geometric_rise_has_its_ends_and_one_factor():
    found = rates(rising.geometric(T, low=1e-5, high=1e-1))
    assert found[[0, T - 1, T]] == pytest.approx([1e-5, 1e-1, 1e-1], rel=1e-4)
    assert found[1:T] / found[: T - 1] == pytest.approx(np.full(T - 1, 1e4 ** (1 / (T - 1))), rel=1e-4)
    with pytest.raises(ConfigError, match="above 0"):
        rising.geometric(T, low=0.0)


FORMULAS = {
    "warmup_linear": ({"end": 0.1}, lambda t: PEAK * (1 - 0.9 * (t - W) / (T - W))),
    "warmup_constant": ({}, lambda t: PEAK + 0 * t),
    "warmup_rsqrt": ({}, lambda t: PEAK * np.sqrt(W / t)),
    "warmup_stable_decay": (
        {"decay": 0.25, "end": 0.2}, lambda t: PEAK * (1 - 0.8 * np.clip((t - 150) / 50, 0, 1))
    ),
    "warmup_cosine": ({"end": 0.1}, lambda t: PEAK * (0.1 + 0.9 * (1 + np.cos(np.pi * (t - W) / (T - W))) / 2)),
    "step_decay": ({"at": (0.5, 150), "factor": 0.2}, lambda t: PEAK * 0.2 ** ((t >= 100).astype(float) + (t >= 150))),
    "cosine_restarts": (
        {"cycles": 2, "growth": 2.0, "end": 0.1},
        lambda t: PEAK * (0.1 + 0.9 * (1 + np.cos(np.pi * np.where(t < 80, (t - W) / 60, (t - 80) / 120))) / 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("warmup", [W, W / T])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_schedule_is_its_documented_formula(name, warmup):
    options, after = FORMULAS[name]
    found = rates(getattr(schedules, name)(T, peak=PEAK, warmup=warmup, **options))
    np.testing.assert_allclose(found, by_hand(after), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(("shape", "curve"), [("sqrt", np.sqrt), ("cosine", lambda s: (1 - np.cos(np.pi * s)) / 2)])
def test_the_fall_of_warmup_stable_decay_has_the_shape_that_is_asked_for(shape, curve):
    found = rates(schedules.warmup_stable_decay(T, peak=PEAK, warmup=W, decay=50, shape=shape))
    np.testing.assert_allclose(found[150:], PEAK * (1 - curve(np.arange(51) / 50)), rtol=1e-5, atol=1e-7)


def test_the_paper_s_inverse_square_root_is_warmup_rsqrt_with_its_peak():
    width, warmup = 512, 400
    t = np.arange(1, 2001)
    paper = width**-0.5 * np.minimum(t**-0.5, t * warmup**-1.5)
    found = rates(schedules.warmup_rsqrt(2000, peak=(width * warmup) ** -0.5, warmup=warmup), 2001)[1:]
    np.testing.assert_allclose(found, paper, rtol=1e-5)


def test_one_cycle_is_optax_s():
    found = rates(schedules.one_cycle(T, peak=PEAK))
    np.testing.assert_allclose(found, rates(optax.cosine_onecycle_schedule(T, PEAK)), rtol=1e-6)
    assert found.max() == pytest.approx(PEAK)
    assert found[0] == pytest.approx(PEAK / 25)


@pytest.mark.parametrize("name", [*FORMULAS, "one_cycle"])
def test_a_schedule_s_peak_is_its_highest_rate_and_beyond_the_run_it_stays(name):
    schedule = getattr(schedules, name)(T, peak=PEAK)
    found = rates(schedule, 3 * T)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert found.max() == pytest.approx(PEAK)
    np.testing.assert_allclose(found[T + 1 :], found[T], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(FORMULAS) - {"step_decay", "cosine_restarts"}))
def test_without_a_warmup_a_run_of_one_step_takes_it_at_the_peak(name):
    options = {"decay": 0.0} if name == "warmup_stable_decay" else {}
    assert float(getattr(schedules, name)(1, peak=PEAK, warmup=0.0, **options)(0)) == pytest.approx(PEAK)


BAD = [
    ("warmup_linear", {"warmup": -0.1}, "warmup=-0.1"),
    ("warmup_linear", {"warmup": float("nan")}, "warmup=nan"),
    ("warmup_linear", {"warmup": float("inf")}, "the warm-up takes"),
    ("warmup_linear", {"peak": -1.0}, "peak=-1.0"),
    ("warmup_cosine", {"peak": float("nan")}, "peak=nan"),
    ("warmup_constant", {"peak": float("inf")}, "peak=inf"),
    ("warmup_rsqrt", {"warmup": T}, "the warm-up takes 200 steps, but the run has 200"),
    ("warmup_linear", {"end": -0.5}, "end=-0.5"),
    ("warmup_stable_decay", {"shape": "sqr"}, "did you mean 'sqrt'"),
    ("warmup_stable_decay", {"warmup": 0.5, "decay": 0.6}, "a warm-up of 100 and a fall of 120 steps"),
    ("warmup_stable_decay", {"decay": -1.0}, "decay=-1.0"),
    ("cosine_restarts", {"cycles": 0}, "cycles=0"),
    ("cosine_restarts", {"cycles": T + 1}, "a cycle has no step"),
    ("cosine_restarts", {"growth": 0.0}, "a cycle has no step"),
    ("step_decay", {"at": (0.75, 0.5)}, "expected them to rise"),
    ("step_decay", {"at": (300,)}, "within 200"),
    ("step_decay", {"at": (0.1,), "warmup": 0.2}, "expected them to rise"),
    ("one_cycle", {"warmup": 0.0}, "warmup=0.0"),
    ("one_cycle", {"start": 0.0}, "start=0.0"),
    ("one_cycle", {"end": 1.5}, "end=1.5"),
    ("one_cycle", {"warmup": 0.001}, "has no step"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_a_value_that_makes_no_sense_is_an_error_that_names_it(name, options, message):
    with pytest.raises(ConfigError, match=message):
        getattr(schedules, name)(T, **options)
