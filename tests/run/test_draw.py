"""What an evaluation draws, by the columns of its prediction store."""

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxlab.run import draw
from jaxlab.run.draw_kinds import drawings

GENERATOR = np.random.default_rng(0)
CURVES = {"roc", "precision_recall"}
CLASSES = {"confusion_matrix", "reliability", "worst"} | CURVES
NUMBERS = {"predicted", "residuals", "worst"}
TABLES = {"worst", "thresholds"}


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def of_classes(n, count, **more):
    target = (np.arange(n) % count).astype(np.int32)
    logits = GENERATOR.normal(size=(n, count)).astype(np.float32) + 2 * np.eye(count, dtype=np.float32)[target]
    prediction = logits.argmax(1).astype(np.int32)
    return {"id": np.arange(n), "logits": logits, "target": target, "prediction": prediction, **more}


def of_numbers(shape, **more):
    target = GENERATOR.normal(size=shape).astype(np.float32)
    prediction = target + GENERATOR.normal(size=shape).astype(np.float32)
    return {
        "id": np.arange(shape[0]), "target": target, "prediction": prediction,
        "target_weight": np.ones(shape, np.float32), **more,
    }  # fmt: skip


def of_scores(n, **more):
    return {"id": np.arange(n), "score": GENERATOR.normal(size=n).astype(np.float32), **more}


def facts(count):
    return {"classes": tuple(f"class {place}" for place in range(count))} if count else {}


def evaluation(folder, table, meta, examples=None):
    """Draw, check that every file is there and well formed, and return the kinds."""
    paths = draw.evaluation(folder, "test", 7, table, meta, examples)
    assert all(path.parent == folder / "plots" for path in paths)
    kinds = {path.name.removesuffix(f"-test-7{path.suffix}") for path in paths}
    suffixes = {kind: {p.suffix for p in paths if p.name.startswith(f"{kind}-test-7.")} for kind in kinds}
    assert suffixes == {kind: {".csv"} if kind in TABLES else {".png", ".svg"} for kind in kinds}
    for path in paths:
        assert path.stat().st_size < 300_000
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.verify()
    return kinds


def drawn(table, count, examples=None):
    """Return what is drawn by its kind, without writing it."""
    return {kind: found for kind, found in drawings(table, facts(count), examples) if found is not None}


LOGITS = GENERATOR.normal(size=(30, 3)).astype(np.float32)
LABELS = (LOGITS > 0).astype(np.float32)
HORIZON = (12, 4, 2)
CASES = {
    "two classes": (of_classes(40, 2), 2, CLASSES | {"thresholds"}),
    "three classes": (of_classes(40, 3), 3, CLASSES),
    "more classes than lines": (of_classes(90, 30), 30, CLASSES - CURVES),
    "more classes than cells": (of_classes(300, 250), 250, {"reliability", "worst"}),
    "classes without logits": ({k: v for k, v in of_classes(9, 3).items() if k != "logits"}, 3, {"confusion_matrix"}),
    "labels": ({"id": np.arange(30), "logits": LOGITS, "target": LABELS, "prediction": LABELS.astype(int)}, 0, CURVES),
    "a number": (of_numbers((30,)), 0, NUMBERS),
    "numbers of data with classes": (of_numbers((30,)), 3, NUMBERS),
    "three numbers": (of_numbers((30, 3)), 0, NUMBERS),
    "forecasts": (of_numbers(HORIZON), 0, NUMBERS | {"forecasts", "horizon"}),
    "forecasts of one step": (of_numbers((12, 1, 2)), 0, NUMBERS),
    "forecasts with quantiles": (
        of_numbers(HORIZON, quantiles=np.zeros((*HORIZON, 3), np.float32)), 0, NUMBERS | {"forecasts", "horizon"},
    ),
    "forecasts with a variance and a past": (
        of_numbers(HORIZON, mean=np.zeros(HORIZON), log_variance=np.full(HORIZON, 1e5), past=np.zeros((12, 9, 2))),
        0, NUMBERS | {"forecasts", "horizon"},
    ),
    "scores": (of_scores(30), 0, {"scores"}),
    "scores with labels": (of_scores(30, label=np.arange(30) % 2), 0, {"scores", "thresholds"} | CURVES),
    "scores of windows": (of_scores(30, label=np.eye(30)[:, :9]), 0, {"scores", "thresholds"} | CURVES),
    "attention": ({"id": np.arange(2), "attention": np.ones((2, 3, 4, 4), np.float32)}, 0, {"attention"}),
    "tokens": ({"id": np.arange(2), "target": np.ones((2, 5), int), "prediction": np.ones((2, 5), int)}, 0, set()),
    "nothing known": ({"id": np.arange(3), "embedding": np.ones((3, 8))}, 0, set()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_columns_decide_what_is_drawn(name):
    table, count, expected = CASES[name]
    assert set(drawn(table, count)) == expected


@pytest.mark.parametrize("name", ["three classes", "labels", "forecasts with a variance and a past", "attention"])
def test_each_picture_is_written_as_png_and_svg_and_each_table_as_csv(tmp_path, name):
    table, count, expected = CASES[name]
    assert evaluation(tmp_path, table, facts(count)) == expected


@pytest.mark.parametrize("name", CASES)
def test_an_empty_split_draws_nothing_and_one_example_does_not_fail(tmp_path, name):
    table, count, expected = CASES[name]
    assert draw.evaluation(tmp_path, "test", 7, {k: v[:0] for k, v in table.items()}, facts(count)) == []
    assert not (tmp_path / "plots").exists()
    assert set(drawn({k: v[:1] for k, v in table.items()}, count)) <= expected


@pytest.mark.parametrize("name", CASES)
def test_numbers_that_are_not_finite_do_not_fail(name):
    table, count, expected = CASES[name]
    broken = {k: np.full_like(v, np.nan) if v.dtype.kind == "f" else v for k, v in table.items()}
    assert set(drawn(broken, count)) <= expected
    partly = {k: v.copy() for k, v in table.items()}
    for column in partly.values():
        if column.dtype.kind == "f":
            column[0], column[1:2] = np.inf, -np.inf
    assert set(drawn(partly, count)) <= expected


@pytest.mark.parametrize("name", ["two classes", "forecasts with quantiles", "scores with labels"])
def test_files_of_numbers_that_are_partly_not_finite_are_written(tmp_path, name):
    table, count, expected = CASES[name]
    partly = {
        k: np.where(np.arange(v.size).reshape(v.shape) % 7 == 0, np.nan, v) if v.dtype.kind == "f" else v
        for k, v in table.items()
    }
    assert evaluation(tmp_path, partly, facts(count)) == expected


def test_one_class_has_no_roc_curve():
    table = of_classes(20, 2)
    table["target"][:] = 1
    assert set(drawn(table, 2)) == CLASSES - {"roc"} | {"thresholds"}
    table["target"][:] = 0
    assert set(drawn(table, 2)) == CLASSES - CURVES | {"thresholds"}


def test_targets_without_a_name_are_not_counted_as_another_class():
    table = of_classes(20, 3)
    table["target"][0] = -1
    assert drawn(table, 3) == {}


@pytest.mark.parametrize("name", ["two classes", "a number"])
def test_equal_evaluations_give_equal_files(tmp_path, name):
    table, count, _ = CASES[name]
    first, second = (draw.evaluation(tmp_path / run, "test", 7, table, facts(count)) for run in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_many_rows_give_small_files(tmp_path):
    assert evaluation(tmp_path / "numbers", of_numbers((100_000,)), {}) == NUMBERS
    assert evaluation(tmp_path / "classes", of_classes(100_000, 2), facts(2)) == CLASSES | {"thresholds"}


def test_the_threshold_table_counts_what_each_probability_decides():
    table = of_classes(40, 2)
    found = drawn(table, 2)["thresholds"]
    logits = table["logits"].astype(np.float64)
    probability = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    for row in found.itertuples():
        decided = probability >= row.threshold - 1e-12
        assert row.true_positives == (decided & (table["target"] == 1)).sum()
        assert row.false_positives == (decided & (table["target"] == 0)).sum()
    assert len(found) == 40


def test_the_worst_examples_come_with_their_images_and_texts(tmp_path):
    asked = []

    def examples(ids):
        asked.append(ids)
        return {"image": np.zeros((len(ids), 5, 5, 1), np.uint8), "note": np.array([f"note, {i}" for i in ids])}

    table = of_classes(80, 2, text=np.array([f"text\n{place}" for place in range(80)], object))
    assert evaluation(tmp_path, table, facts(2), examples) == CLASSES | {"thresholds", "worst_images"}
    found = pd.read_csv(tmp_path / "plots/worst-test-7.csv")
    assert list(found) == ["id", "target", "prediction", "confidence", "loss", "text", "note"]
    assert np.array_equal(asked, [found["id"]])
    assert found["text"].tolist() == [f"text\n{i}" for i in found["id"]]
    assert found["note"].tolist() == [f"note, {i}" for i in found["id"]]
    logits = table["logits"].astype(np.float64)
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(80), table["target"]]
    assert np.allclose(found["loss"], np.sort(loss)[::-1][:50])


def test_the_error_of_numbers_in_the_title_leaves_out_what_has_no_weight():
    table = of_numbers((50,))
    table["target_weight"][:10] = 0
    table["target"][:10] = 1e6
    title = drawn(table, 0)["predicted"].axes[0].get_title()
    error = np.sqrt(np.mean(np.square(table["target"][10:] - table["prediction"][10:], dtype=np.float64)))
    assert title.startswith(f"RMSE {error:#.4g} [")
    assert title.endswith("n = 40 of 50, the rest missing")
