"""A run can begin from given values; they are read once, by a new run alone, and reach average and optimizer."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest
import tiny
from train_helpers import saved

import jaxlab
from jaxlab.core.errors import ConfigError
from jaxlab.core.tree import named_leaves
from jaxlab.core.types import Initialiser
from jaxlab.run.assemble import assemble
from jaxlab.train.parallel import make_strategy

NAME = "params/Dense_0/kernel"
calls = []


def constant(name: str = NAME, value: float = 0.25, extra_rows: int = 0) -> Initialiser:
    """Return values that are all `value` for one parameter."""

    def initialise(shapes):
        calls.append(name)
        leaves = named_leaves(shapes)
        shape = leaves[name].shape if name in leaves else (1,)
        return {name: np.full((shape[0] + extra_rows, *shape[1:]), value)}

    return initialise


def config(**options):
    found = tiny.mlp()
    with found.unlocked():
        found.init = jaxlab.spec(constant, **options)
        found.train.update({"steps": 2, "ema": 0.9})
    return found


@pytest.mark.parametrize("strategy", ["jit", "pmap"])
def test_named_values_are_the_given_ones_and_the_others_stay_random(strategy):
    experiment = assemble(config())
    placed = make_strategy(strategy, {"data": -1}, jax.devices())
    state = placed.fetch(placed.init(experiment.init, experiment.initial_values()))
    plain = named_leaves(assemble(tiny.mlp()).init().params)
    for leaves in (named_leaves(state.params), named_leaves(state.ema)):
        assert leaves.keys() == plain.keys()
        for name, value in leaves.items():
            expected = np.full(value.shape, 0.25, np.float32) if f"params/{name}" == NAME else plain[name]
            np.testing.assert_allclose(value, expected, rtol=1e-6)
            assert value.dtype == plain[name].dtype


def test_an_optimizer_that_keeps_a_copy_of_the_parameters_has_the_given_ones():
    found = config()
    with found.unlocked():
        found.optimizer = jaxlab.spec("optax.contrib:schedule_free_sgd", learning_rate=0.1)
    experiment = assemble(found)
    state = experiment.init(experiment.initial_values())
    kept = optax.tree.get(state.opt_state, "z")["Dense_0"]["kernel"]
    np.testing.assert_array_equal(kept, np.full(kept.shape, 0.25, np.float32))


def test_they_are_read_by_a_new_run_and_not_by_one_that_goes_on(tmp_path):
    calls.clear()
    jaxlab.train(config(), tmp_path / "run")
    assert calls == [NAME]
    (tmp_path / "run" / "summary.json").unlink()
    jaxlab.train(config(), tmp_path / "run")
    assert calls == [NAME]
    assert saved(tmp_path / "run")["state/step"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "params/Dense_0/kernels"}, "did you mean 'params/Dense_0/kernel'"),
        ({"extra_rows": 1}, r"Dense_0/kernel.* has the shape \(\d+, \d+\); its value has"),
    ],
)
def test_values_that_fit_no_parameter_are_an_error(options, message):
    experiment = assemble(config(**options))
    with pytest.raises(ConfigError, match=message):
        experiment.init(experiment.initial_values())
