"""An autopsy names the planted fault: the field, the parameter, the module, the direction, the example."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_non_finite import BAD, make_config
from train_helpers import COMMAND, command, finish, start

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import CorruptError, DataError, DivergedError
from jaxlab.core.tree import named_leaves, replaced
from jaxlab.run.assemble import assemble
from jaxlab.run.autopsy import autopsy, print_autopsy
from jaxlab.run.autopsy_forward import look_forward
from jaxlab.run.autopsy_look import look
from jaxlab.run.autopsy_parts import Pieces
from jaxlab.run.incident import BATCH, INCIDENT
from jaxlab.train.probe import FORWARD, watching


def config_of(kind="none", *, objective=None, **settings):
    config = tiny.mlp()
    config.model = jaxlab.spec("faults:make", kind=kind)
    if objective is not None:
        config.objective = jaxlab.spec("faults:objective", kind=objective)
    config.metrics = {}
    config.train.best = "valid/loss"
    config.train.update({"batch_size": 16, **settings})
    return config


def experiment_of(kind="none", **settings):
    return assemble(config_of(kind, **settings), ("train",))


def first_batch(experiment):
    batch = {name: np.array(value) for name, value in experiment.batches("train", training=True)[0].items()}
    return {**batch, "image": batch["image"].astype(np.float32)}


def look_at(experiment, batch=None, state=None, devices=1):
    state = experiment.init() if state is None else state
    return look(experiment, state, first_batch(experiment) if batch is None else batch, devices)


def module_of(found):
    """Return the module's path without the method."""
    return found["where"]["module"].partition(".")[0]


def with_leaf(state, name, index, value):
    leaf = np.array(named_leaves(state.params)[name])
    leaf[index] = value
    return state.replace(params=replaced(state.params, {name: leaf}))


def test_an_input_that_is_not_finite_is_named_by_field_row_and_example():
    experiment = experiment_of()
    batch = first_batch(experiment)
    batch["image"][5, 2, 2] = np.inf
    found = look_at(experiment, batch)
    assert found["where"] == {"kind": "batch", "field": "image", "nan": 0, "infinite": 1}
    assert (found["examples"], found["rows"]) == ([batch["id"][5]], [5])


def test_padding_that_is_not_finite_is_no_fault():
    experiment = experiment_of()
    batch = first_batch(experiment)
    batch["image"][5], batch["mask"][5] = np.nan, 0.0
    assert look_at(experiment, batch)["where"]["kind"] == "nothing"


def test_a_batch_of_padding_alone_is_no_fault():
    experiment = experiment_of()
    batch = first_batch(experiment)
    batch["mask"][:] = 0.0
    assert look_at(experiment, batch)["where"]["kind"] == "nothing"


def test_a_value_that_is_missing_and_that_the_objective_leaves_out_is_not_blamed():
    experiment = experiment_of("divide", objective="missing")
    batch = first_batch(experiment)
    batch["image"][3, 0, 2], batch["image"][6] = np.nan, 0.0
    found = look_at(experiment, batch)
    assert module_of(found) == "faulty"
    assert found["examples"] == [batch["id"][6]]
    assert "'image' holds numbers that are not finite; they are not the cause" in found["notes"][0]


def test_a_parameter_that_was_not_finite_is_named():
    experiment = experiment_of()
    found = look_at(experiment, state=with_leaf(experiment.init(), "last/kernel", (1, 1), np.nan))
    assert found["where"] == {"kind": "params", "leaves": {"last/kernel": 1}}


def test_a_moment_of_the_optimizer_is_named_but_not_what_begins_infinite():
    experiment = experiment_of()
    optimizer = optax.chain(optax.adam(1e-3), optax.contrib.reduce_on_plateau())
    experiment = experiment._replace(optimizer=optimizer)
    state = experiment.init()
    assert any(np.isinf(leaf).any() for leaf in jax.tree.leaves(state.opt_state))
    assert look_at(experiment, state=state)["where"]["kind"] == "nothing"
    broken = jax.tree.map(lambda x: x.at[0].set(jnp.nan) if x.ndim else x, state.opt_state)
    found = look_at(experiment, state=state.replace(opt_state=broken))
    assert found["where"]["kind"] == "opt_state"
    assert all("mu" in name or "nu" in name for name in found["where"]["leaves"])


@pytest.mark.parametrize("settings", [{}, {"grad_accumulation": 4}])
def test_a_division_by_zero_in_the_middle_is_found_in_its_module_and_row(settings):
    experiment = experiment_of("divide", **settings)
    batch = first_batch(experiment)
    batch["image"][6] = 0.0
    found = look_at(experiment, batch)
    assert (module_of(found), found["where"]["class"]) == ("faulty", "Faulty")
    assert found["where"]["kind"] == FORWARD
    assert found["where"]["inputs_finite"]
    assert found["where"]["nan"] == 8
    assert (found["examples"], found["rows"]) == ([batch["id"][6]], [6])
    assert ("in microbatch 2 of 4" in found["verdict"]) == bool(settings)


def test_a_number_made_between_two_layers_is_laid_to_the_module_that_holds_them():
    experiment = experiment_of("body")
    batch = first_batch(experiment)
    batch["image"][6] = 0.0
    found = look_at(experiment, batch)
    assert (found["where"]["module"], found["where"]["after"]) == ("the model", "first")
    assert found["where"]["class"] == "Middle"
    assert found["examples"] == [batch["id"][6]]


def test_a_mask_of_minus_infinity_is_not_blamed():
    experiment = experiment_of("mask")
    batch = first_batch(experiment)
    batch["image"][6] = 0.0
    found = look_at(experiment, batch)
    assert module_of(found) == "faulty/inner"
    assert found["examples"] == [batch["id"][6]]


def test_an_overflow_says_how_large_the_numbers_were():
    found = look_at(experiment_of("overflow", precision="bfloat16"))
    assert module_of(found) == "faulty"
    assert found["where"]["dtype"] == "bfloat16"
    assert found["where"]["infinite"] > 0
    assert 0 < max(map(abs, found["where"]["inputs"])) < 100
    assert found["blame"] == "of every example"


def test_the_range_of_the_parameters_is_told():
    experiment = experiment_of()
    state = with_leaf(experiment.init(), "last/kernel", slice(None), 3e38)
    found = look_at(experiment, state=with_leaf(state, "last/bias", 0, -3e38))
    assert found["where"]["module"] == "last"
    assert found["where"]["params"]["last/bias"] == [pytest.approx(-3e38), 0.0]
    assert found["where"]["params"]["last/kernel"][1] == pytest.approx(3e38)


def test_a_fault_of_the_objective_is_told_from_one_of_the_model_with_its_examples():
    experiment = experiment_of(objective="log", batch_size=64)
    batch = first_batch(experiment)
    found = look_at(experiment, batch)
    assert found["where"]["kind"] == "objective"
    assert found["where"]["after"] == "the model"
    assert found["examples"] == [i for i in batch["id"] if i % 16 == 0]


def test_a_transform_on_the_device_is_named():
    config = config_of()
    config.data.device_augment = (jaxlab.spec("faults:standardise"),)
    experiment = assemble(config, ("train",))
    batch = first_batch(experiment)
    batch["image"][4] = 1.0
    found = look_at(experiment, batch)
    assert found["where"] == {"kind": "device_augment", "place": 0, "field": "image"}
    assert "faults:standardise" in found["verdict"]
    assert found["examples"] == [batch["id"][4]]


def test_a_gradient_that_is_not_finite_is_laid_to_the_module_whose_backward_pass_makes_it():
    experiment = experiment_of("backward")
    batch = first_batch(experiment)
    batch["image"][3] = 0.0
    found = look_at(experiment, batch)
    assert found["where"]["kind"] == "leaving"
    assert module_of(found) == "faulty"
    assert found["examples"] == [batch["id"][3]]
    assert "first/kernel" in found["where"]["gradients"]


def test_a_division_that_the_loss_hides_is_found_in_the_gradient():
    experiment = experiment_of("hidden")
    batch = first_batch(experiment)
    batch["image"][3] = 0.0
    found = look_at(experiment, batch)
    assert (found["where"]["kind"], found["where"]["module"]) == ("leaving", "faulty/reciprocal")
    assert "reciprocal returned numbers that are not finite and that the loss hides" in found["notes"][0]


def test_a_gradient_of_the_objective_is_told_from_one_of_the_model():
    experiment = experiment_of(objective="root", batch_size=64)
    batch = first_batch(experiment)
    found = look_at(experiment, batch)
    assert "the backward pass of the objective" in found["verdict"]
    assert found["examples"] == [i for i in batch["id"] if i % 16 == 0]


def test_in_a_scan_the_layer_is_numbered_from_the_first_backward_as_well():
    config = config_of()
    config.model = jaxlab.spec("faults:layers")
    experiment = assemble(config, ("train",))
    found = look_at(experiment, state=with_leaf(experiment.init(), "layers/scale", 1, 0.0))
    assert (found["where"]["module"], found["where"]["call"]) == ("layers/root", 1)
    assert found["where"]["kind"] == "leaving"


def test_a_norm_that_overflows_though_no_gradient_does_is_told():
    found = look_at(experiment_of(objective="large"))
    assert found["where"]["kind"] == "gradient norm"
    assert found["where"]["largest_finite"] > 1e20


def test_an_update_that_is_not_finite_is_laid_to_the_optimizer():
    config = config_of()
    config.optimizer = jaxlab.spec("tiny:exploding", at=1)
    found = look_at(assemble(config, ("train",)))
    assert found["where"]["kind"] == "update"
    assert "last/kernel" in found["where"]["leaves"]


def test_a_statistic_of_the_model_that_overflows_is_named_though_the_loss_is_finite():
    found = look_at(experiment_of("running"))
    assert found["where"]["kind"] == "model_state after"
    assert found["where"]["leaves"] == {"statistics/faulty/sum": 1}


def test_what_the_model_remembers_goes_from_one_microbatch_to_the_next():
    found = look_at(experiment_of("counted", grad_accumulation=4))
    assert module_of(found) == "faulty"
    assert "in microbatch 1 of 4" in found["verdict"]  # the beginning was a call as well


def test_a_number_that_only_the_compiled_program_makes_is_told():
    found = look_at(experiment_of("compiled"))
    assert found["where"]["kind"] == "compiled"
    assert found["where"]["compiled"]["module"].startswith("faulty")
    assert "un-jitted, loss and gradient are finite" in found["verdict"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"scan": True}, pytest.param({"scan": False}, marks=pytest.mark.exhaustive), {"scan": True, "remat": "full"}],
)
def test_within_scanned_and_rematerialised_layers_the_layer_is_found(options):
    from jaxlab.models import decoder

    data = jaxlab.core.types.DataSpec({}, 1, {"vocabulary_size": 11})
    model = decoder.make(data, depth=3, width=8, heads=2, kv_heads=2, max_length=6, **options)
    tokens = jnp.arange(12).reshape(2, 6) % 11
    variables = model.init(jax.random.key(0), tokens, train=False)
    leaves = named_leaves(variables)
    name = f"params/stack/layers{'' if options['scan'] else '_2'}/attention/value/kernel"
    broken = np.array(leaves[name])
    broken[(2, *[0] * (broken.ndim - 1)) if options["scan"] else 0] = np.nan
    with watching() as sightings:
        model.apply(replaced(variables, {name: broken}), tokens, train=False)
    bad = next(sighting for sighting in sightings if sighting.bad)
    assert not bad.inputs.bad
    assert bad.at.module == f"stack/layers{'' if options['scan'] else '_2'}/attention/value"
    assert bad.number == (2 if options["scan"] else 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "devices"), [("jit", None), pytest.param("pmap", 2, marks=pytest.mark.exhaustive)]
)
def test_the_step_is_taken_with_the_very_random_numbers(strategy, devices):
    config = config_of(grad_accumulation=2)
    config.model = jaxlab.spec("faults:normalised")
    config.objective = jaxlab.spec("jaxlab.objectives.classify:make", inputs=("image", "mask"))
    config.data.device_augment = (jaxlab.spec("faults:noise"),)
    config.parallel.strategy = strategy
    experiment = assemble(config, ("train",))
    again, state, batch = Pieces(experiment, devices), experiment.init(), first_batch(experiment)
    model_state, total = again.each(state.model_state), 0.0
    for part in again.parts(state, batch):
        ready = again.augmented(part, 1)
        with watching(again.axis) as sightings:
            sums, (*_, model_state) = again.totals()(state.params, model_state, ready, part.key)
        total += np.sum(sums)
        assert {seen.device for seen in sightings} == set(range(devices or 1))
    after, statistics = jax.jit(again.step())(state, batch)
    np.testing.assert_allclose(total, statistics["loss"]["sum"], rtol=1e-5)
    for name, leaf in named_leaves(after.model_state).items():
        found = named_leaves(model_state)[name]
        np.testing.assert_allclose(found if devices is None else found[0], leaf, rtol=1e-4, atol=1e-6, err_msg=name)


def test_under_pmap_the_example_is_found_on_its_device():
    config = config_of("divide", grad_accumulation=2)
    config.parallel.strategy = "pmap"
    experiment = assemble(config, ("train",))
    batch = first_batch(experiment)
    batch["image"][11] = 0.0  # the fourth of the second device: its second microbatch
    found = look_at(experiment, batch, devices=2)
    assert (found["examples"], found["rows"]) == ([batch["id"][11]], [11])
    assert "in microbatch 1 of 2" in found["verdict"]


def test_looking_changes_no_number():
    experiment = experiment_of("divide")
    again, state, batch = Pieces(experiment, None), experiment.init(), first_batch(experiment)
    (part,) = again.parts(state, batch)
    seen = look_forward(again, state, state.model_state, part)
    assert seen.found is None
    with jax.disable_jit():
        plain = again.gradients()(state.params, state.model_state, seen.batch, part.key)
        with watching():
            watched = again.gradients()(state.params, state.model_state, seen.batch, part.key)
    for first, second in zip(jax.tree.leaves(plain), jax.tree.leaves(watched), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("diverged") / "run"
    with pytest.raises(DivergedError):
        jaxlab.train(make_config(log_every=1, eval_every=100, checkpoint_every=30, grad_norm=True), workdir)
    return workdir


def test_a_run_that_diverged_is_looked_at_with_its_history(diverged, capsys):
    report = autopsy(diverged)
    assert (report["where"]["kind"], report["where"]["field"]) == ("batch", "image")
    assert report["examples_n"] == 1
    taken = report["history"]["steps"]
    assert [entry["step"] for entry in taken] == [30, 31, 32, BAD]
    assert np.isnan(taken[-1]["loss"])
    assert taken[-1]["ids"] == report["ids"]
    rows = {row["step"]: row for row in report["history"]["rows"]}
    for entry in taken[:-1]:  # step 30 takes the state of 30 steps to that of 31
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(entry[name], rows[entry["step"] + 1][name], rtol=1e-5)
    written = (diverged / record.AUTOPSY / "report.json").read_text()
    json.loads(written, parse_constant=pytest.fail)
    print_autopsy(report)
    assert f"step {BAD}: loss nan, gradient norm nan" in capsys.readouterr().err


@pytest.mark.slow
def test_after_a_rollback_the_history_is_that_of_the_bad_batch(tmp_path):
    config = make_config("rollback", steps=36, log_every=1, eval_every=100, checkpoint_every=30)
    jaxlab.train(config, tmp_path / "run")
    report = autopsy(tmp_path / "run")
    taken = report["history"]["steps"]
    assert [entry["batch"] for entry in taken] == [30, 31, 32, BAD]
    assert np.isnan(taken[-1]["loss"])
    assert np.isfinite([entry["loss"] for entry in taken[:-1]]).all()
    assert report["history"]["rows"][-1]["step"] == 30


@pytest.mark.exhaustive
def test_the_command_finds_a_fault_that_the_command_met_under_pmap(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "import tiny, jaxlab\n"
        "def get_config():\n"
        "    config = tiny.mlp()\n"
        "    config.model = jaxlab.spec('faults:make', kind='divide', dropout=0.3)\n"
        "    config.data.train = jaxlab.spec('faults:blank', batch=9, batch_size=32, seed=0)\n"
        "    config.parallel.strategy, config.parallel.mesh.data = 'pmap', 2\n"
        "    config.train.update({'steps': 20, 'log_every': 1, 'eval_every': 5, 'checkpoint_every': 6})\n"
        "    return config\n"
    )
    arguments = ("train", f"--config={config}", f"--workdir={tmp_path / 'run'}")
    code, _, errors = finish(start("-c", COMMAND, *arguments, devices=2))
    assert code == 3, errors
    code, output, errors = finish(command("autopsy", str(tmp_path / "run"), "--allow=faults,tiny"))
    assert code == 0, errors
    report = json.loads(output)
    assert report["step"] == 9
    assert report["where"]["module"].startswith("faulty")
    assert report["rows"] == [0]
    assert report["examples"] == [report["ids"][0]]
    rows = {row["step"]: row["loss"] for row in report["history"]["rows"]}
    taken = [entry for entry in report["history"]["steps"] if entry["step"] < 9]
    assert taken
    for entry in taken:  # the very dropout of two devices, on one
        np.testing.assert_allclose(entry["loss"], rows[entry["step"] + 1], rtol=1e-5)


@pytest.mark.slow
def test_without_the_data_the_fault_is_found_all_the_same(tmp_path):
    source = tiny.poisoned((3,), 32, 0)
    np.savez(tmp_path / "digits.npz", **source.__getitems__(np.arange(len(source))))
    config = tiny.mlp()
    config.data.train = jaxlab.spec("faults:from_file", path=str(tmp_path / "digits.npz"))
    config.train.steps = 20
    with pytest.raises(DivergedError):
        jaxlab.train(config, tmp_path / "run")
    whole = autopsy(tmp_path / "run")
    (tmp_path / "digits.npz").unlink()
    report = autopsy(tmp_path / "run")
    assert report["history"]["left_out"].startswith("the data are not there: ")
    assert len(whole["history"]["steps"]) == 4
    assert {**whole, "history": None} == {**report, "history": None}


def test_a_run_that_did_not_diverge_has_nothing_to_look_at(tmp_path):
    jaxlab.train(make_config(bad=(), steps=5), tmp_path / "run")
    with pytest.raises(DataError, match="no step of this run was found not to be finite"):
        autopsy(tmp_path / "run")


def test_what_was_kept_and_is_damaged_is_refused(diverged, tmp_path):
    def damaged(name):
        return shutil.copytree(diverged, tmp_path / name)

    run = damaged("no archive")
    (run / record.AUTOPSY / BATCH).write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"batch\.npz cannot be read"):
        autopsy(run)
    run = damaged("other rows")
    np.savez(run / record.AUTOPSY / BATCH, id=np.arange(3), mask=np.ones(3))
    with pytest.raises(DataError, match=r"expected 32 rows, config\.train\.batch_size"):
        autopsy(run)
    run = damaged("pickled")
    np.savez(run / record.AUTOPSY / BATCH, id=np.array([{}] * 32, object))
    with pytest.raises(DataError, match=r"batch\.npz cannot be read"):
        autopsy(run)
    run = damaged("no step")
    facts = record.read_json(run / record.AUTOPSY / INCIDENT)
    record.write_json(run / record.AUTOPSY / INCIDENT, {**facts, "step": "33"})
    with pytest.raises(DataError, match="'step' is '33'; expected int"):
        autopsy(run)
    run = damaged("leaf")
    next((run / record.AUTOPSY / record.CHECKPOINTS).rglob("state.params*/0*")).write_bytes(b"")
    with pytest.raises(CorruptError, match="state/params/"):
        autopsy(run)
