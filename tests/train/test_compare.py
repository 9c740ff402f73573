"""Evaluations carry intervals that their stored predictions give; two runs are compared, and on the same examples."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import jaxlab
from jaxlab.cli import main
from jaxlab.core import record
from jaxlab.core.config import spec
from jaxlab.core.errors import DataError
from jaxlab.core.types import Metric
from jaxlab.data.arrays import ArraySource
from jaxlab.data.pipeline import Batches
from jaxlab.run.compare import compare, print_comparison
from jaxlab.run.measured import check_same, measured
from jaxlab.run.program import note, programs
from jaxlab.run.seen_data import Order, check_order, first_different_step, hashes, order_hash, order_of
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
        ([short, str(tmp_path / "other"), "--split=test"], "did not see the same examples"),
    ]
    for arguments, message in cases:
        assert main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return runs that nobody has evaluated: one, its copy, another seed, and another learning rate and window."""
    folder = tmp_path_factory.mktemp("plain")
    changes = {
        "one": {},
        "seed": {"seed": 1},
        "rate": {"optimizer.learning_rate": 1e-2, "train.log_every": 3},
    }
    runs = {}
    for name, values in changes.items():
        config = tiny.mlp()
        config.train.update({"steps": 12, "log_every": 4, "eval_every": 6, "checkpoint_every": 12})
        config.update_from_flattened_dict(values)
        runs[name] = jaxlab.train(config, folder / name).workdir
    shutil.copytree(runs["one"], folder / "same")
    return runs | {"same": folder / "same"}


def test_runs_that_nobody_evaluated_are_compared_all_the_same(plain, capsys):
    result = compare(plain["one"], plain["same"])
    assert (result["inputs"], result["first_row"]) == ([], None)
    assert (result["data"]["first_step"], result["data"]["compared_steps"]) == (None, 12)
    assert [order["rows"] for order in result["data"]["orders"]] == [3, 3]
    assert all(found["first"] == found["second"] for found in result["final"].values())
    assert "differences" not in result
    assert "has no predictions of the split 'test'" in result["not_compared"]
    print_comparison(result)
    assert "examples: the same in the same order, in the first 12 steps" in capsys.readouterr().err
    with pytest.raises(DataError, match="has no predictions of the split 'valid'"):
        compare(plain["one"], plain["same"], split="valid")


def test_another_seed_is_named_with_the_first_step_of_other_data(plain):
    result = compare(plain["one"], plain["seed"])
    assert [(found["name"], found["first"], found["second"]) for found in result["inputs"]] == [("config.seed", 0, 1)]
    assert (result["data"]["first_step"], result["data"]["first_row"]) == (1, 4)
    assert result["first_row"]["step"] == 4


def test_other_learning_and_other_windows_see_the_same_data(plain):
    result = compare(plain["one"], plain["rate"])
    assert {found["name"] for found in result["inputs"]} == {"config.optimizer.learning_rate", "config.train.log_every"}
    assert (result["data"]["first_step"], result["data"]["first_row"]) == (None, None)
    assert [order["rows"] for order in result["data"]["orders"]] == [3, 4]
    assert result["first_row"]["step"] == 6  # the first step of which both have a row, that of the validation
    assert result["final"]["valid/loss"]["first"] != result["final"]["valid/loss"]["second"]


def test_a_run_that_saw_other_examples_than_its_config_says_is_found_out(plain, tmp_path):
    shutil.copytree(plain["one"], tmp_path / "odd")
    rows = [json.loads(line) for line in (plain["one"] / record.METRICS).read_text().splitlines()]
    changed = [row | {"data/ids": 1.0} if row["step"] == 8 and "data/ids" in row else row for row in rows]
    (tmp_path / "odd" / record.METRICS).write_text("".join(json.dumps(row) + "\n" for row in changed))
    data = compare(plain["one"], tmp_path / "odd")["data"]
    assert (data["first_step"], data["first_row"]) == (None, 8)
    assert [order["first_odd"] for order in data["orders"]] == [None, 8]


def test_data_that_are_gone_leave_the_rows_to_be_compared(plain, tmp_path):
    shutil.copytree(plain["seed"], tmp_path / "gone")
    config = record.read_config(tmp_path / "gone").unlock()
    config.data.train = spec("jaxlab.data.table_source:make", path=str(tmp_path / "gone.csv"), target="y")
    (tmp_path / "gone" / record.CONFIG).write_text(jaxlab.core.config.to_json(config))
    data = compare(plain["one"], tmp_path / "gone")["data"]
    assert str(tmp_path / "gone.csv") in data["why"]
    assert (data["first_step"], data["first_row"]) == (None, 4)


def batches(size=40, batch_size=8, seed=0, jumps=()):
    return Batches(ArraySource({"x": np.arange(size)}), (), batch_size, seed, training=True, jumps=jumps)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2), st.integers(0, 2), st.integers(20, 22), st.integers(0, 12), st.integers(1, 30))
def test_the_first_step_of_other_data_is_that_at_which_batches_differ(one, other, size, at, steps):
    pair = [Order(batches(22, 4, one), "s", None), Order(batches(size, 4, other, ((at, 3),)), "s", None)]
    rows = [[order.rows_at(step, 1).tolist() for step in range(steps)] for order in pair]
    expected = next((step + 1 for step in range(steps) if rows[0][step] != rows[1][step]), None)
    assert first_different_step(*pair, steps) == expected


def test_ids_of_parts_of_the_same_data_are_compared_by_the_rows_that_they_are():
    whole = Order(batches(), "data", None)
    assert first_different_step(whole, Order(batches(), "data", np.arange(40)), 9) is None
    assert first_different_step(whole, Order(batches(), "data", np.arange(40)[::-1]), 9) == 1
    assert first_different_step(whole, Order(batches(), "other data", None), 9) == 1
    assert first_different_step(whole, Order(batches(batch_size=4), "data", None), 9) == 1


def test_the_hash_of_an_order_is_that_of_the_compiled_step_and_tells_any_change(plain):
    order = order_of(plain["one"])
    assert [order_hash(order.batches, *span) for *span, _ in hashes(plain["one"])] == [
        known for *_, known in hashes(plain["one"])
    ]
    odd = dataclasses.replace(order.batches, jumps=((7, 1),))
    assert check_order(plain["one"], odd) == {"rows": 1, "checked": 2, "first_odd": 8}


def test_a_run_notes_the_program_of_its_step_and_compare_says_where_code_has_changed_it(plain, tmp_path):
    one, same = (programs(plain[name]) for name in ("one", "same"))
    assert one == same
    assert [program["step"] for program in one] == [0]
    other = tmp_path / "other"
    shutil.copytree(plain["one"], other)
    note(other, 6, "module @jit_other")
    note(other, 6, "module @jit_other")
    assert [program["step"] for program in programs(other)] == [0, 6]
    (found,) = compare(plain["one"], other)["inputs"]
    assert (found["kind"], found["name"]) == ("program", "the step's program")
