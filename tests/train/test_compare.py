"""Evaluations carry intervals that their stored predictions give; two runs are compared on the same examples."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
from scipy import stats

import jaxlab
from jaxlab.cli import main
from jaxlab.core.config import spec
from jaxlab.core.errors import DataError
from jaxlab.core.types import Metric
from jaxlab.run.compare import compare
from jaxlab.run.measured import check_same, measured
from jaxlab.run.store import read_arrays


def train(folder, steps, **metrics):
    config = tiny.cnn()
    config.train.update({"steps": steps, "eval_every": steps, "checkpoint_every": steps})
    config.metrics.f1 = spec("jaxlab.metrics.classify:precision_recall_f1")
    return jaxlab.train(config, folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    runs = train(folder / "short", 1), train(folder / "long", 60)
    for run in runs:
        run.evaluate("test")
    return runs


def test_a_share_has_wilsons_interval_and_all_else_the_bootstraps(runs):
    result = runs[0].evaluate("valid")
    found = result["intervals"]
    assert found["valid/accuracy"]["method"] == "Wilson"
    successes = round(result["metrics"]["valid/accuracy"] * result["n"])
    expected = stats.binomtest(successes, result["n"]).proportion_ci(method="wilson")
    assert found["valid/accuracy"]["low"] == pytest.approx(expected.low)
    for name in ("valid/cross_entropy", "valid/f1/precision", "valid/f1/recall", "valid/f1/f1"):
        assert found[name]["method"] == "bootstrap over examples"
        assert found[name]["low"] < result["metrics"][name] < found[name]["high"]


def test_the_interval_of_a_mean_is_that_of_normal_theory(runs):
    result = runs[1].evaluate("test")
    table = read_arrays(runs[1].workdir, "test", result["step"])
    logits = table["logits"].astype(np.float64)
    loss = np.log(np.exp(logits).sum(axis=1)) - np.take_along_axis(logits, table["target"][:, None], 1)[:, 0]
    found = result["intervals"]["test/cross_entropy"]
    half = 1.96 * loss.std() / np.sqrt(len(loss))
    assert found["point"] == pytest.approx(loss.mean(), rel=1e-5)
    assert (found["high"] - found["low"]) / 2 == pytest.approx(half, rel=0.1)


def test_a_metric_that_looks_across_rows_fails_the_evaluation_by_name():
    def update(outputs, batch):
        return {"sum": outputs["x"].max() * batch["mask"].sum(), "weight": batch["mask"].sum()}

    metric = Metric(update, lambda sums: float(sums["sum"] / sums["weight"]))
    table = {"id": np.arange(4), "x": np.arange(4.0, dtype=np.float32)}
    with pytest.raises(DataError, match=r"valid/peak was 3 when measured, and is 1\.5 .* depend on other rows"):
        check_same({"valid/peak": 3.0}, measured({"peak": metric}, {}, table, "valid").values)


def test_a_metric_of_what_is_not_stored_has_no_interval():
    metric = Metric(lambda outputs, batch: {"sum": batch["label"].sum()}, lambda sums: float(sums["sum"]))
    table = {"id": np.arange(4), "x": np.arange(4.0, dtype=np.float32)}
    assert measured({"sum": metric}, {}, table, "valid") == ({}, {}, {})


def test_a_split_without_rows_has_no_number_and_says_so():
    metric = Metric(lambda outputs, batch: {"sum": outputs["x"].sum()}, lambda sums: float(sums["sum"]))
    found = measured({"sum": metric}, {}, {"id": np.arange(0), "x": np.zeros((0, 2))}, "valid")
    assert found == ({}, {}, {"valid/sum": "there are no examples"})


def test_the_longer_run_is_better_beyond_doubt_and_the_tests_say_so_both_ways(runs):
    there, back = compare(runs[0].workdir, runs[1].workdir), compare(runs[1].workdir, runs[0].workdir)
    accuracy = there["differences"]["test/accuracy"]
    assert accuracy["low"] > 0
    assert accuracy["p"] < 0.01
    assert accuracy["mcnemar_p"] < 0.05
    for name, found in there["differences"].items():
        assert back["differences"][name]["difference"] == pytest.approx(-found["difference"])
        assert found["low"] <= found["difference"] <= found["high"]
    assert set(there["differences"]) >= {"test/cross_entropy", "test/f1/f1"}


def test_a_run_does_not_differ_from_itself(runs):
    for found in compare(runs[0].workdir, runs[0].workdir)["differences"].values():
        assert (found["difference"], found["low"], found["high"], found["p"]) == (0, 0, 0, 1)


def test_metrics_of_one_name_and_other_options_are_not_compared(runs, tmp_path):
    config = tiny.cnn()
    config.train.update({"steps": 1, "eval_every": 1, "checkpoint_every": 1})
    config.metrics.f1 = spec("jaxlab.metrics.classify:precision_recall_f1", average="micro")
    run = jaxlab.train(config, tmp_path / "micro")
    run.evaluate("test")
    assert set(compare(runs[0].workdir, run.workdir)["differences"]) == {"test/accuracy", "test/cross_entropy"}


def test_the_command_prints_each_difference_and_ends_in_json(runs, capsys):
    assert main(["compare", str(runs[0].workdir), str(runs[1].workdir)]) == 0
    printed = capsys.readouterr()
    assert "McNemar p=" in printed.err
    assert set(json.loads(printed.out)["differences"]) >= {"test/accuracy"}


def test_runs_that_cannot_be_compared_are_refused_with_the_reason(runs, tmp_path, capsys):
    short, long = (str(run.workdir) for run in runs)
    runs[1].evaluate("valid")
    other = tiny.cnn()
    other.train.update({"steps": 5, "eval_every": 5, "checkpoint_every": 5})
    other.data.test, other.data.valid = tiny.cnn().data.valid, tiny.cnn().data.test
    jaxlab.train(other, tmp_path / "other").evaluate("test")
    cases = [
        ([short, str(tmp_path / "none")], "holds no run"),
        ([short, long, "--split=train"], "has no predictions of the split 'train'"),
        ([short, str(tmp_path / "other")], "did not see the same examples"),
    ]
    for arguments, message in cases:
        assert main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err
