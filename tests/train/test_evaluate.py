"""An evaluation is scikit-learn's, whatever the batch size; the best checkpoint is what metrics.jsonl says."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import tiny
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss
from train_helpers import ROOT, command, finish, saved_steps

import jaxlab
from jaxlab.core import record
from jaxlab.core.errors import ConfigError, DataError, UsageError
from jaxlab.data import digits

SIZE = 360  # of the test split


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny.cnn()
    config.train.update({"steps": 40, "eval_every": 6, "checkpoint_every": 9, "best": "valid/accuracy", "keep": 2})
    config.train.best_mode = "max"
    return jaxlab.train(config, tmp_path_factory.mktemp("evaluated") / "run")


def store_of(run, result):
    return pd.read_parquet(run.workdir / result["predictions"])


@pytest.mark.parametrize("batch_size", [1, 7, 32, 359, 360, 1000])
def test_metrics_are_those_of_scikit_learn_on_the_store_for_any_batch_size(run, batch_size):
    if batch_size == 1:
        result, split, size = jaxlab.evaluate(run.workdir, "valid", batch_size=1), "valid", 180
    else:
        result, split, size = jaxlab.evaluate(run.workdir, "test", batch_size=batch_size), "test", SIZE
    store, metrics = store_of(run, result), result["metrics"]
    logits = np.stack(store["logits"]).astype(np.float64)
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    assert result["n"] == len(store) == size
    assert metrics[f"{split}/accuracy"] == pytest.approx(
        accuracy_score(store["target"], store["prediction"]), abs=1e-12
    )
    expected = log_loss(store["target"], scores, labels=range(10))
    assert metrics[f"{split}/cross_entropy"] == pytest.approx(expected, rel=1e-6)
    counted = confusion_matrix(store["target"], store["prediction"], labels=range(10))
    assert counted.trace() / size == pytest.approx(metrics[f"{split}/accuracy"], abs=1e-12)


def test_the_store_has_each_example_once_in_the_splits_order_and_with_its_own_target(run):
    store = store_of(run, jaxlab.evaluate(run.workdir, "test", batch_size=77))
    source = digits.make("test")
    assert store["id"].tolist() == list(range(len(source)))
    assert np.array_equal(store["target"], source.__getitems__(np.arange(len(source)))["label"])


def test_the_batch_size_changes_no_prediction(run):
    stores = [store_of(run, jaxlab.evaluate(run.workdir, "test", batch_size=size)) for size in (7, 1000)]
    assert stores[0]["prediction"].equals(stores[1]["prediction"])
    logits = [np.stack(store["logits"]) for store in stores]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def measured(run):
    """Return the validation accuracy by step."""
    rows = record.read_metrics(run.workdir)
    return {row["step"]: row["valid/accuracy"] for row in rows if "valid/accuracy" in row}


def test_best_is_the_checkpoint_of_the_best_row_and_latest_the_last(run, measured):
    assert list(measured) == [6, 12, 18, 24, 30, 36, 40]
    best = jaxlab.evaluate(run.workdir, "valid", "best")
    assert measured[best["step"]] == max(measured.values())
    assert best["metrics"]["valid/accuracy"] == pytest.approx(max(measured.values()), abs=1e-12)
    assert run.summary["best"] == {"metric": "valid/accuracy", "value": max(measured.values()), "step": best["step"]}
    assert jaxlab.evaluate(run.workdir, "valid", "latest")["step"] == 40
    number = jaxlab.evaluate(run.workdir, "valid", "36")
    assert number["metrics"]["valid/accuracy"] == pytest.approx(measured[36], abs=1e-12)


def test_the_last_checkpoints_and_the_best_stay(run):
    best = run.summary["best"]["step"]
    assert saved_steps(run.workdir) == sorted({best, 36, 40})


@pytest.mark.parametrize(("mode", "metric"), [("min", "cross_entropy"), ("max", "loss")])
def test_the_best_is_kept_from_early_on_and_named_the_same_by_summary_and_checkpoints(tmp_path, mode, metric):
    # the loss falls, so that its largest value is the first and must outlive all later checkpoints
    config = tiny.mlp()
    config.train.update({"steps": 30, "eval_every": 5, "best": f"valid/{metric}", "best_mode": mode, "keep": 1})
    run = jaxlab.train(config, tmp_path / "run")
    step = 5 if mode == "max" else 30
    assert run.summary["best"]["step"] == step
    assert saved_steps(run.workdir) == sorted({step, 30})
    assert run.evaluate("valid", "best")["step"] == step


def test_of_equally_good_checkpoints_summary_and_evaluation_name_the_same(tmp_path):
    config = tiny.mlp()
    config.optimizer = jaxlab.spec("optax:sgd", learning_rate=0.0)
    config.train.update({"steps": 30, "eval_every": 10, "keep": 5})
    run = jaxlab.train(config, tmp_path / "run")
    assert run.evaluate("valid", "best")["step"] == run.summary["best"]["step"]


def test_a_validation_that_gives_no_number_is_not_the_best_and_does_not_stop_the_run(tmp_path):
    config = tiny.mlp()
    config.metrics.score = jaxlab.spec("tiny:fickle_metric")
    config.train.update({"steps": 30, "eval_every": 10, "best": "valid/score", "keep": 5})
    run = jaxlab.train(config, tmp_path / "run")
    values = [row["valid/score"] for row in record.read_metrics(run.workdir) if "valid/score" in row]
    assert [str(value) for value in values] == ["nan", "1.0", "nan"]
    assert run.summary["best"] == {"metric": "valid/score", "value": 1.0, "step": 20}
    assert run.evaluate("train", "best")["step"] == 20


def test_what_is_not_there_is_refused(run):
    with pytest.raises(ConfigError, match="no such split"):
        jaxlab.evaluate(run.workdir, "tset")
    with pytest.raises(DataError, match="no such checkpoint"):
        jaxlab.evaluate(run.workdir, "test", "7")
    with pytest.raises(UsageError, match="expected best, latest or a number"):
        jaxlab.evaluate(run.workdir, "test", "newest")
    for batch_size in (-8, 0):
        with pytest.raises(ConfigError, match=f"--batch_size={batch_size}: expected a multiple of 1"):
            jaxlab.evaluate(run.workdir, "test", batch_size=batch_size)


@pytest.mark.slow
def test_the_command_prints_the_result_as_its_last_line(run):
    code, output, errors = finish(command("evaluate", f"--workdir={run.workdir}", "--split=test", "--step=latest"))
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["metrics"] == jaxlab.evaluate(run.workdir, "test", "latest")["metrics"]
    assert f"test/accuracy {result['metrics']['test/accuracy']:.4f}" in errors
    assert str(ROOT) not in result["predictions"]
