"""Rungs by scikit-learn's own estimators: linear models and gradient boosting on numbers, ids and pixels, or on texts.

An input of one whole number a row is an id, such as a user's, and gets a place for each value: a linear model then has
a bias for each user. Pictures keep the proportions of their pixels; other numbers are standardised one by one. Where
some of a row's numbers to predict are missing, they are fitted as their mean.
Shape letters: N rows, D features, C classes, labels or numbers to predict. Usage: ``fits = rungs(problem)``.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from jaxlab.run.ladder.constants import mean_of
from jaxlab.run.ladder.problem import (
    CLASSES,
    LABELS,
    NUMBERS,
    RANKS,
    TOKENS,
    Columns,
    Fit,
    Fitted,
    Problem,
    UnfittedError,
    classified,
    cost,
    labelled,
)  # fmt: skip
from jaxlab.run.ladder.rows import Rows, drawn

STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # inverse penalties of logistic regressions, of which validation chooses
TEXT_STRENGTHS = (0.3, 1.0, 3.0, 10.0)
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)  # of ridge regressions
_ITERATIONS = 1000
_PER_SECOND = 300_000  # features times classes of all rows that are fitted, a second that the rung may take
_TEXTS_PER_SECOND = 300
_TRIED = 0.3  # share of the time after which no other penalty is tried; weaker ones, which take longer, come later
_SHARED = 10_000_000  # features of all rows from which on several threads are worth their waiting for each other
_MOST_BOOSTED = 8  # numbers a row: boosting fits each of them alone

Candidates = Mapping[str, Any]
"""Estimators that validation is to choose from, by what tells them apart."""

Inputs = Callable[[Rows], Any]
"""From rows to what an estimator is fitted on and predicts from."""


def rungs(problem: Problem) -> Mapping[str, Fit]:
    """Return the rungs for texts where the model reads tokens of some, else those for numbers."""
    if problem.kind in (TOKENS, RANKS):
        return {}
    linear = "ridge regression" if problem.kind == NUMBERS else "logistic regression"
    if problem.train.texts:
        return {f"TF-IDF and {linear}": lambda: _words(problem, linear)}
    boosting = {"gradient boosting": lambda: _boosted(problem)}
    only_ids = all(_is_id(x) for x in problem.train.inputs.values())
    return {linear: lambda: _linear(problem, linear), **({} if only_ids else boosting)}


def _words(problem: Problem, name: str) -> Fitted:
    found = {
        told: make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), estimator)
        for told, estimator in _linear_models(problem, TEXT_STRENGTHS).items()
    }
    most = int(problem.seconds * _TEXTS_PER_SECOND)
    return _fitted(problem, found, lambda rows: rows.texts, most, f"{name} on TF-IDF of words and pairs of words")


def _linear(problem: Problem, name: str) -> Fitted:
    scale = ColumnTransformer(list(_scalers(problem.train)))
    found = {told: make_pipeline(scale, model) for told, model in _linear_models(problem, STRENGTHS).items()}
    return _fitted(problem, found, _matrix, _most(problem), f"{name} on the model's inputs")


def _boosted(problem: Problem) -> Fitted:
    outputs = math.prod(problem.train.answers["target"].shape[1:])
    if problem.kind != CLASSES and outputs > _MOST_BOOSTED:
        raise UnfittedError(f"there are {outputs} numbers a row to predict; it is tried on at most {_MOST_BOOSTED}")
    classifier = HistGradientBoostingClassifier(random_state=problem.seed)
    regressor = HistGradientBoostingRegressor(random_state=problem.seed)
    estimator = {
        CLASSES: classifier,
        LABELS: OneVsRestClassifier(classifier),
        NUMBERS: regressor if outputs == 1 else MultiOutputRegressor(regressor),
    }[problem.kind]
    about = "histogram gradient boosting on the model's inputs, with scikit-learn's defaults"
    return _fitted(problem, {"": estimator}, _matrix, _most(problem), about)


def _linear_models(problem: Problem, strengths: tuple[float, ...]) -> Candidates:
    """Return the linear models of the problem's kind, by their penalty."""
    if problem.kind == NUMBERS:
        return {f"penalty {alpha:g}": Ridge(alpha=alpha) for alpha in PENALTIES}
    models = {f"inverse penalty {c:g}": LogisticRegression(C=c, max_iter=_ITERATIONS) for c in strengths}
    several = problem.kind == LABELS
    return {told: OneVsRestClassifier(model) if several else model for told, model in models.items()}


def _fitted(problem: Problem, candidates: Candidates, inputs: Inputs, most: int, about: str) -> Fitted:
    """Fit each candidate on at most `most` rows of training and keep the one that validation prefers."""
    rows = _with_target(problem.train)
    rows = rows.take(drawn(len(rows), most, problem.seed)) if len(rows) > most else rows
    x, y = inputs(rows), _targets(problem, rows)
    if problem.kind == CLASSES and len(np.unique(y)) == 1:
        raise UnfittedError("all rows of training are of one class")

    def predictor(estimator: Any) -> Callable[[Rows], Columns]:
        return lambda rows: _columns(problem, estimator, inputs(rows), len(rows))

    began, unfinished, predictors = time.monotonic(), set[str](), {}
    for told, estimator in candidates.items():
        if predictors and time.monotonic() - began > _TRIED * problem.seconds:
            break
        with warnings.catch_warnings(record=True) as caught, threadpool_limits(_threads(x)):
            warnings.simplefilter("always")
            try:
                predictors[told] = predictor(estimator.fit(x, y))
            except ValueError as error:  # such as texts without a word
                raise UnfittedError(str(error)) from error
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            unfinished.add(told)
    costs = {told: cost(problem, predict(problem.valid), problem.valid) for told, predict in predictors.items()}
    best = min(costs, key=lambda told: costs[told])
    of = f" of {len(candidates)}, as time was short" if len(costs) < len(candidates) else ""
    about += f"; {best}, chosen on valid among {len(costs)}{of}" if len(candidates) > 1 else ""
    about += f"; its solver had not converged after {_ITERATIONS} iterations" if best in unfinished else ""
    return Fitted(predictors[best], len(rows), about)


def _with_target(rows: Rows) -> Rows:
    """Return the rows that have a number to predict."""
    if "target_weight" not in rows.answers:
        return rows
    there_N = (rows.answers["target_weight"] > 0).reshape(len(rows), -1).any(axis=1)
    return rows if there_N.all() else rows.take(np.flatnonzero(there_N))


def _targets(problem: Problem, rows: Rows) -> np.ndarray:
    """Return what an estimator is to predict: classes [N], labels [N, C], or numbers [N] or [N, C]."""
    target = rows.answers["target"]
    if problem.kind != NUMBERS:
        return target if problem.kind == CLASSES else (target > 0.5).astype(np.int32)
    whole = np.where(rows.answers["target_weight"] > 0, target, mean_of(rows)).reshape(len(rows), -1)
    return whole[:, 0] if whole.shape[1] == 1 else whole


def _columns(problem: Problem, estimator: Any, x: Any, count: int) -> Columns:
    if problem.kind == NUMBERS:
        shape = problem.train.answers["target"].shape[1:]
        return {"prediction": np.asarray(estimator.predict(x), np.float32).reshape(count, *shape)}
    p_NC = estimator.predict_proba(x)
    if problem.kind == LABELS:
        return labelled(p_NC)
    every_NC = np.zeros((count, problem.shapes["logits"].shape[-1]))
    every_NC[:, estimator.classes_] = p_NC  # a class that training has none of is impossible
    return classified(every_NC)


def _is_id(value: np.ndarray) -> bool:
    return value.ndim == 1 and value.dtype.kind in "iu"


def _matrix(rows: Rows) -> np.ndarray:
    """Return the inputs side by side [N, D]; ids are exact."""
    dtype = np.float64 if any(_is_id(x) for x in rows.inputs.values()) else np.float32
    return np.concatenate([x.reshape(len(rows), -1).astype(dtype) for x in rows.inputs.values()], axis=1)


def _scalers(rows: Rows) -> Iterator[tuple[str, Any, slice]]:
    """Yield of each input what makes its columns fit for a penalty."""
    begin = 0
    for name, value in rows.inputs.items():
        columns = slice(begin, begin := begin + math.prod(value.shape[1:]))
        if _is_id(value):
            yield name, OneHotEncoder(handle_unknown="ignore"), columns
        elif value.ndim > 3:
            largest = float(np.abs(value).max()) or 1.0
            yield name, FunctionTransformer(_over, kw_args={"scale": largest}), columns
        else:
            yield name, StandardScaler(), columns


def _threads(x: Any) -> int | None:
    """Return 1 for data so small that threads would rather wait, much so on a busy machine; None leaves them alone."""
    return 1 if isinstance(x, np.ndarray) and x.size < _SHARED else None


def _over(x_ND: np.ndarray, scale: float) -> np.ndarray:
    return x_ND / scale


def _most(problem: Problem) -> int:
    """Return how many rows the time allows."""
    features = sum(math.prod(x.shape[1:]) for x in problem.train.inputs.values())
    classes = problem.shapes["logits"].shape[-1] if problem.kind != NUMBERS else 1
    return max(100, int(problem.seconds * _PER_SECOND / (features * (classes if classes > 2 else 1))))
