"""``baseline``: its numbers are scikit-learn's, it never sees what it is judged by, and its verdict is right."""

import dataclasses
import json
import math
import signal
from collections import Counter

import numpy as np
import pytest
import small_tasks as tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.core.config import spec
from jaxlab.core.errors import ConfigError, DataError, UsageError
from jaxlab.run.assemble import assemble
from jaxlab.run.baseline import FILE, baseline, beside, print_baseline
from jaxlab.run.check import check
from jaxlab.run.ladder import climb, constants, estimators, series, tokens
from jaxlab.run.ladder.problem import UnfittedError, time_limit
from jaxlab.run.ladder.rows import Reader

pytestmark = pytest.mark.slow

ALL = {
    "classes": (tasks.classes, ["majority", "logistic regression", "gradient boosting"]),
    "labels": (tasks.labels, ["majority", "logistic regression", "gradient boosting"]),
    "numbers": (tasks.numbers, ["mean", "ridge regression", "gradient boosting"]),
    "windows": (tasks.windows, ["mean", "last value", "seasonal naive", "ridge regression", "gradient boosting"]),
    "ratings": (tasks.ratings, ["mean", "ridge regression"]),
    "texts": (tasks.texts, ["majority", "TF-IDF and logistic regression"]),
    "tokens": (tasks.tokens, ["popularity", "n-gram"]),
    "translation": (tasks.translation, ["popularity", "n-gram"]),
    "recommended": (tasks.recommended, ["popularity"]),
}


@pytest.fixture(scope="module")
def fitted():
    """Return a function from a task's name to its reader and problem, read once."""
    known = {}

    def get(name):
        if name not in known:
            reader = Reader(assemble(ALL[name][0]()))
            known[name] = reader, climb._problem(reader, seconds=300)
        return known[name]

    return get


def rungs_of(problem):
    return {name: fit for ladder in climb.LADDERS for name, fit in ladder(problem).items()}


def run_of(folder, config):
    """Make a directory of a run of `config`, without training."""
    record.open_run(folder, config, {})
    return folder


@pytest.mark.parametrize("name", ALL)
def test_each_kind_of_task_has_its_ladder_whose_predictions_have_the_shapes_of_the_results(name, fitted):
    reader, problem = fitted(name)
    rungs = rungs_of(problem)
    assert list(rungs) == ALL[name][1]
    for rung, fit in rungs.items():
        if rung == "gradient boosting" and name != "numbers":
            continue  # slow, and of the same code
        for column, values in fit().predict(problem.valid).items():
            assert values.shape == (len(problem.valid), *reader.shapes[column].shape[1:]), (rung, column)
            assert values.dtype == reader.shapes[column].dtype, (rung, column)


def test_the_numbers_are_those_of_scikit_learn_for_its_own_estimators():
    train, test = (tasks.cancer(split)._arrays for split in ("train", "test"))
    found = baseline(tasks.classes(), split="test")
    rungs = found["rungs"]
    with threadpool_limits(1):  # threads wait for each other on a busy machine
        boosting = HistGradientBoostingClassifier(random_state=0).fit(train["features"], train["label"])
    strength = float(rungs["logistic regression"]["about"].split("inverse penalty ")[1].split(",")[0])
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    linear.fit(train["features"], train["label"])
    for name, model in {"gradient boosting": boosting, "logistic regression": linear}.items():
        p_NC, metrics = model.predict_proba(test["features"]), rungs[name]["metrics"]
        assert metrics["test/accuracy"] == pytest.approx(accuracy_score(test["label"], p_NC.argmax(1)))
        assert metrics["test/cross_entropy"] == pytest.approx(log_loss(test["label"], p_NC), rel=1e-3)
        assert metrics["test/roc_auc"] == pytest.approx(roc_auc_score(test["label"], p_NC[:, 1]), abs=1e-4)
        low, high = (rungs[name]["intervals"]["test/accuracy"][bound] for bound in ("low", "high"))
        assert low <= metrics["test/accuracy"] <= high
    share = np.bincount(train["label"]) / len(train["label"])
    most = rungs["majority"]["metrics"]
    assert most["test/accuracy"] == pytest.approx(np.mean(test["label"] == share.argmax()))
    assert most["test/cross_entropy"] == pytest.approx(log_loss(test["label"], np.tile(share, (len(test["label"]), 1))))
    assert found["better"] == {"test/accuracy": "higher", "test/cross_entropy": "lower", "test/roc_auc": "higher"}
    assert found["left_out"] == []
    assert found["not_fitted"] == {}


def test_the_mean_has_the_rmse_that_variance_and_distance_of_the_means_give():
    train, valid = (tasks.sugar(split)._arrays["target"].astype(float) for split in ("train", "valid"))
    found = baseline(tasks.numbers())["rungs"]
    expected = math.sqrt(valid.var() + (valid.mean() - train.mean()) ** 2)
    assert found["mean"]["metrics"]["valid/rmse"] == pytest.approx(expected, rel=1e-5)
    assert found["ridge regression"]["metrics"]["valid/rmse"] < 0.9 * expected


def test_a_series_that_repeats_itself_is_foretold_without_error_by_its_season(fitted):
    _, problem = fitted("windows")
    found = rungs_of(problem)
    fit = found["seasonal naive"]()
    assert np.array_equal(fit.predict(problem.valid)["prediction"], problem.valid.answers["target"])
    assert fit.about.startswith("the last 7 rows")
    last = found["last value"]().predict(problem.valid)["prediction"]
    assert np.array_equal(last, np.repeat(problem.valid.inputs["past"][:, -1:, 1:], 5, axis=1))


def test_no_naive_forecast_is_made_where_the_past_does_not_hold_the_target():
    config = tasks.windows()
    for split in tasks.SPLITS:
        config.data[split].inputs = ("wind",)
    del config.metrics.mase
    problem = climb._problem(Reader(assemble(config)), seconds=300)
    assert series.rungs(problem) == {}


def test_numbers_that_are_too_many_for_boosting_are_said_to_be(fitted):
    _, problem = fitted("windows")
    many = {name: np.repeat(x, 2, axis=1) for name, x in problem.train.answers.items()}
    with pytest.raises(UnfittedError, match="10 numbers a row"):
        estimators.rungs(problem._replace(train=dataclasses.replace(problem.train, answers=many)))[
            "gradient boosting"
        ]()


def test_labels_of_the_split_that_is_judged_change_no_prediction():
    plain, shuffled = tasks.classes(), tasks.classes()
    shuffled.data.test.shuffled = True
    predictions = []
    for config in (plain, shuffled):
        reader = Reader(assemble(config))
        problem, test = climb._problem(reader, seconds=300), reader.read("test")
        rungs = rungs_of(problem)
        predictions.append(({name: fit().predict(test)["prediction"] for name, fit in rungs.items()}, test))
    (first, one), (second, other) = predictions
    assert not np.array_equal(one.answers["target"], other.answers["target"])
    for name, values in first.items():
        assert np.array_equal(values, second[name]), name


def test_ids_get_a_bias_each_under_an_objective_that_is_wrapped(fitted):
    _, problem = fitted("ratings")
    assert set(problem.train.inputs) == {"user", "item"}
    fit = rungs_of(problem)["ridge regression"]()
    alpha = float(fit.about.split("penalty ")[1].split(",")[0])
    train, valid = (tasks.tastes(split)._arrays for split in ("train", "valid"))
    x, y = (np.stack([part["item"], part["user"]], 1) for part in (train, valid))
    encoder = OneHotEncoder(handle_unknown="ignore").fit(x)
    oracle = Ridge(alpha=alpha).fit(encoder.transform(x), train["rating"]).predict(encoder.transform(y))
    np.testing.assert_allclose(fit.predict(problem.valid)["prediction"], oracle, atol=1e-3)
    assert np.sqrt(np.mean((oracle - valid["rating"]) ** 2)) < 0.2


def test_texts_are_read_as_they_were_before_the_tokens_and_a_dropped_answer_never(fitted):
    _, problem = fitted("texts")
    train, valid = (tasks.opinions(split).__getitems__(np.arange(150)) for split in ("train", "valid"))
    assert problem.train.texts == tuple(train["text"])
    fit = rungs_of(problem)["TF-IDF and logistic regression"]()
    strength = float(fit.about.split("inverse penalty ")[1].split(",")[0])
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    oracle = make_pipeline(words, LogisticRegression(C=strength, max_iter=1000)).fit(train["text"], train["label"])
    p_NC = np.exp(fit.predict(problem.valid)["logits"])
    np.testing.assert_allclose(p_NC, oracle.predict_proba(valid["text"]), atol=1e-5)


def test_the_objective_says_what_the_model_reads_and_what_is_compared(fitted):
    reader, problem = fitted("tokens")
    rows = tasks.chains("train")._arrays["tokens"]
    assert np.array_equal(problem.train.inputs["tokens"], rows)
    assert np.array_equal(problem.train.answers["target"][:, :-1], rows[:, 1:])
    assert problem.train.answers["token_weight"].sum() == rows[:, 1:].size
    assert np.array_equal(reader.read("test").fields["id"], np.arange(120))


def test_a_part_of_the_rows_is_the_same_for_one_seed_and_in_order(fitted):
    reader, problem = fitted("classes")
    some, again = reader.read("train", 50), reader.read("train", 50)
    assert len(some) == 50
    assert np.array_equal(some.fields["id"], again.fields["id"])
    assert (np.diff(some.fields["id"]) > 0).all()
    assert np.array_equal(some.inputs["features"], problem.train.inputs["features"][some.fields["id"]])


def test_what_little_time_leaves_out_is_said(fitted, monkeypatch):
    _, problem = fitted("classes")
    fit = estimators.rungs(problem._replace(seconds=0.02))["logistic regression"]()
    assert fit.rows == 200 < len(problem.train)
    found = climb.climb(assemble(tasks.classes()), "valid", seconds=0.02)
    assert "longer than 0.02 seconds" in " ".join(found["not_fitted"].values())
    assert {*found["rungs"], *found["not_fitted"]} == set(ALL["classes"][1])
    monkeypatch.setattr(estimators, "_TRIED", -1)
    assert (
        "inverse penalty 0.01, chosen on valid among 1 of 4" in estimators.rungs(problem)["logistic regression"]().about
    )


def work_for_ever():
    with time_limit(0.01):
        while True:
            pass


def test_the_alarm_ends_a_fit_and_leaves_the_alarm_of_others_as_it_was():
    handler, rung = signal.getsignal(signal.SIGALRM), []
    before = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
        signal.setitimer(signal.ITIMER_REAL, 1000)
        with pytest.raises(UnfittedError, match=r"longer than 0\.01 seconds"):
            work_for_ever()
        with time_limit(1000):
            pass
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        assert 0 < left <= 1000
        signal.raise_signal(signal.SIGALRM)
        assert rung == [1]
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *before)


# n-grams


def contexts_of(rows, longest):
    """Return the hashes of contexts, the targets and weights of rows of tokens, as the n-gram takes them."""
    rows = np.asarray(rows)
    answers = {"target": rows[:, 1:], "token_weight": np.ones(rows[:, 1:].shape, np.float32)}
    part = tokens.Rows({"tokens": rows[:, :-1]}, answers, {"id": np.arange(len(rows))})
    return tokens._flat(part, "tokens", longest)


def witten_bell(rows, longest, size):
    """Return the function to p(token | context), from the definition."""
    counts = [Counter() for _ in range(longest)]
    for row in rows:
        for place in range(1, len(row)):
            padded = (None,) * longest + tuple(row[:place])
            for length in range(longest):
                counts[length][padded[len(padded) - length :], row[place]] += 1

    def p(context, token):
        if context is None:
            return 1 / size
        shorter = p(context[1:] if context else None, token)
        after = {t: n for (c, t), n in counts[len(context)].items() if c == context}
        if not after:
            return shorter
        return (after.get(token, 0) + len(after) * shorter) / (sum(after.values()) + len(after))

    return p


ROWS = st.integers(2, 6).flatmap(
    lambda length: st.lists(st.lists(st.integers(0, 4), min_size=length, max_size=length), min_size=1, max_size=6)
)


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, st.integers(1, 4))
def test_ngrams_are_witten_and_bells_sum_to_one_and_name_the_likeliest(train, judged, longest):
    size = 6  # one token more than are ever seen
    orders = tokens.fit(*contexts_of(train, longest), size)
    contexts, target_n, _ = contexts_of(judged, longest)
    p_n, best_n = tokens.score(orders, contexts, target_n, size)
    p_nV = tokens.distribution(orders, contexts, size)
    np.testing.assert_allclose(p_nV.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(p_nV[np.arange(len(target_n)), target_n], p_n, atol=1e-6)
    np.testing.assert_allclose(p_nV[np.arange(len(target_n)), best_n], p_nV.max(axis=1), atol=1e-6)
    oracle = witten_bell(train, longest, size)
    padded = [(None,) * longest + tuple(row[:place]) for row in judged for place in range(1, len(row))]
    expected = [oracle(c[len(c) - longest + 1 :], t) for c, t in zip(padded, target_n.tolist(), strict=True)]
    np.testing.assert_allclose(p_n, expected, rtol=1e-9)


def test_ngrams_beat_popularity_which_beats_nothing_and_rankings_are_measured():
    found = baseline(tasks.tokens())
    popular, ngram = (found["rungs"][name]["metrics"] for name in ("popularity", "n-gram"))
    assert ngram["valid/cross_entropy"] < popular["valid/cross_entropy"]
    assert ngram["valid/cross_entropy"] < 0.9 * math.log(12)
    assert ngram["valid/token_accuracy"] > popular["valid/token_accuracy"]
    assert ngram["valid/mrr"] > popular["valid/mrr"]
    better = {name.split("/")[1]: value for name, value in found["better"].items()}
    assert better == {"cross_entropy": "lower", "token_accuracy": "higher", "mrr": "higher"}


def test_logits_that_are_written_out_are_the_loss_and_the_prediction(fitted):
    _, problem = fitted("tokens")
    assert problem.reads_logits
    for fit in tokens.rungs(problem).values():
        columns, there_NT = fit().predict(problem.valid), problem.valid.answers["token_weight"] > 0
        target_NT = problem.valid.answers["target"]
        picked_NT = np.take_along_axis(columns["logits"], target_NT[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(-picked_NT[there_NT], columns["token_loss"][there_NT], rtol=1e-4)
        best = np.take_along_axis(columns["logits"], columns["prediction"][..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(best[there_NT], columns["logits"].max(axis=-1)[there_NT], rtol=1e-5)


def test_the_history_is_the_input_that_holds_the_token_before_and_hidden_tokens_have_none(fitted):
    _, problem = fitted("tokens")
    assert tokens.find_history(problem.train) == "tokens"
    hidden = dataclasses.replace(problem.train, inputs={"tokens": np.zeros_like(problem.train.inputs["tokens"])})
    assert tokens.find_history(hidden) is None
    assert list(tokens.rungs(problem._replace(train=hidden))) == ["popularity"]


# recommenders


def test_popularity_is_ranked_by_counting_without_what_the_user_had(fitted):
    train, test = (tasks.likes(split)._arrays for split in ("train", "test"))
    count_V = np.bincount(train["item"], minlength=12)
    had = {user: set(train["item"][train["user"] == user].tolist()) for user in range(40)}
    ranks = [
        1 + sum(count_V[v] >= count_V[item] for v in range(12) if v != item and v not in had[user])
        for user, item in zip(test["user"].tolist(), test["item"].tolist(), strict=True)
    ]
    found = baseline(tasks.recommended(), split="test")
    metrics = found["rungs"]["popularity"]["metrics"]
    assert metrics["test/hit_rate_3"] == pytest.approx(np.mean(np.array(ranks) <= 3))
    assert metrics["test/mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))
    assert found["better"] == {"test/hit_rate_3": "higher", "test/mrr": "higher"}
    reader, problem = fitted("recommended")
    assert rungs_of(problem)["popularity"]().predict(reader.read("test"))["rank"].tolist() == ranks


def test_a_ranking_by_a_model_without_scores_of_all_items_is_an_error_before_training():
    config = tasks.recommended()
    config.model = ConfigDict({"factory": "small_tasks:Linear", "output": "score", "shape": ()})
    config.objective = spec("jaxlab.objectives.regress:make", inputs=("user",), target="item", output="score")
    with pytest.raises(ConfigError, match=r"config\.generate: config\.model is a small_tasks\.Linear.*method `scores`"):
        check(config)


# the command


def test_the_result_is_written_beside_the_run_by_split_and_counts_how_often_labels_were_read(tmp_path, capsys):
    config = tasks.ratings()
    folder = run_of(tmp_path / "run", config)
    first = baseline(config, folder, "valid")
    for _ in range(2):
        second = baseline(config, folder, "test")
    assert (first["reads"], second["reads"]) == (1, 2)
    written = json.loads((folder / FILE).read_text())
    assert set(written) == {"valid", "test"}
    assert written["test"]["rungs"]["mean"]["metrics"] == second["rungs"]["mean"]["metrics"]
    print_baseline({**second, "not_fitted": {"other": "of no reason"}, "left_out": ["pinball"]})
    printed = capsys.readouterr().err
    assert "test/rmse" in printed
    assert "other: not fitted: of no reason" in printed
    assert "pinball" in printed


def test_the_verdict_needs_the_whole_interval_on_the_better_side_of_the_best_baseline(tmp_path):
    assert beside(tmp_path, "valid", {"valid/rmse": 1.0}, {}) == []
    rungs = {
        name: {"metrics": {"valid/rmse": rmse, "valid/accuracy": accuracy}, "intervals": {}}
        for name, rmse, accuracy in (("low", 9.0, 0.5), ("high", 5.0, 0.8))
    }
    better = {"valid/rmse": "lower", "valid/accuracy": "higher"}
    record.write_json(tmp_path / FILE, {"valid": {"rungs": rungs, "better": better}})

    def said(metric, value, low, high):
        (line,) = beside(tmp_path, "valid", {metric: value}, {metric: {"low": low, "high": high}})
        assert "high" in line
        return not line.startswith("warning")

    assert said("valid/rmse", 4.0, 3.5, 4.9)
    assert not said("valid/rmse", 4.0, 3.5, 5.1)
    assert not said("valid/rmse", 8.0, 7.0, 8.5)
    assert said("valid/accuracy", 0.9, 0.81, 0.95)
    assert not said("valid/accuracy", 0.9, 0.79, 0.95)
    assert beside(tmp_path, "test", {"test/rmse": 1.0}, {}) == []
    assert beside(tmp_path, "valid", {"valid/rmse": math.nan, "valid/other": 1.0}, {}) == []


def test_the_direction_of_the_metric_that_chooses_checkpoints_is_the_configs():
    config = tasks.ratings()
    config.train.best, config.train.best_mode = "valid/rmse", "max"  # however odd
    assert baseline(config, split="test")["better"] == {"test/rmse": "higher"}


def test_metrics_that_read_what_baselines_lack_are_left_out_and_named():
    config = tasks.numbers()
    config.metrics.pinball = spec("jaxlab.metrics.regress:pinball")
    config.model.output, config.model.shape = "quantiles", (3,)
    config.objective = spec("jaxlab.objectives.regress:quantile", inputs=("features",))
    found = baseline(config)
    assert found["left_out"] == ["pinball"]
    assert set(found["better"]) == {"valid/rmse"}


def test_without_a_validation_split_a_tenth_of_training_chooses():
    config = tasks.classes()
    del config.data["valid"]
    problem = climb._problem(Reader(assemble(config, ("train", "test"))), seconds=300)
    whole = len(tasks.cancer("train"))
    assert (len(problem.valid), len(problem.train)) == (whole // 10, whole - whole // 10)
    assert not set(problem.valid.fields["id"]) & set(problem.train.fields["id"])


def test_classes_that_training_has_none_of_are_no_reason_to_fail(fitted):
    _, problem = fitted("classes")
    one = problem.train.take(np.flatnonzero(problem.train.answers["target"] == 1))
    with pytest.raises(UnfittedError, match="one class"):
        estimators.rungs(problem._replace(train=one))["logistic regression"]()
    columns = constants.rungs(problem._replace(train=one))["majority"]().predict(problem.valid)
    assert np.isfinite(columns["logits"]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"split": "tset"}, ConfigError, "did you mean 'test'"),
        ({"seconds": 0.0}, UsageError, "--seconds=0"),
        ({"workdir": "nothing"}, DataError, "no run"),
    ],
)
def test_wrong_usage_is_named(arguments, error, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said):
        baseline(tasks.ratings(), **arguments)


def test_a_run_of_other_data_is_refused_and_one_of_another_model_is_not(tmp_path):
    other = tasks.ratings()
    other.train.steps = 7
    other.objective.rules = ((".*", 0.5),)
    folder = run_of(tmp_path / "run", other)
    assert baseline(tasks.ratings(), folder)["workdir"] == str(folder)
    with pytest.raises(UsageError, match=r"other data: config\.data\..*sugar"):
        baseline(tasks.numbers(), folder)
    assert configs.diff(record.read_config(folder), other) == {}


def test_results_that_no_baseline_has_are_named():
    config = tasks.numbers()
    config.model = ConfigDict({"factory": "small_tasks:Linear", "output": "reconstruction", "shape": (10,)})
    config.objective = spec("jaxlab.objectives.reconstruct:make", inputs=("features",))
    config.metrics = ConfigDict()
    with pytest.raises(ConfigError, match="reconstruction, score"):
        baseline(config)
