"""The pictures show the given numbers: lines and counts are read back from the figures."""

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from jaxlab.metrics import plots

CLASSES = ("cat", "dog", "owl")


def cells(figure):
    """Return the counts that stand in the cells, and 0 where none does."""
    counts = np.zeros((len(CLASSES), len(CLASSES)), int)
    for text in figure.axes[0].texts:
        column, row = text.get_position()
        counts[row, column] = int(text.get_text())
    return counts


def lines(figure):
    return {
        (axes.get_title(), line.get_label()): line.get_xydata().tolist() for axes in figure.axes for line in axes.lines
    }


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_the_cells_of_a_confusion_matrix_show_scikit_learns_counts_target_down_prediction_across():
    generator = np.random.default_rng(0)
    target, prediction = generator.integers(0, 3, (2, 200))
    figure = plots.confusion_matrix(target, prediction, CLASSES)
    expected = confusion_matrix(target, prediction)
    assert np.array_equal(cells(figure), expected)
    axes = figure.axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("target", "prediction")
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    assert axes.get_title() == f"accuracy {np.trace(expected) / 200:.4f}"
    assert np.allclose(axes.images[0].get_array(), expected / expected.sum(1, keepdims=True))


@pytest.mark.parametrize(("target", "prediction"), [([], []), ([1], [2]), ([0, 0], [0, 0])])
def test_a_confusion_matrix_of_few_or_no_rows_is_drawn_all_the_same(tmp_path, target, prediction):
    figure = plots.confusion_matrix(np.array(target, int), np.array(prediction, int), CLASSES)
    assert cells(figure).sum() == len(target)
    plots.save(figure, tmp_path / "matrix.png")


def test_many_classes_are_drawn_without_numbers():
    classes = tuple(map(str, range(30)))
    assert not plots.confusion_matrix(np.arange(30), np.arange(30), classes).axes[0].texts


def test_a_learning_curve_has_a_panel_a_metric_and_a_line_a_split_through_the_given_numbers():
    history = pd.DataFrame(
        {
            "train/loss": [3.0, 2.0, 1.0, None],
            "valid/loss": [None, 2.5, None, 1.5],
            "valid/top_5": [None, 0.5, None, 0.75],
            "train/grad_norm": [9.0, 9.0, 9.0, None],
            "wall": [1.0, 2.0, 3.0, 4.0],
        },
        index=[10, 20, 30, 40],
    )
    assert lines(plots.learning_curve(history)) == {
        ("loss", "train"): [[10, 3.0], [20, 2.0], [30, 1.0]],
        ("loss", "valid"): [[20, 2.5], [40, 1.5]],
        ("top 5", "valid"): [[20, 0.5], [40, 0.75]],
    }


def test_values_that_are_not_finite_leave_a_gap_as_numbers_or_by_the_names_that_json_gives_them(tmp_path):
    history = pd.DataFrame({"train/loss": [2.0, np.nan, np.inf], "valid/loss": [1.0, "nan", "inf"]}, index=[1, 2, 3])
    figure = plots.learning_curve(history)
    assert lines(figure) == {("loss", "train"): [[1, 2.0], [3, np.inf]], ("loss", "valid"): [[1, 1.0], [3, np.inf]]}
    plots.save(figure, tmp_path / "curve.png")


def test_a_run_without_rows_gives_an_empty_panel():
    assert lines(plots.learning_curve(pd.DataFrame())) == {}


def test_saved_files_are_png_images_of_some_size_in_folders_that_are_made(tmp_path):
    figure = plots.learning_curve(pd.DataFrame({"train/loss": [2.0, 1.0]}, index=[1, 2]))
    path = plots.save(figure, tmp_path / "deep" / "er" / "curve.png")
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (585, 442)
        assert len(image.convert("L").getcolors()) > 10  # not blank
