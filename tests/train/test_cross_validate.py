"""A cross-validation holds each row out once, keeps groups and times apart, and ends the same if it was stopped."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from pathlib import Path

import folded
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, log_loss
from train_helpers import finish, saved_steps, start

from jaxlab.core import record
from jaxlab.core.config import spec
from jaxlab.core.errors import ConfigError, DataError, UsageError
from jaxlab.metrics.intervals import bootstrap, groups, of_sums
from jaxlab.run.cross_validate import RESULT, cross_validate
from jaxlab.run.evaluate import evaluate
from jaxlab.run.folds import cut
from jaxlab.run.store import read_arrays

pytestmark = pytest.mark.slow

LABELS = folded.wines().__getitems__(np.arange(folded.ROWS))["label"]


def held_and_train(folds):
    return [(fold.held.indices, fold.train.indices) for fold in folds]


def values(source, field):
    return source.__getitems__(np.arange(len(source)))[field]


@pytest.mark.parametrize("by", ["random", "stratified", "grouped"])
@pytest.mark.parametrize("count", [2, 5])
def test_the_held_out_rows_are_everything_exactly_once_and_the_rest_is_trained_on(by, count):
    _, folds = cut(folded.table(group=True), count, by, None)
    held = np.concatenate([held for held, _ in held_and_train(folds)])
    assert sorted(held.tolist()) == list(range(folded.ROWS))
    for held, train in held_and_train(folds):
        assert sorted([*held, *train]) == list(range(folded.ROWS))


def test_no_group_is_in_two_folds():
    group_N = values(folded.wines(group=True), "group")
    _, folds = cut(folded.table(group=True), 5, "grouped", None)
    for held, train in held_and_train(folds):
        assert not {*group_N[held]} & {*group_N[train]}


def test_each_class_has_its_share_of_each_fold_to_less_than_one_row():
    _, folds = cut(folded.table(), 5, "stratified", None)
    whole = Counter(LABELS.tolist())
    for held, _ in held_and_train(folds):
        counts = Counter(LABELS[held].tolist())
        assert all(abs(counts[label] - whole[label] / 5) < 1 for label in whole)


def test_by_time_each_fold_trains_on_earlier_rows_only():
    time_N = values(folded.wines(time=True), "time")
    _, folds = cut(folded.table(time=True), 4, "time", None)
    for held, train in held_and_train(folds):
        assert time_N[train].max() < time_N[held].min()
    sizes = [len(train) for _, train in held_and_train(folds)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("stratified", "label")),
        ({"time": True}, ("time", "time")),
        ({"group": True}, ("grouped", "group")),
        ({"time": True, "group": True}, ("grouped", "group")),
    ],
)
def test_auto_takes_the_kind_that_the_fields_ask_for(fields, expected):
    rule, _ = cut(folded.table(**fields), 3, "auto", None)
    assert (rule.by, rule.field) == expected


def test_auto_keeps_together_what_the_source_was_split_by():
    config = folded.table()
    whole = spec("folded:wines", group=True, time=True)
    config.data.train = spec("jaxlab.data.splits:part", source=whole, by="time", fractions=(("train", 0.8),))
    rule, folds = cut(config, 3, "auto", None)
    assert (rule.by, rule.field) == ("time", "time")
    assert max(held.max() for held, _ in held_and_train(folds)) > 150  # rows of the whole, not of the part


def test_random_folds_of_a_source_that_was_split_by_group_are_refused():
    config = folded.table()
    config.data.train = spec("jaxlab.data.splits:part", source=spec("folded:wines", group=True), by="grouped")
    with pytest.raises(DataError, match=r"fold 0 of 3: .*share .* groups of 'group'"):
        cut(config, 3, "random", None)


def test_folds_do_not_depend_on_the_runs_seed_and_leave_validation_and_test_out():
    first, second = folded.table(), folded.table()
    second.seed = 7
    (_, one), (_, other) = cut(first, 3, "auto", None), cut(second, 3, "auto", None)
    for ours, theirs in zip(one, other, strict=True):
        assert np.array_equal(ours.held.indices, theirs.held.indices)
        assert "test" not in ours.config.data
        assert ours.config.data.valid.factory == "jaxlab.data.splits:fold"
        assert (ours.config.seed, theirs.config.seed) == (0, 7)


def test_windows_are_cut_within_each_fold_by_time_and_no_row_is_in_two_parts():
    rule, folds = cut(folded.windows(), 3, "auto", None)
    assert (rule.by, rule.field) == ("time", "time")
    for fold in folds:
        assert fold.config.data.train.factory == fold.config.data.valid.factory == "jaxlab.data.windows:make"
        assert fold.train.indices.max() < fold.held.indices.min()
        assert len(fold.source) == len(fold.held) - 9


def test_windows_in_a_part_are_refused_as_they_overlap():
    config = folded.windows()
    config.data.train = spec("jaxlab.data.splits:part", source=config.data.train)
    with pytest.raises(DataError, match=r"share .* rows"):
        cut(config, 3, "random", None)


def test_synthetic_rows_are_made_of_training_rows_only_and_none_is_held_out():
    config = folded.table()
    config.data.train = spec("jaxlab.data.smote:make", source=spec("folded:wines"))
    _, folds = cut(config, 3, "auto", None)
    for fold in folds:
        assert fold.config.data.train.factory == "jaxlab.data.smote:make"
        assert fold.config.data.valid.factory == "jaxlab.data.splits:fold"
    assert sorted(np.concatenate([held for held, _ in held_and_train(folds)])) == list(range(folded.ROWS))


@pytest.mark.parametrize(
    ("count", "by", "field", "error", "message"),
    [
        (1, "auto", None, ConfigError, "--cv=1: expected two folds or more"),
        (3, "gruped", None, ConfigError, "--cv_by=gruped; did you mean 'grouped'"),
        (3, "auto", "label", ConfigError, "--cv_field=label: --cv_by=auto"),
        (3, "grouped", None, DataError, "--cv_by=grouped: config.data.train has no field 'group'"),
        (3, "grouped", "lable", DataError, "no field 'lable'; did you mean 'label'"),
        (4, "grouped", "label", DataError, "'label' has 3 groups; expected at least 4"),
        (3, "time", "label", DataError, "'label' has 3 different times; expected at least 4"),
        (49, "stratified", None, DataError, "the class 'c' has 48 rows"),
        (200, "random", None, DataError, "--cv=200: config.data.train has 178 rows"),
        (3, "stratified", "features", DataError, "13"),
    ],
)
def test_what_cannot_be_split_is_said_before_training_and_leaves_no_directory(
    tmp_path, count, by, field, error, message
):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        cross_validate(folded.table(), tmp_path / "cv", count, by, field)
    assert not (tmp_path / "cv").exists()


def test_a_fold_that_is_smaller_than_a_batch_is_named_before_training(tmp_path):
    config = folded.table(time=True)
    config.train.batch_size = 64
    with pytest.raises(ConfigError, match=r"fold 0 of 3: config\.train\.batch_size=64"):
        cross_validate(config, tmp_path / "cv", 3, "time")
    assert not (tmp_path / "cv").exists()


def test_a_config_that_cannot_be_trained_leaves_no_directory(tmp_path):
    config = folded.table()
    config.objective.inputs = ("image",)
    with pytest.raises(ConfigError, match="image"):
        cross_validate(config, tmp_path / "cv", 3)
    assert not (tmp_path / "cv").exists()


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """Return a finished cross-validation by group and its result."""
    folder = tmp_path_factory.mktemp("folds") / "cv"
    config = folded.table(group=True)
    config.metrics.auc = spec("jaxlab.metrics.scores:roc_auc")
    config.metrics.tuned = spec("jaxlab.metrics.thresholds:f1_tuned")
    return folder, config, cross_validate(config, folder, 3)


def pooled_table(result):
    _, step = Path(result["out_of_fold"]["predictions"]).stem.rsplit("-", 1)
    return read_arrays(Path(result["workdir"]), "out-of-fold", step)


def test_pooled_metrics_are_scikit_learns_on_each_original_row_once(grouped):
    folder, _, result = grouped
    stores = [read_arrays(folder / fold["run"], "valid", result["step"]) for fold in result["per_fold"]]
    together = {name: np.concatenate([store[name] for store in stores]) for name in ("target", "prediction", "logits")}
    metrics = result["out_of_fold"]["metrics"]
    accuracy = accuracy_score(together["target"], together["prediction"])
    assert metrics["out_of_fold/accuracy"] == pytest.approx(accuracy, abs=1e-12)
    logits = together["logits"].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert metrics["out_of_fold/cross_entropy"] == pytest.approx(log_loss(together["target"], shares), rel=1e-5)
    table = pooled_table(result)
    assert table["id"].tolist() == list(range(folded.ROWS))
    assert np.array_equal(table["target"], LABELS)
    assert {int(fold) for fold in table["fold"]} == {0, 1, 2}


def test_the_pooled_interval_draws_whole_groups(grouped):
    _, _, result = grouped
    table, group_N = pooled_table(result), values(folded.wines(group=True), "group")
    right_N = (table["prediction"] == table["target"]).astype(float)
    sums_NS = np.stack([right_N, np.ones_like(right_N)], axis=1)
    expected = bootstrap([of_sums(sums_NS, lambda sums_S: sums_S[0] / sums_S[1])], groups(group_N))[""]
    found = result["out_of_fold"]["intervals"]["out_of_fold/accuracy"]
    assert found["n"] == len(np.unique(group_N))
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_mean_spread_and_interval_over_folds_are_students(grouped):
    _, _, result = grouped
    accuracies = [fold["metrics"]["valid/accuracy"] for fold in result["per_fold"]]
    found = result["across_folds"]["valid/accuracy"]
    low, high = stats.t.interval(0.95, 2, np.mean(accuracies), stats.sem(accuracies))
    assert (found["mean"], found["standard_deviation"]) == pytest.approx(
        (np.mean(accuracies), np.std(accuracies, ddof=1))
    )
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_what_is_tuned_on_the_held_out_rows_is_left_out_and_said_so(grouped):
    _, _, result = grouped
    names = [*result["across_folds"], *result["out_of_fold"]["metrics"], *result["per_fold"][0]["metrics"]]
    assert "out_of_fold/auc" in names
    assert not [name for name in names if "/tuned" in name]
    assert any("left out: tuned" in note for note in result["notes"])


def test_a_fold_is_an_ordinary_run_measured_at_its_last_step_and_the_directory_may_move(grouped, tmp_path):
    folder, config, result = grouped
    assert result["step"] == config.train.steps
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    again = evaluate(moved / "fold-1", "valid", "latest")
    assert again["metrics"]["valid/accuracy"] == result["per_fold"][1]["metrics"]["valid/accuracy"]
    assert cross_validate(config, moved, 3) == {**result, "workdir": str(moved)}


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_done_it_says_so_and_changes_nothing(grouped, caplog):
    folder, config, result = grouped
    before = contents(folder)
    with caplog.at_level("INFO", "jaxlab"):
        assert cross_validate(config, folder, 3) == result
        assert cross_validate(config, folder, 3, "grouped") == result
    assert f"{folder} is finished" in caplog.text
    assert contents(folder) == before


def test_folds_that_are_done_are_not_repeated(grouped, tmp_path):
    folder, config, result = grouped
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / RESULT).unlink()
    before = {path: data for path, data in contents(copy).items() if "fold-" in str(path.relative_to(copy))}
    assert cross_validate(config, copy, 3) == {**result, "workdir": str(copy)}
    after = contents(copy)
    assert all(after[path] == data for path, data in before.items())


def changed_steps(config):
    config.train.steps = 25
    return config


@pytest.mark.parametrize(
    ("change", "count", "by", "message"),
    [
        (changed_steps, 3, "auto", r"config.train.steps: 24 there, 25 now"),
        (lambda config: config, 4, "auto", r"--cv: 3 there, 4 now"),
        (lambda config: config, 3, "random", r"--cv_by: 'grouped' there, 'random' now"),
    ],
)
def test_another_config_or_split_in_the_same_directory_is_refused_with_the_difference(
    grouped, change, count, by, message
):
    folder, config, _ = grouped
    before = contents(folder)
    with pytest.raises(UsageError, match=message):
        cross_validate(change(config.copy_and_resolve_references()), folder, count, by)
    assert contents(folder) == before


def test_a_directory_of_something_else_is_refused(grouped, tmp_path):
    folder, config, _ = grouped
    with pytest.raises(UsageError, match="holds no cross-validation"):
        cross_validate(config, folder / "fold-0", 3)


def test_data_that_have_changed_are_refused(grouped, tmp_path):
    folder, config, _ = grouped
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / RESULT).unlink()
    path = copy / "folds" / "fold-1.json"
    content = json.loads(path.read_text())
    content["base_fingerprint"] = "rows:other"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"fold-1\.json is of data with the fingerprint rows:other"):
        cross_validate(config, copy, 3)


def test_windows_are_pooled_by_their_first_row_with_blocks_of_time(tmp_path):
    config = folded.windows()
    config.train.update({"steps": 6, "eval_every": 6})
    result = cross_validate(config, tmp_path / "cv", 2)
    table = pooled_table(result)
    target_N = values(folded.series(), "target")
    assert np.allclose(table["target"][:, 0, 0], target_N[table["id"] + 8])
    assert len(np.unique(table["id"])) == len(table["id"]) == result["out_of_fold"]["n"] == 2 * (80 - 9)
    assert table["id"].min() == 80
    assert "blocks" in result["out_of_fold"]["intervals"]["out_of_fold/mae"]["method"]
    assert any("80 rows are never held out" in note for note in result["notes"])


def cross(folder, stop="none:0:0"):
    program = (
        f"import os, sys; os.environ[{folded.STOP!r}] = {stop!r}; import folded; sys.exit(folded.main(sys.argv[1]))"
    )
    code, _, errors = finish(start("-c", program, str(folder)))
    return code, errors


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "cv"
    code, errors = cross(folder)
    assert code == 0, errors
    return folder


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive)])
def test_stopped_in_a_fold_and_run_again_it_goes_on_there_and_ends_as_if_undisturbed(tmp_path, undisturbed, number):
    folder = tmp_path / "stopped"
    code, errors = cross(folder, f"fold-1:15:{int(number)}")
    assert code == (75 if number == signal.SIGTERM else -int(number)), errors
    assert record.read_json(folder / "fold-0" / record.SUMMARY)["status"] == "finished"
    last = max(saved_steps(folder / "fold-1"))
    assert 0 < last < 24
    assert not (folder / "fold-2").exists()
    assert not (folder / RESULT).exists()
    code, errors = cross(folder)
    assert code == 0, errors
    logs = [(folder / f"fold-{number}" / record.LOG).read_text() for number in range(3)]
    assert [log.count("starting at step 0") for log in logs] == [1, 1, 1]
    assert [log.count(f"resuming at step {last} of 24") for log in logs] == [0, 1, 0]
    assert "fold 1 of 3: 119 rows train, 59 are held out" in errors
    assert (folder / RESULT).read_bytes() == (undisturbed / RESULT).read_bytes()
