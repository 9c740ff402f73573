"""Every gradient transformation and schedule of optax works by its path in a config, or says clearly why not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from optimizer_cases import BEFORE, NODES, PART_OF, PARTLY_REFUSED, REFUSED, UNCHANGED, transformations

from jaxlab.core import config as configs
from jaxlab.core.config import spec
from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Loss
from jaxlab.run.optimizer import make_optimizer
from jaxlab.train.step import init_state, make_train_step

STEPS = 60
SCALES_IO = np.array([[1.0, 0.5, 2.0], [0.3, 1.0, 0.7], [1.0, 1.0, 0.1], [2.0, 0.4, 1.0]], np.float32)
MINIMUM_O = np.array([0.5, 0.3, 0.2], np.float32)


class Quadratic(nn.Module):
    """A bowl with its lowest value of 0 at positive parameters, started above it."""

    @nn.compact
    def __call__(self, x_B, *, train):
        kernel_IO = self.param("kernel", nn.initializers.constant(1.5), (4, 3))
        bias_O = self.param("bias", nn.initializers.constant(1.0), (3,))
        value = jnp.sum(SCALES_IO * (kernel_IO - 0.5) ** 2) + jnp.sum((bias_O - MINIMUM_O) ** 2)
        return {"value": value / 2 + 0.0 * x_B}


def objective(apply, batch):
    outputs, state = apply(batch["x"])
    return Loss(jnp.sum(outputs["value"] * batch["mask"]), jnp.sum(batch["mask"]), outputs, state)


BATCH = {"x": jnp.zeros(2), "mask": jnp.ones(2), "id": jnp.arange(2)}


def train(node, steps=STEPS):
    """Return the losses of some real training steps in one compiled program, and the states around them."""
    optimizer = make_optimizer(node, total_steps=steps)
    step = make_train_step(Quadratic(), objective, {}, optimizer, seed=0)
    first = init_state(Quadratic(), objective, optimizer, BATCH, 0, ema=False)
    last, statistics = jax.jit(lambda s: jax.lax.scan(lambda s, _: step(s, BATCH), s, length=steps))(first)
    return np.asarray(statistics["loss"]["sum"] / statistics["loss"]["weight"]), first, last


def read_back(node):
    again = configs.from_json(configs.to_json(node))
    assert configs.to_json(again) == configs.to_json(node)
    return again


def test_no_transformation_of_optax_is_left_out():
    listed = {path for path in (*NODES, *REFUSED, *UNCHANGED, *PART_OF) if path.startswith("optax")}
    assert listed == transformations()
    assert NODES.keys() & REFUSED.keys() == PARTLY_REFUSED
    for part, whole in PART_OF.items():
        assert part in configs.to_json(NODES[whole]())


PATHS = [pytest.param(path, marks=[pytest.mark.slow] if path in BEFORE else []) for path in NODES]


@pytest.mark.parametrize("path", PATHS)
def test_a_transformation_named_in_a_config_lowers_a_quadratic(path):
    losses, first, last = train(read_back(NODES[path]()))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]
    assert jax.tree.map(jnp.shape, last) == jax.tree.map(jnp.shape, first)


@pytest.mark.parametrize("path", UNCHANGED)
def test_what_is_meant_to_change_nothing_does_so(path):
    _, first, last = train(read_back(spec(path, **UNCHANGED[path])))
    jax.tree.map(np.testing.assert_array_equal, last.params, first.params)


@pytest.mark.parametrize("path", REFUSED)
def test_what_cannot_be_had_says_why_before_anything_runs(path):
    arguments, reason = REFUSED[path]
    with pytest.raises(ConfigError, match=reason):
        train(read_back(spec(path, **arguments)))


SCHEDULES = {
    "constant_schedule": {"value": 0.1},
    "cosine_decay_schedule": {"init_value": 0.1, "decay_steps": 40},
    "cosine_onecycle_schedule": {"transition_steps": 40, "peak_value": 0.1},
    "exponential_decay": {"init_value": 0.1, "transition_steps": 10, "decay_rate": 0.5},
    "join_schedules": {
        "schedules": (spec("optax:constant_schedule", value=0.1), spec("optax:constant_schedule", value=0.01)),
        "boundaries": (20,),
    },
    "linear_onecycle_schedule": {"transition_steps": 40, "peak_value": 0.1},
    "linear_schedule": {"init_value": 0.1, "end_value": 0.01, "transition_steps": 40},
    "polynomial_schedule": {"init_value": 0.1, "end_value": 0.01, "power": 2, "transition_steps": 40},
    "sgdr_schedule": {
        "cosine_kwargs": tuple(
            {"init_value": 0.01, "peak_value": peak, "warmup_steps": 2, "decay_steps": 20, "end_value": 0.01}
            for peak in (0.1, 0.05)
        )
    },
    "warmup_constant_schedule": {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5},
    "warmup_cosine_decay_schedule": {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5, "decay_steps": 40},
    "warmup_exponential_decay_schedule": {
        "init_value": 0.0, "peak_value": 0.1, "warmup_steps": 5, "transition_steps": 10, "decay_rate": 0.5
    },
}  # fmt: skip
NUMBERED = {"piecewise_constant_schedule": {"init_value": 0.1}, "piecewise_interpolate_schedule": {
    "interpolate_type": "linear", "init_value": 0.1}}  # fmt: skip


def test_no_schedule_of_optax_is_left_out():
    public = {name for name in dir(optax) if callable(getattr(optax, name)) and not name.startswith("_")}
    schedules = {n for n in public if n.endswith(("_schedule", "_schedules", "_decay"))} - {"scale_by_schedule"}
    assert schedules == {*SCHEDULES, *NUMBERED}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_named_in_a_config_gives_a_rate_to_an_optimizer(name):
    node = read_back(spec(f"optax:{name}", **SCHEDULES[name]))
    rates = jax.jit(jax.vmap(configs.build(node)))(jnp.arange(60))
    assert np.isfinite(rates).all()
    assert (np.asarray(rates) >= 0).all()
    assert np.max(rates) == pytest.approx(0.1)
    direct = SCHEDULES[name]
    if name not in ("join_schedules", "sgdr_schedule"):
        expected = [getattr(optax, name)(**direct)(step) for step in range(60)]
        np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", NUMBERED)
def test_a_schedule_by_step_numbers_as_keys_is_no_config_and_says_so(name):
    with pytest.raises(ConfigError, match=r"boundaries_and_scales: the key 20 is a int; a config's keys are strings"):
        spec(f"optax:{name}", **NUMBERED[name], boundaries_and_scales={20: 0.1})
    losses, *_ = train(spec("optax:sgd", learning_rate=spec(f"optax:{name}", **NUMBERED[name])))
    assert losses[-1] < losses[0]  # without boundaries it is a constant; jaxlab.optim.schedules:step_decay has them
