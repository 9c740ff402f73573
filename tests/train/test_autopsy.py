"""An autopsy names the planted fault: the field, the parameter, the module, the direction, the example."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn
from test_non_finite import make_config
from train_helpers import command, finish

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import CorruptError, DataError, DivergedError
from jaxlab.core.tree import replaced
from jaxlab.core.types import Loss
from jaxlab.objectives import classify
from jaxlab.run.assemble import assemble
from jaxlab.run.autopsy import autopsy, look
from jaxlab.run.incident import BATCH
from jaxlab.train.probe import FORWARD, watching


class Middle(nn.Module):
    """Divides by the square of what one layer gives; exactly zero where the input is."""

    kind: str = "divide"

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        hidden = nn.Dense(8, name="first", use_bias=False)(x)
        hidden = Faulty(self.kind, name="faulty")(hidden)
        return {"logits": nn.Dense(10, name="last")(hidden)}


class Faulty(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x):
        faults = {
            "divide": lambda x: x / jnp.abs(x).sum(-1, keepdims=True),
            "backward": lambda x: jnp.sqrt(jnp.square(x).sum(-1, keepdims=True)) + x,
            "overflow": lambda x: (x * 1e20) * 1e20,
            "none": lambda x: x,
        }
        return faults[self.kind](x)


def make_middle(kind: str) -> nn.Module:
    return Middle(kind)


def log_of_zero() -> classify.Objective:
    """Return an objective that takes the logarithm of 0 for the examples whose id is a multiple of 16."""

    def objective(apply, batch):
        outputs, model_state = apply(batch["image"])
        value = jnp.where(batch["id"] % 16 == 0, 0.0, jnp.square(outputs["logits"]).sum(-1))
        total = jnp.sum(batch["mask"] * jnp.where(batch["mask"] > 0, jnp.log(value), 0.0))
        return Loss(total, jnp.sum(batch["mask"]), dict(outputs), model_state)

    return objective


def experiment_of(kind="none", **settings):
    config = tiny.mlp()
    config.model = jaxlab.spec(make_middle, kind=kind)
    config.metrics = {}
    config.train.best = "valid/loss"
    config.train.update(settings)
    return assemble(config, ("train",))


def first_batch(experiment):
    batch = {name: np.array(value) for name, value in experiment.batches("train", training=True)[0].items()}
    batch["image"] = batch["image"].astype(np.float32)
    return batch


def look_at(experiment, batch=None, state=None):
    state = experiment.init() if state is None else state
    return look(experiment, state, first_batch(experiment) if batch is None else batch)


def test_an_input_that_is_not_finite_is_named_by_field_and_example():
    experiment = experiment_of()
    batch = first_batch(experiment)
    batch["image"][5, 2, 2] = np.inf
    found = look_at(experiment, batch)
    assert found["where"] == {"kind": "batch", "field": "image"}
    assert found["examples"] == [batch["id"][5]]


def test_padding_that_is_not_finite_is_no_fault():
    experiment = experiment_of()
    batch = first_batch(experiment)
    batch["image"][5], batch["mask"][5] = np.nan, 0.0
    assert look_at(experiment, batch)["where"]["kind"] == "nothing"


def test_a_parameter_that_was_not_finite_is_named():
    experiment = experiment_of()
    state = experiment.init()
    kernel = np.array(state.params["last"]["kernel"])
    kernel[1, 1] = np.nan
    state = state.replace(params=replaced(state.params, {"last/kernel": kernel}))
    found = look_at(experiment, state=state)
    assert found["where"] == {"kind": "params", "leaves": {"last/kernel": 1}}


@pytest.mark.parametrize("settings", [{}, {"grad_accumulation": 4}])
def test_a_division_by_zero_in_the_middle_is_found_in_its_module_and_row(settings):
    experiment = experiment_of("divide", **settings)
    batch = first_batch(experiment)
    batch["image"][6] = 0.0
    found = look_at(experiment, batch)
    assert (found["where"]["module"], found["where"]["class"]) == ("faulty", "Faulty")
    assert found["where"]["kind"] == FORWARD
    assert found["where"]["inputs_finite"]
    assert found["examples"] == [batch["id"][6]]
    assert ("in microbatch 2 of 4" in found["verdict"]) == bool(settings)


def test_a_gradient_that_is_not_finite_is_found_where_it_first_arrives():
    experiment = experiment_of("backward")
    batch = first_batch(experiment)
    batch["image"][3] = 0.0
    found = look_at(experiment, batch)
    assert found["where"]["kind"] == "backward"
    assert found["where"]["module"] == "first"  # what comes out of the fault's backward pass arrives at its input
    assert found["examples"] == [batch["id"][3]]
    assert "first/kernel" in found["where"]["gradients"]


def test_an_overflow_says_how_large_the_numbers_were():
    found = look_at(experiment_of("overflow", precision="bfloat16"))
    assert found["where"]["module"] == "faulty"
    assert found["where"]["dtype"] == "bfloat16"
    assert found["where"]["infinite"] > 0


def test_a_fault_of_the_objective_is_told_from_one_of_the_model_with_its_examples():
    config = tiny.mlp()
    config.objective = jaxlab.spec(log_of_zero)
    config.metrics = {}
    config.train.best = "valid/loss"
    experiment = assemble(config, ("train",))
    batch = first_batch(experiment)
    found = look_at(experiment, batch)
    assert found["where"]["kind"] == "objective"
    assert found["examples"] == [i for i in batch["id"] if i % 16 == 0]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"scan": True}, {"scan": False}, {"scan": True, "remat": "full"}])
def test_within_scanned_and_rematerialised_layers_the_layer_is_found(options):
    from jaxlab.models import decoder

    data = jaxlab.core.types.DataSpec({}, 1, {"vocabulary_size": 11})
    model = decoder.make(data, depth=3, width=8, heads=2, kv_heads=2, max_length=6, **options)
    tokens = jnp.arange(12).reshape(2, 6) % 11
    variables = model.init(jax.random.key(0), tokens, train=False)
    with watching() as sound:
        model.apply(variables, tokens, train=False)
    assert not any(sighting.bad for sighting in sound)
    leaves = jaxlab.core.tree.named_leaves(variables)
    name = f"params/stack/layers{'' if options['scan'] else '_2'}/attention/value/kernel"
    broken = np.array(leaves[name])
    broken[(2, *[0] * (broken.ndim - 1)) if options["scan"] else 0] = np.nan
    with watching() as sightings:
        model.apply(replaced(variables, {name: broken}), tokens, train=False)
    bad = next(sighting for sighting in sightings if sighting.bad)
    assert bad.inputs_finite
    assert bad.module == f"stack/layers{'' if options['scan'] else '_2'}/attention/value"
    assert bad.call == (2 if options["scan"] else 0)


def test_the_step_is_taken_with_the_very_random_numbers():
    config = tiny.cnn()
    experiment = assemble(config, ("train",))
    state, batch = experiment.init(), first_batch(experiment)
    from jaxlab.run.autopsy_parts import parts_of
    from jaxlab.train.apply import Bound

    (part,) = parts_of(experiment, state, batch)
    apply = Bound(experiment.make_model(None), state.params, state.model_state, part.key, None, train=True)
    with watching():
        total = experiment.objective(apply, part.batch).total
    _, statistics = jax.jit(experiment.train_step(None))(state, batch)
    np.testing.assert_allclose(total, statistics["loss"]["sum"], rtol=1e-5)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("diverged") / "run"
    with pytest.raises(DivergedError):
        jaxlab.train(make_config(), workdir)
    return workdir


def test_a_run_that_diverged_is_looked_at_with_its_history(diverged):
    report = autopsy(diverged)
    assert report["where"] == {"kind": "batch", "field": "image"}
    assert report["examples_n"] == 1
    assert [entry["step"] for entry in report["history"]["steps"]] == [33]
    assert np.isnan(report["history"]["steps"][-1]["loss"])
    assert report["history"]["rows"][-1]["step"] == 30
    written = (diverged / record.AUTOPSY / "report.json").read_text()
    json.loads(written, parse_constant=pytest.fail)


@pytest.mark.slow
def test_the_command_prints_the_verdict(diverged):
    code, output, errors = finish(command("autopsy", str(diverged)))
    assert code == 0, errors
    assert "field 'image' is not finite" in errors
    assert json.loads(output)["where"]["field"] == "image"


def test_a_run_that_did_not_diverge_has_nothing_to_look_at(tmp_path):
    jaxlab.train(make_config(bad=(), steps=5), tmp_path / "run")
    with pytest.raises(DataError, match="no step of this run was found not to be finite"):
        autopsy(tmp_path / "run")


def test_what_was_kept_and_is_damaged_is_refused(diverged, tmp_path):
    import shutil

    run = shutil.copytree(diverged, tmp_path / "run")
    (run / record.AUTOPSY / BATCH).write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"batch\.npz cannot be read"):
        autopsy(run)
    run = shutil.copytree(diverged, tmp_path / "other")
    next((run / record.AUTOPSY / record.CHECKPOINTS).rglob("state.params*/0*")).write_bytes(b"")
    with pytest.raises(CorruptError, match="state/params/"):
        autopsy(run)
