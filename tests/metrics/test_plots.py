"""The pictures show the given numbers: lines, counts and clouds are read back from the figures."""

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics

from jaxlab.core.types import Interval
from jaxlab.metrics import classify
from jaxlab.metrics.plots import classes, numbers, pictures, ranking, series, style, training, worst

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


def curve(figure, place):
    return figure.axes[0].lines[place].get_xydata()


def labels(figure):
    return [line.get_label() for line in figure.axes[0].lines]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_the_cells_of_a_confusion_matrix_show_scikit_learns_counts_target_down_prediction_across():
    generator = np.random.default_rng(0)
    target, prediction = generator.integers(0, 3, (2, 200))
    figure = classes.confusion_matrix(target, prediction, CLASSES)
    expected = metrics.confusion_matrix(target, prediction)
    assert np.array_equal(cells(figure), expected)
    axes = figure.axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("target", "prediction")
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    assert axes.get_title().startswith(f"accuracy {style.digits(np.trace(expected) / 200)} [")
    assert axes.get_title().endswith("n = 200")
    assert np.allclose(axes.images[0].get_array(), expected / expected.sum(1, keepdims=True))


@pytest.mark.parametrize(("target", "prediction"), [([], []), ([1], [2]), ([0, 0], [0, 0])])
def test_a_confusion_matrix_of_few_or_no_rows_is_drawn_all_the_same(tmp_path, target, prediction):
    figure = classes.confusion_matrix(np.array(target, int), np.array(prediction, int), CLASSES)
    assert cells(figure).sum() == len(target)
    style.save(figure, tmp_path / "matrix.png")


def test_many_classes_are_drawn_without_numbers_and_in_a_figure_of_bounded_size():
    names = tuple(map(str, range(200)))
    figure = classes.confusion_matrix(np.arange(200), np.arange(200), names)
    assert not figure.axes[0].texts
    assert max(figure.get_size_inches()) < 12


def test_the_points_of_a_reliability_diagram_weigh_up_to_the_calibration_error_that_the_metric_has():
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(300, 3)).astype(np.float32) * 2
    target, prediction = generator.integers(0, 3, 300), logits.argmax(1)
    figure = classes.reliability(logits, target, prediction)
    metric = classify.calibration_error()
    outputs = {"logits": logits, "target": target, "prediction": prediction}
    expected = metric.compute(metric.update(outputs, {"mask": np.ones(300)}))
    assert f"calibration error {expected:.4f}, n = 300" == figure.axes[0].get_title()
    confidence, share = figure.axes[0].lines[1].get_xydata().T
    above = figure.axes[1].patches[0].get_data().values  # shares of all examples by bin
    assert np.isclose(above.sum(), 1)
    assert np.isclose(np.abs(confidence - share) @ above[above > 0], expected, atol=1e-6)


def test_reliability_leaves_out_what_is_not_finite_and_says_so():
    logits = np.array([[np.nan, 1.0], [2.0, 0.0], [0.0, np.inf]])
    figure = classes.reliability(logits, np.zeros(3, int), np.zeros(3, int))
    assert "n = 1 of 3" in figure.axes[0].get_title()
    assert classes.reliability(logits[:1], np.zeros(1, int), np.zeros(1, int)) is None


def test_a_roc_curve_goes_through_scikit_learns_points_and_its_legend_has_the_area_and_delongs_interval():
    target, score = np.array([0, 0, 1, 1], bool), np.array([0.1, 0.4, 0.35, 0.8])
    figure = ranking.roc(target[:, None], score[:, None], ("ill",))
    across, up, _ = metrics.roc_curve(target, score, drop_intermediate=False)
    assert np.allclose(curve(figure, 1), np.stack([across, up], 1))
    assert labels(figure)[1].startswith("area 0.7500 [")
    assert figure.axes[0].get_title() == "ROC of ill, n = 4, 2 positive"


def test_a_precision_recall_curve_has_scikit_learns_points_average_precision_and_the_base_rate():
    generator = np.random.default_rng(0)
    target = generator.random(100) < 0.3
    score = np.round(generator.normal(size=100) + target, 1)
    figure = ranking.precision_recall(target[:, None], score[:, None], ("ill",))
    precision, recall, _ = metrics.precision_recall_curve(target, score)
    assert np.allclose(curve(figure, 1), np.stack([recall, precision], 1)[::-1])
    assert labels(figure)[1] == f"average precision {style.digits(metrics.average_precision_score(target, score))}"
    assert np.allclose(curve(figure, 0)[:, 1], target.mean())


def test_each_class_has_its_line_and_its_area_and_one_without_examples_a_dash():
    generator = np.random.default_rng(0)
    target = generator.integers(0, 2, 50)  # no owl
    score = generator.normal(size=(50, 3))
    figure = ranking.roc(target[:, None] == np.arange(3), score, CLASSES)
    areas = [metrics.roc_auc_score(target == place, score[:, place]) for place in range(2)]
    assert labels(figure)[1:] == [f"cat  {areas[0]:.4f}", f"dog  {areas[1]:.4f}", "owl  –"]
    assert not len(curve(figure, 3))
    assert f"mean {np.mean(areas):.4f}" in figure.axes[0].get_title()


def test_where_no_curve_is_defined_none_is_drawn():
    one, none = np.ones((5, 1), bool), np.zeros((5, 1), bool)
    score = np.arange(5.0)[:, None]
    assert ranking.roc(one, score, ("ill",)) is None
    assert ranking.roc(none, score, ("ill",)) is None
    assert ranking.precision_recall(none, score, ("ill",)) is None
    assert ranking.roc(one, score * np.nan, ("ill",)) is None
    assert ranking.score_histogram(np.full(3, np.nan), np.zeros(3, int), ("all",)) is None


def test_a_long_curve_is_thinned_to_what_is_seen_and_stays_where_it_was():
    generator = np.random.default_rng(0)
    target = generator.random(50_000) < 0.5
    score = generator.normal(size=50_000) + target
    drawn = curve(ranking.roc(target[:, None], score[:, None], ("ill",)), 1)
    across, up, _ = metrics.roc_curve(target, score)
    assert len(drawn) < 500
    assert np.abs(np.interp(across, *drawn.T) - up).max() < 0.01
    assert drawn[0].tolist() == [0, 0]
    assert drawn[-1].tolist() == [1, 1]


def test_histograms_of_scores_are_shares_of_each_kind_on_a_log_axis_where_scores_span_orders_of_magnitude():
    score = np.exp(np.random.default_rng(0).normal(size=500) * 3)
    kind = (np.arange(500) % 5 == 0).astype(int)
    figure = ranking.score_histogram(score, kind, ("normal", "anomalous"))
    for patch in figure.axes[0].patches:
        assert np.isclose(patch.get_data().values.sum(), 1)
        assert np.allclose(patch.get_data().edges[[0, -1]], [score.min(), score.max()])
    assert figure.axes[0].get_xscale() == "log"
    assert ranking.score_histogram(score - 50, kind, ("a", "b")).axes[0].get_xscale() == "linear"


def test_clouds_of_many_points_show_a_sample_the_same_each_time_and_say_so():
    target = np.random.default_rng(0).normal(size=200_000)
    figures = [numbers.predicted(target, 0.5 * target, "n") for _ in range(2)]
    first, second = (figure.axes[0].collections[0].get_offsets() for figure in figures)
    assert len(first) == 5000
    assert np.array_equal(first, second)
    assert figures[0].get_supxlabel() == "5,000 of 200,000 points, drawn at random"
    assert len(numbers.predicted(target[:90], target[:90], "n").axes[0].collections[0].get_offsets()) == 90


def test_the_diagonal_goes_where_predictions_are_right_and_both_axes_are_alike():
    axes = numbers.predicted(np.array([1.0, 9.0]), np.array([2.0, 4.0]), "n").axes[0]
    assert np.allclose(*axes.lines[0].get_xydata().T)
    assert axes.get_xlim() == axes.get_ylim()


def test_residuals_are_targets_minus_predictions_and_their_means_show_what_is_systematic():
    prediction = np.linspace(0, 10, 400)
    figure = numbers.residuals(prediction**2, prediction, "n")
    across, beside = figure.axes
    assert np.allclose(across.collections[0].get_offsets()[:, 1], prediction**2 - prediction)
    centre, mean = across.lines[1].get_xydata().T
    assert np.allclose(mean, centre**2 - centre, atol=0.2)
    assert np.isclose(beside.patches[0].get_data().values.sum(), 1)


def test_a_few_far_numbers_do_not_shrink_the_rest_and_are_told_of():
    target = np.random.default_rng(0).normal(size=1000)
    prediction = target.copy()
    prediction[:2] = 1e6
    for figure in (numbers.predicted(target, prediction, "n"), numbers.residuals(target, prediction, "n")):
        assert figure.axes[0].get_xlim()[1] < 100
        assert figure.get_supxlabel() == "2 far points lie beyond the axes"


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0], [0.0, 0.0], [1e30, -1e30]])
def test_numbers_that_are_few_equal_or_huge_are_drawn(tmp_path, values):
    values = np.array(values)
    style.save(numbers.predicted(values, values, "n"), tmp_path / "a.png")
    style.save(numbers.residuals(values, values, "n"), tmp_path / "b.png")


def test_forecasts_show_truth_forecast_band_and_the_past_before_it():
    target = np.arange(5.0)[:, None, None] + np.arange(4.0)[None, :, None]
    past = np.arange(5.0)[:, None, None] - np.arange(20.0, 0, -1)[None, :, None]
    band = (target - 1, target + 1, "80 %")
    figure = series.forecasts(np.arange(5) + 7, target, target + 0.5, band, past)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["window 7", "window 8", "window 9", "window 11"]
    shown = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    assert shown["truth"].tolist() == [[1, 0], [2, 1], [3, 2], [4, 3]]
    assert np.allclose(shown["forecast"][:, 1], [0.5, 1.5, 2.5, 3.5])
    assert shown["past"][-1].tolist() == [0, -1]
    assert len(shown["past"]) == 12  # three horizons
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"past", "80 %", "truth", "forecast"}


def test_errors_by_step_are_roots_of_means_and_means_over_what_is_there():
    error = np.array([[3.0, 1.0, np.nan], [4.0, np.nan, np.nan]])[:, :, None]
    root, absolute = (line.get_xydata() for line in series.error_by_step(error).axes[0].lines)
    assert np.allclose(root, [[1, np.sqrt(12.5)], [2, 1]])
    assert np.allclose(absolute, [[1, 3.5], [2, 1]])
    assert series.error_by_step(error * np.nan) is None


def test_the_worst_examples_are_those_of_the_highest_loss_by_name():
    logits = np.array([[5.0, 0, 0], [0, 5.0, 0], [np.nan, 0, 0], [0, 1.0, 0]])
    found = worst.of_classes(np.array([10, 11, 12, 13]), logits, np.array([1, 1, 1, 2]), logits.argmax(1), CLASSES)
    assert found["id"].tolist() == [10, 13, 11]
    assert found["target"].tolist() == ["dog", "owl", "dog"]
    assert found["prediction"].tolist() == ["cat", "dog", "dog"]
    chance = np.exp([5.0, 0, 0]) / np.exp([5.0, 0, 0]).sum()
    assert np.isclose(found["loss"].iloc[0], -np.log(chance[1]))
    assert np.isclose(found["confidence"].iloc[0], chance[0])


def test_the_worst_numbers_are_those_of_the_largest_mean_error_over_what_is_there():
    target = np.array([[1.0, np.nan], [1.0, 1.0], [np.nan, np.nan]])
    found = worst.of_numbers(np.array([5, 6, 7]), target, np.array([[3.0, 9.0], [1.0, 2.0], [0.0, 0.0]]))
    assert found["id"].tolist() == [5, 6]
    assert found["mean_absolute_error"].tolist() == [2.0, 0.5]


@pytest.mark.parametrize(
    "image",
    [
        np.full((3, 4, 5, 1), 7, np.uint8),
        np.random.default_rng(0).normal(size=(20, 4, 5, 3)),
        np.zeros((1, 4, 5, 2), np.float32),
        np.full((2, 4, 5, 3), np.nan, np.float32),
    ],
)
def test_pictures_of_any_range_and_channels_are_shown_up_to_sixteen(tmp_path, image):
    figure = pictures.grid(image, [f"picture {place}" for place in range(len(image))], "worst")
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == min(len(image), 16)
    assert all(one.min() >= 0 and one.max() <= 1 for one in shown)
    style.save(figure, tmp_path / "grid.png")


def test_attention_has_a_panel_a_head(tmp_path):
    weights = np.random.default_rng(0).random((3, 4, 6))
    figure = pictures.attention(weights, "example 0")
    heads = [axes for axes in figure.axes if axes.get_title().startswith("head")]
    assert np.array_equal([axes.images[0].get_array() for axes in heads], weights)
    style.save(figure, tmp_path / "attention.png")


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
    assert lines(training.learning_curve(history)) == {
        ("loss", "train"): [[10, 3.0], [20, 2.0], [30, 1.0]],
        ("loss", "valid"): [[20, 2.5], [40, 1.5]],
        ("top 5", "valid"): [[20, 0.5], [40, 0.75]],
    }


def test_values_that_are_not_finite_leave_a_gap_as_numbers_or_by_the_names_that_json_gives_them(tmp_path):
    history = pd.DataFrame({"train/loss": [2.0, np.nan, np.inf], "valid/loss": [1.0, "nan", "inf"]}, index=[1, 2, 3])
    figure = training.learning_curve(history)
    assert lines(figure) == {("loss", "train"): [[1, 2.0], [3, np.inf]], ("loss", "valid"): [[1, 1.0], [3, np.inf]]}
    style.save(figure, tmp_path / "curve.png")


def test_a_run_without_rows_gives_an_empty_panel():
    assert lines(training.learning_curve(pd.DataFrame())) == {}


def test_saved_files_are_png_and_svg_images_of_some_size_in_folders_that_are_made(tmp_path):
    figure = training.learning_curve(pd.DataFrame({"train/loss": [2.0, 1.0]}, index=[1, 2]))
    path, vector = style.save(figure, tmp_path / "deep" / "er" / "curve.png")
    assert (path.name, vector.name) == ("curve.png", "curve.svg")
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (585, 442)
        assert len(image.convert("L").getcolors()) > 10  # not blank
    text = vector.read_text()
    assert "<svg" in text
    assert "step</text>" in text  # text that can be searched
    assert "<dc:date>" not in text


@pytest.mark.parametrize("name", ["$a$ and $b$", "_hidden", "two\nlines", "x" * 200, "名前", "a^{b", "<&>"])
def test_names_of_any_signs_are_written_as_they_are_on_one_short_line(tmp_path, name):
    names = (name, "other", "third")
    matrix = classes.confusion_matrix(np.array([0, 1]), np.array([0, 0]), names)
    target = np.eye(3, dtype=bool).repeat(2, axis=0)
    curves = ranking.roc(target, target + 0.0, names)
    style.save(curves, tmp_path / "roc.png")
    assert matrix.axes[0].get_xticklabels()[0].get_text() == style.plain(name, 16)
    assert len(curves.legends[0].get_texts()) == 3
    assert len(style.plain(name)) <= 24


def test_numbers_are_told_with_four_digits_and_their_interval():
    assert style.told("RMSE", Interval(54.621, 48.9, 1234.56, 9, "")) == "RMSE 54.62 [48.90, 1235]"
    assert [style.digits(x) for x in (0.0, 1.0, 0.9290001, 123456.0)] == ["0.000", "1.000", "0.9290", "1.235e+05"]
