"""Evaluations of several checkpoints, kinds of parameters and slices; metrics that do not add up; what is undefined."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from train_helpers import ROOT

import jaxlab
from jaxlab.cli import main
from jaxlab.core import record
from jaxlab.core.errors import ConfigError, DataError, UsageError
from jaxlab.core.types import Metric, TableMetric
from jaxlab.run.compare import compare
from jaxlab.run.evaluate import EVALUATION, evaluate_each, watch
from jaxlab.run.evaluator import open_evaluator
from jaxlab.run.measured import measured
from jaxlab.run.store import read_arrays
from jaxlab.run.units import Units, units_of

CLASSES = ("no", "yes")


def people(part="train", size=240):
    """Return rows of two classes with a group, a colour and an age; every part has its own."""
    place = ("train", "valid", "test").index(part)
    generator = np.random.default_rng(place)
    x = generator.normal(size=(size, 4)).astype(np.float32)
    label = (x[:, 0] + generator.normal(size=size) > 0).astype(np.int32)
    group = (np.arange(size) // 4 + 1000 * place).astype(np.int32)
    fields = {"features": x, "label": label, "group": group, "age": generator.integers(0, 90, size).astype(np.int32)}
    return jaxlab.ArraySource({**fields, "sex": (np.arange(size) % 2).astype(np.int32)}, {"classes": CLASSES})


def older(sums):
    return float(sums["sum"] / sums["weight"]) if sums["weight"] else float("nan")


def right_and_old() -> Metric:
    """Return a metric of the user's own that reads a field of the data."""

    def update(outputs, batch):
        old = (batch["age"] >= 60) * batch["mask"]
        return {"sum": ((outputs["prediction"] == outputs["target"]) * old).sum(), "weight": old.sum()}

    return Metric(update, older)


def two_classes():
    config = tiny.mlp()
    for part in ("train", "valid", "test"):
        config.data[part] = jaxlab.spec(people, part=part)
    config.data.transforms, config.data.augment = (), ()
    config.model = jaxlab.spec("jaxlab.models.mlp:make", hidden=(8,))
    config.objective = jaxlab.spec("jaxlab.objectives.classify:make", inputs=("features",))
    config.metrics.auc = jaxlab.spec("jaxlab.metrics.scores:roc_auc")
    config.metrics.ap = jaxlab.spec("jaxlab.metrics.scores:average_precision")
    config.metrics.f1 = jaxlab.spec("jaxlab.metrics.thresholds:f1_tuned")
    config.metrics.old = jaxlab.spec(right_and_old)
    config.train.update({"steps": 40, "eval_every": 20, "checkpoint_every": 10, "keep": 3, "batch_size": 32})
    config.train.ema = 0.9
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return jaxlab.train(two_classes(), tmp_path_factory.mktemp("parts") / "run")


def table_of(run, result):
    stem = result["predictions"].rpartition("/")[2].removesuffix(".parquet")
    return read_arrays(run.workdir, *stem.split("-", 1))


def positive(table):
    logits = table["logits"].astype(np.float64)
    return 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))


def test_metrics_of_the_whole_table_are_scikit_learns(run):
    result = jaxlab.evaluate(run.workdir, "test", plots=False)
    table, metrics = table_of(run, result), result["metrics"]
    assert metrics["test/auc"] == pytest.approx(roc_auc_score(table["target"], positive(table)), abs=1e-9)
    assert metrics["test/ap"] == pytest.approx(average_precision_score(table["target"], positive(table)), abs=1e-9)
    threshold = result["tuned"]["f1"]["threshold"]
    valid = table_of(run, jaxlab.evaluate(run.workdir, "valid", plots=False))
    candidates = positive(valid)
    best = max(f1_score(valid["target"], candidates >= t - 1e-12) for t in candidates)
    assert f1_score(valid["target"], candidates >= threshold - 1e-9) == pytest.approx(best)
    expected = f1_score(table["target"], positive(table) >= threshold - 1e-9)
    assert metrics["test/f1/f1"] == pytest.approx(expected, abs=1e-9)


def test_a_metric_of_a_field_is_stored_with_it_and_so_has_an_interval(run):
    result = jaxlab.evaluate(run.workdir, "test", plots=False)
    table = table_of(run, result)
    old = table["age"] >= 60
    expected = (table["prediction"] == table["target"])[old].mean()
    assert result["metrics"]["test/old"] == pytest.approx(expected)
    assert result["intervals"]["test/old"]["low"] < expected < result["intervals"]["test/old"]["high"]


def test_groups_come_and_go_together_and_no_formula_for_independent_examples_is_used(run):
    intervals = jaxlab.evaluate(run.workdir, "test", plots=False)["intervals"]
    assert {found["n"] for found in intervals.values()} == {60}
    assert all(found["method"].startswith("bootstrap over groups") for found in intervals.values())


def test_slices_are_the_metrics_of_their_rows_and_their_counts_add_up(run):
    result = jaxlab.evaluate(run.workdir, "test", by=("sex", "age", "label"), plots=False)
    table = table_of(run, result)
    sex = people("test").__getitems__(table["id"])["sex"]
    for value, part in result["by"]["sex"].items():
        rows = sex == int(value)
        assert part["n"] == rows.sum()
        right = table["prediction"][rows] == table["target"][rows]
        assert part["metrics"]["test/accuracy"] == pytest.approx(right.mean())
        assert part["metrics"]["test/auc"] == pytest.approx(roc_auc_score(table["target"][rows], positive(table)[rows]))
    assert [name.split(":")[0] for name in result["by"]["age"]] == ["1", "2", "3", "4"]
    for slices in result["by"].values():
        assert sum(part["n"] for part in slices.values()) == result["n"]


def test_what_a_slice_of_one_class_lacks_is_undefined_with_the_reason_and_no_number(run):
    result = jaxlab.evaluate(run.workdir, "test", by=("label",), plots=False)
    for name in CLASSES:
        part = result["by"]["label"][name]
        assert "test/auc" not in part["metrics"]
        assert "undefined" in part["undefined"]["test/auc"] or "class" in part["undefined"]["test/auc"]
    assert "nan" not in json.dumps(record.read_json(run.workdir / EVALUATION)).lower()


def test_kinds_of_parameters_stand_side_by_side_and_are_what_they_say(run):
    raw, ema, average = evaluate_each(
        run.workdir, "valid", ("latest",), parameters=("raw", "ema", "average"), plots=False
    )
    assert [found["parameters"] for found in (raw, ema, average)] == ["raw", "ema", "average"]
    assert len({found["predictions"] for found in (raw, ema, average)}) == 3
    evaluator = open_evaluator(run.workdir, ("valid",))
    with evaluator.checkpoints() as checkpoints:
        steps = checkpoints.steps()
        states = {step: evaluator.restore(checkpoints, step, "")[0] for step in steps}
        state, _ = evaluator.restore(checkpoints, steps[-1], "raw")
        mean, _ = evaluator.restore(checkpoints, steps[-1], "average")
    jax.tree.map(np.testing.assert_array_equal, state.ema, state.params)
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *(found.ema for found in states.values()))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), mean.ema, expected)
    plain = jaxlab.evaluate(run.workdir, "valid", "latest", plots=False)
    assert plain["metrics"] == ema["metrics"]
    assert plain["metrics"]["valid/loss"] != raw["metrics"]["valid/loss"]


def test_several_steps_are_measured_in_one_go_as_each_alone(run):
    found = evaluate_each(run.workdir, "valid", ("all",), plots=False)
    assert [result["step"] for result in found] == sorted(result["step"] for result in found)
    assert len(found) >= 3
    for result in found:
        alone = jaxlab.evaluate(run.workdir, "valid", str(result["step"]), plots=False)
        assert alone["metrics"] == result["metrics"]


def test_watching_a_finished_run_measures_every_checkpoint_once(run):
    steps = [result["step"] for result in watch(run.workdir, "valid", plots=False, wait=0.01)]
    assert steps == [result["step"] for result in evaluate_each(run.workdir, "valid", ("all",), plots=False)]


@pytest.mark.slow
def test_another_process_follows_a_run_to_its_end(tmp_path):
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; import jaxlab, test_evaluate_parts as parts;"
        "config = parts.two_classes(); config.train.update({'steps': 600, 'eval_every': 200, 'keep': 9});"
        "config.train.checkpoint_every = 200;"
        "jaxlab.train(config, sys.argv[1])"
    )
    paths = [str(ROOT / "tests" / "train")]
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "run"), *paths])
    try:
        while not (tmp_path / "run" / record.CONFIG).exists():
            assert child.poll() is None
        steps = [result["step"] for result in watch(tmp_path / "run", "valid", plots=False, wait=0.1)]
    finally:
        child.kill()
        child.wait()
    assert {200, 400, 600} <= set(steps)
    assert steps == sorted(steps)


def test_two_runs_differ_in_tables_too_by_whole_groups(run, tmp_path):
    config = two_classes()
    config.train.update({"steps": 1, "eval_every": 1, "checkpoint_every": 1})
    short = jaxlab.train(config, tmp_path / "short")
    for one in (run, short):
        jaxlab.evaluate(one.workdir, "test", plots=False)
    found = compare(short.workdir, run.workdir)["differences"]
    assert found["test/auc"]["n"] == found["test/accuracy"]["n"] == 60
    assert found["test/auc"]["difference"] == pytest.approx(found["test/auc"]["second"] - found["test/auc"]["first"])
    assert "mcnemar_p" not in found["test/accuracy"]


def test_a_series_is_drawn_by_blocks_in_the_order_of_time():
    source = jaxlab.ArraySource({"x": np.zeros(40, np.float32), "time": np.arange(40)[::-1].astype(np.int32)}, {})
    units = units_of(source, np.arange(40))
    assert units.times.tolist() == list(range(39, -1, -1))
    remembered = np.cumsum(np.random.default_rng(0).normal(size=40))
    mean = Metric(
        lambda outputs, batch: {"sum": (outputs["x"] * batch["mask"]).sum(), "weight": batch["mask"].sum()},
        lambda sums: float(sums["sum"] / sums["weight"]),
    )
    forward = {"id": np.arange(40), "x": remembered.astype(np.float32)}
    backward = {"id": np.arange(40), "x": remembered[::-1].astype(np.float32)}
    one = measured({"x": mean}, {}, forward, "test", Units(times=np.arange(40)))
    other = measured({"x": mean}, {}, backward, "test", units)
    assert one.intervals["test/x"].method.startswith("bootstrap over blocks of")
    assert one.intervals["test/x"][:3] == pytest.approx(other.intervals["test/x"][:3], rel=1e-5)


def test_a_formula_for_the_interval_is_used_where_examples_are_independent():
    table = {"id": np.arange(50), "y": np.random.default_rng(0).normal(size=50)}
    half = stats.sem(table["y"])
    metric = TableMetric(
        ("y",),
        lambda table, tuned: lambda weights: float(weights @ table["y"] / weights.sum()),
        interval=lambda table: jaxlab.core.types.Interval(0.0, -half, half, 50, "formula"),
    )
    alone = measured({}, {"m": metric}, table, "test").intervals["test/m"]
    grouped = measured({}, {"m": metric}, table, "test", Units(groups=np.arange(50) // 5)).intervals["test/m"]
    assert (alone.method, grouped.method) == ("formula", "bootstrap over groups")


def test_wrong_requests_are_refused_with_the_nearest_valid_name(run, capsys):
    with pytest.raises(UsageError, match=r"--parameters=emaa: .* did you mean 'ema'"):
        jaxlab.evaluate(run.workdir, "valid", parameters="emaa")
    with pytest.raises(DataError, match=r"--by=sexx: .* did you mean 'sex'"):
        jaxlab.evaluate(run.workdir, "valid", by=("sexx",))
    with pytest.raises(DataError, match=r"--by=features: it has \(4,\) values a row"):
        jaxlab.evaluate(run.workdir, "valid", by=("features",))
    assert main(["evaluate", f"--workdir={run.workdir}", "--watch", "--step=best"]) == 2
    assert "goes without it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("jaxlab.metrics.anomaly:roc_auc", "config.metrics.wrong reads 'score'"),
        ("jaxlab.metrics.regress:rmse", "config.metrics.wrong reads 'target_weight'"),
        ("jaxlab.optim.chain:make", "config.metrics.wrong: its factory makes a"),
    ],
)
def test_a_metric_of_another_task_is_refused_before_training_and_leaves_no_directory(tmp_path, factory, message):
    config = two_classes()
    options = {"transforms": ()} if factory.endswith("chain:make") else {}
    config.metrics.wrong = jaxlab.spec(factory, **options)
    with pytest.raises(ConfigError, match=message):
        jaxlab.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_best_checkpoint_cannot_be_chosen_by_what_training_does_not_compute(tmp_path):
    config = two_classes()
    config.train.best = "valid/auc"
    with pytest.raises(ConfigError, match="auc is computed by evaluate alone"):
        jaxlab.train(config, tmp_path / "run")


def test_the_command_prints_a_table_a_slice_and_one_json_line(run, capsys):
    assert (
        main(
            ["evaluate", f"--workdir={run.workdir}", "--split=valid", "--by=sex", "--parameters=raw,ema", "--no_plots"]
        )
        == 0
    )
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith(("sex ", "0 ", "1 "))]
    assert len(lines) == 6
    assert [found["parameters"] for found in json.loads(printed.out)["evaluations"]] == ["raw", "ema"]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, pytest.param(8, marks=pytest.mark.exhaustive)])
def test_every_metric_is_the_same_on_any_number_of_devices(run, devices):
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); import json, jax, jaxlab, test_evaluate_parts;"
        "found = jaxlab.evaluate(sys.argv[1], 'test', 'latest', plots=False);"
        "print(json.dumps([len(jax.devices()), found['metrics'], found['intervals']]))"
    )
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "NPROC": str(2 * devices),  # else queued collectives of virtual devices may deadlock on jax 0.10
    }
    arguments = [sys.executable, "-c", program, str(run.workdir), str(ROOT / "tests" / "train")]
    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=200, check=True)
    count, metrics, intervals = json.loads(ended.stdout.splitlines()[-1])
    alone = jaxlab.evaluate(run.workdir, "test", "latest", plots=False)
    assert count == devices
    assert metrics == pytest.approx(alone["metrics"], abs=1e-6)
    for name, found in intervals.items():
        assert found["low"] == pytest.approx(alone["intervals"][name]["low"], abs=1e-6)
