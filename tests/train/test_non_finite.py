"""A step that is not finite: never saved, found by its exact number, left out or rolled back as the config says."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from train_helpers import rows, same_bits, saved, saved_steps

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import DivergedError
from jaxlab.core.tree import named_leaves
from jaxlab.run import incident
from jaxlab.run.assemble import assemble
from jaxlab.run.rollback import training_batches
from jaxlab.train.checkpoint import Checkpoints

BAD = 33


def make_config(policy="abort", bad=(BAD,), **settings):
    """Return a run whose batches of the numbers `bad` hold a pixel that is infinite."""
    config = tiny.mlp()
    config.data.train = jaxlab.spec("tiny:poisoned", batches=tuple(bad), batch_size=32, seed=0)
    config.train.non_finite = policy
    config.train.update({"steps": 60, **settings})
    return config


def read_incident(workdir):
    return record.read_json(workdir / record.AUTOPSY / incident.INCIDENT)


@pytest.fixture(scope="module")
def aborted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("aborted") / "run"
    with pytest.raises(DivergedError, match="the loss is nan in the steps up to 35"):
        jaxlab.train(make_config(), workdir)
    return workdir


def test_the_step_is_found_and_its_batch_and_example_are_kept(aborted):
    facts = read_incident(aborted)
    assert (facts["step"], facts["batch"]) == (BAD, BAD)
    assert facts["reason"] == "the loss is nan"
    with np.load(aborted / record.AUTOPSY / incident.BATCH, allow_pickle=False) as batch:
        assert np.isinf(batch["image"]).any()
        assert list(batch["id"]) == facts["ids"]


def test_the_state_kept_is_the_one_before_the_step_bit_by_bit(aborted, tmp_path):
    config = make_config(bad=(), steps=BAD, checkpoint_every=BAD, eval_every=100)
    jaxlab.train(config, tmp_path / "sound")
    sound = {name: leaf for name, leaf in saved(tmp_path / "sound").items() if name.startswith("state/")}
    experiment = assemble(config, ("train",))
    folder = aborted / record.AUTOPSY / record.CHECKPOINTS
    with Checkpoints(folder, keep=1, best=None, mode="min", writable=False) as checkpoints:
        state = jax.eval_shape(experiment.init)
        kept = checkpoints.restore(BAD, {"state": state})
    assert same_bits(sound, {name: np.asarray(leaf) for name, leaf in named_leaves(kept).items()})


def test_nothing_that_is_not_finite_was_saved(aborted):
    assert max(saved_steps(aborted)) <= BAD
    assert all(np.isfinite(leaf).all() for leaf in saved(aborted).values())


def test_parameters_that_are_not_finite_are_not_saved_though_every_loss_was(tmp_path):
    config = tiny.mlp()
    config.optimizer = jaxlab.spec("tiny:exploding", at=26)
    with pytest.raises(DivergedError, match="the parameters after step 26 are not finite"):
        jaxlab.train(config, tmp_path / "run")
    assert saved_steps(tmp_path / "run")[-1] == 22
    assert read_incident(tmp_path / "run")["step"] == 25
    assert "parameters after the step are not" in read_incident(tmp_path / "run")["reason"]


def test_a_step_that_is_skipped_leaves_the_state_as_it_was(tmp_path):
    jaxlab.train(make_config("skip", log_every=1), tmp_path / "run")
    found = {row["step"]: row for row in rows(tmp_path / "run") if "train/skipped" in row}
    assert [step for step, row in found.items() if row["train/skipped"]] == [BAD + 1]
    assert np.isfinite(found[BAD + 2]["train/loss"])
    before = make_config("skip", steps=BAD, checkpoint_every=BAD, eval_every=100)
    after = make_config("skip", steps=BAD + 1, checkpoint_every=BAD + 1, eval_every=100)
    states = []
    for name, config in {"before": before, "after": after}.items():
        jaxlab.train(config, tmp_path / name)
        states.append(saved(tmp_path / name))
    counters = ("state/step", "state/skipped", "window/sums", "window/ids")
    kept = [{name: leaf for name, leaf in state.items() if name not in counters} for state in states]
    assert same_bits(*kept)
    assert [state["state/skipped"] for state in states] == [0, 1]


def test_more_skipped_steps_in_a_row_than_allowed_end_the_run(tmp_path):
    config = make_config("skip", bad=(20, 30, 31, 32), non_finite_limit=2)
    with pytest.raises(DivergedError, match="in the steps up to 33"):
        jaxlab.train(config, tmp_path / "run")
    assert saved(tmp_path / "run")["state/step"] <= 33


def test_the_policy_skip_changes_no_bit_of_a_run_that_stays_finite(tmp_path):
    for policy in ("abort", "skip"):
        jaxlab.train(make_config(policy, bad=(), steps=20), tmp_path / policy)
    states = [saved(tmp_path / policy) for policy in ("abort", "skip")]
    params = [{n: x for n, x in state.items() if n.startswith(("state/params", "state/opt"))} for state in states]
    for name, leaf in params[0].items():
        np.testing.assert_allclose(leaf, params[1][name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("rolled") / "run"
    jaxlab.train(
        make_config("rollback", bad=(BAD, BAD + 1), steps=50), workdir
    )  # the rows come again in the next epoch
    return workdir


def test_a_rollback_leaves_out_the_data_up_to_the_bad_batch_and_goes_on(rolled_back):
    found = record.read_json(rolled_back / record.ROLLBACKS)["rollbacks"]
    assert [(each["at"], each["far"]) for each in found] == [(33, 1), (33, 2)]
    assert record.read_json(rolled_back / record.SUMMARY)["step"] == 50
    assert all(np.isfinite(leaf).all() for leaf in saved(rolled_back).values())
    steps = [row["step"] for row in rows(rolled_back)]
    assert steps == sorted(steps)


def test_after_a_rollback_the_same_batches_are_seen_whenever_the_run_is_resumed(rolled_back):
    experiment = assemble(record.read_config(rolled_back), ("train",))
    batches, straight = training_batches(rolled_back, experiment), experiment.batches("train", training=True)
    assert [batches.number(step) for step in (32, 33, 40)] == [32, 35, 42]
    np.testing.assert_array_equal(batches.chunk(32, 3)["id"], np.stack([straight[n]["id"] for n in (32, 35, 36)]))
    np.testing.assert_array_equal(batches.indices(32, 3)[0], batches.chunk(32, 3)["id"])


def test_rollbacks_end_when_they_have_been_too_many(tmp_path):
    config = make_config("rollback", bad=range(30, 60), non_finite_limit=3)
    with pytest.raises(DivergedError):
        jaxlab.train(config, tmp_path / "run")
    assert len(record.read_json(tmp_path / "run" / record.ROLLBACKS)["rollbacks"]) == 3


def test_an_unknown_policy_is_an_error_that_names_the_nearest(tmp_path):
    with pytest.raises(jaxlab.core.errors.ConfigError, match="non_finite='skipp': no such policy; did you mean 'skip'"):
        jaxlab.train(make_config("skipp"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 1e30])
def test_a_norm_that_is_no_number_or_overflows_is_not_finite(bad):
    from jaxlab.train.non_finite import is_finite

    assert bool(is_finite({"a": jnp.ones(3)}, jnp.zeros(())))
    assert not bool(is_finite({"a": jnp.ones(3), "b": jnp.array([bad])}))


def test_what_is_written_of_an_incident_is_json(aborted):
    json.loads((aborted / record.AUTOPSY / incident.INCIDENT).read_text(), parse_constant=pytest.fail)
