"""What the data section of a config can ask of a run: buckets, mixing on the device, sampling, learnt transforms."""

import json
import warnings

import jax
import numpy as np
import pytest
import tiny
from flax import linen as nn
from train_helpers import saved

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.data.arrays import ArraySource
from jaxlab.run.assemble import assemble
from jaxlab.train.compilation import RecompilationWarning

CLASSES = ("few", "many")


def texts(seed: int = 0, size: int = 96, shift: int = 0) -> ArraySource:
    """Return token rows of many lengths whose class is that of their first token."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 17, size)
    mask = (np.arange(16) < lengths[:, None]).astype(np.float32)
    tokens = (generator.integers(1, 9, (size, 16)) * mask).astype(np.float32)
    fields = {"tokens": tokens + shift * mask, "token_mask": mask, "label": (tokens[:, 0] > 2).astype(int)}
    return ArraySource(fields, {"classes": CLASSES})


class Pooled(nn.Module):
    @nn.compact
    def __call__(self, tokens_BT, mask_BT):
        total_B1 = (tokens_BT * mask_BT).sum(1, keepdims=True)
        return {"logits": nn.Dense(2)(total_B1 / 100)}


def pooled() -> Pooled:
    return Pooled()


def config(**train):
    found = tiny.mlp()
    with found.unlocked():
        found.data.train = jaxlab.spec(texts)
        found.data.valid = jaxlab.spec(texts, seed=1)
        found.data.test = jaxlab.spec(texts, seed=2)
        found.data.transforms = ()
        found.model = jaxlab.spec(pooled)
        found.objective = jaxlab.spec("jaxlab.objectives.classify:make", inputs=("tokens", "token_mask"))
        found.train.update({"steps": 12, "batch_size": 8, "checkpoint_every": 12, "eval_every": 12, **train})
    return found


def test_bucketed_training_compiles_once_a_length_and_says_nothing(tmp_path):
    found = config()
    found.data.buckets.lengths = (4, 8, 16)
    batches = assemble(found).batches("train", training=True)
    assert len({batches[step]["tokens"].shape for step in range(12)}) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecompilationWarning)
        jaxlab.train(found, tmp_path / "run")
    assert saved(tmp_path / "run")["state/step"] == found.train.steps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": (4, 8)}, "over the last of boundaries"),
        ({"lengths": (4, 16), "fields": ("token",)}, "no field 'token'; did you mean 'tokens'"),
    ],
)
def test_buckets_that_do_not_fit_the_data_are_an_error(changes, message):
    found = config()
    found.data.buckets.update(changes)
    with pytest.raises(ConfigError, match=message):
        assemble(found)
    several = config(steps_per_call=4)
    several.data.buckets.lengths = (16,)
    with pytest.raises(ConfigError, match="cannot be had together"):
        assemble(several)


def test_mixing_on_the_device_happens_in_training_only():
    plain, mixed = tiny.mlp(), tiny.mlp()
    with mixed.unlocked():
        mixed.data.device_augment = (jaxlab.spec("jaxlab.data.device_augment:mixup", alpha=1.0),)
    experiments = [assemble(found) for found in (plain, mixed)]
    state = experiments[0].init()
    batch = jax.tree.map(jax.numpy.asarray, experiments[0].batches("train", training=True)[0])
    losses = [float(jax.jit(e.train_step(None))(state, batch)[1]["loss"]["sum"]) for e in experiments]
    again = float(jax.jit(experiments[1].train_step(None))(state, batch)[1]["loss"]["sum"])
    assert losses[0] != losses[1] == again
    evaluated = [float(jax.jit(e.eval_step(None))(state, batch)[0]["loss"]["sum"]) for e in experiments]
    assert evaluated[0] == evaluated[1]


def test_what_transforms_learn_is_of_train_alone_saved_and_read_by_the_evaluation(tmp_path):
    def learnt(**shifts):
        found = config()
        with found.unlocked():
            found.data.transforms = (jaxlab.spec("jaxlab.data.table_numeric:scale", columns=("tokens",)),)
            for split, shift in shifts.items():
                found.data[split].shift = shift
        return found, assemble(found).learnt

    found, first = learnt()
    assert learnt(valid=5)[1] == first != learnt(train=5)[1]
    run = jaxlab.train(found, tmp_path / "run")
    assert record.read_learnt(tmp_path / "run") == json.loads(json.dumps(first))
    rows, again = run.evaluate("valid")["metrics"], run.evaluate("valid", step="latest")
    assert again["reads"] == 2  # how often labels have been looked at belongs to the result
    assert rows["valid/loss"] == pytest.approx(run.history["valid/loss"].dropna().iloc[-1], rel=1e-5)


def test_a_run_over_precomputed_rows_is_the_run_that_transforms_each_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    states = []
    for count in (0, 1, 1):
        found = config()
        with found.unlocked():
            found.data.transforms = (jaxlab.spec("jaxlab.data.table_numeric:scale", columns=("tokens",)),)
            found.data.precomputed = count
        jaxlab.train(found, tmp_path / f"run{len(states)}")
        states.append(saved(tmp_path / f"run{len(states)}"))
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(np.array_equal(state[name], states[0][name]) for name in state)
    assert len(list((tmp_path / "cache/jaxlab/precomputed").iterdir())) == 2  # train and valid; test is not opened
    found.data.precomputed = 2
    with pytest.raises(ConfigError, match="precomputed=2: expected 0 to 1"):
        assemble(found)


def test_the_weights_of_a_mixture_act_without_being_asked_for():
    found = config()
    with found.unlocked():
        sources = (jaxlab.spec(texts, size=24), jaxlab.spec(texts, seed=3, size=72))
        found.data.train = jaxlab.spec("jaxlab.data.mixture:make", sources=sources, weights=(1.0, 1.0))
    batches = assemble(found).batches("train", training=True)
    drawn = np.concatenate([batches[step]["id"] for step in range(96 // 8)])
    assert np.abs(np.bincount(drawn >= 24) - 48).max() <= 1
    found.data.buckets.lengths = (16,)
    with pytest.raises(ConfigError, match="a mixture's weights cannot be had together"):
        assemble(found)


def test_sampling_draws_by_weight_and_the_log_says_so(tmp_path):
    found = config()
    with found.unlocked():
        found.data.sampling = jaxlab.spec("jaxlab.data.sampling:balanced")
    experiment = assemble(found)
    batches = experiment.batches("train", training=True)
    labels = np.concatenate([batches[step]["label"] for step in range(12)])
    assert np.abs(np.bincount(labels) - 48).max() <= 1
    jaxlab.train(found, tmp_path / "run")
    rows = np.bincount(texts().__getitems__(np.arange(96))["label"])
    assert f"class few: {rows[0]} rows, 48.0 draws an epoch" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("arrays", "meta", "message"),
    [
        ({"label": np.full(96, 2)}, {}, "row 0 has the label 2; expected 0 to 1"),
        ({"tokens": np.full((96, 16), np.nan)}, {}, "field 'tokens' is NaN in row 0"),
        ({}, {"classes": ("few", "lots")}, "has other classes than config.data.train"),
    ],
)
def test_data_that_no_run_can_use_is_an_error_before_training(tmp_path, monkeypatch, arrays, meta, message):
    good, other = texts(), texts(seed=1)
    broken = ArraySource({**other.__getitems__(np.arange(len(other))), **arrays}, {**other.spec.meta, **meta})
    found = config()
    others = {"config.data.train": good, "config.data.valid": broken, "config.data.test": texts(seed=2)}
    monkeypatch.setattr("jaxlab.run.sources.build", lambda node, path: others[path])
    with pytest.raises(DataError, match=message):
        jaxlab.train(found, tmp_path / "run")
    assert not (tmp_path / "run").exists()
