"""Baselines for rows of features, images and texts: constants, linear models and gradient boosting of scikit-learn.

Shape letters: N examples, C classes, M numbers a target, K features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxlab.core.errors import DataError
from jaxlab.run.ladder_task import Answer, Rung, Task, log_shares

_NEVER = -30.0  # the log-probability of a class that training never saw
_MOST_FEATURES, _MOST_TARGETS = 1000, 8  # of gradient boosting
_STRENGTHS = (1.0, 4.0, 16.0)  # of the logistic regression on texts
_SHRINKAGE = 5.0  # ratings that a user's or an item's bias is drawn to 0 by


def is_classes(task: Task) -> bool:
    """Return whether each example has one of several classes."""
    return "logits" in task.results and task.results["logits"].ndim == 2 and task.results["target"].ndim == 1


def is_numbers(task: Task) -> bool:
    """Return whether numbers are predicted."""
    return "target_weight" in task.results


def majority(task: Task) -> Answer | None:
    """Answer the classes' shares in training for every example."""
    if not is_classes(task):
        return None
    labels = task.train.fields[task.target]
    log_C = log_shares(np.bincount(labels, minlength=task.results["logits"].shape[1]))
    count = len(task.held.fields[task.target])
    return _of_classes(task, np.tile(log_C, (count, 1)), len(labels), "the classes' shares in training")


def mean(task: Task) -> Answer | None:
    """Answer the mean of the training targets."""
    if not is_numbers(task):
        return None
    there, target = _weight(task, True), task.train.fields[task.target].astype(np.float64)
    total, weight = np.where(there > 0, target * there, 0).sum(axis=0), there.sum(axis=0)
    found = np.broadcast_to(total / np.maximum(weight, 1), task.held.fields[task.target].shape)
    return numbers(task, found, len(target), "the mean of the training targets")


def linear(task: Task) -> Answer | None:
    """Answer by logistic or ridge regression on standardised features."""
    rows = task.chosen()
    if not _has_features(task):
        return None
    before = [SimpleImputer(keep_empty_features=True), StandardScaler()]
    train, held = task.features(task.train)[rows], task.features(task.held)
    if is_classes(task):
        model = make_pipeline(*before, LogisticRegression(max_iter=300))
        return _classified(task, model, train, held, rows, "logistic regression on standardised features")
    target_NM = task.train.fields[task.target][rows].reshape(len(rows), -1)
    model = make_pipeline(*before, RidgeCV(np.logspace(-2, 4, 7))).fit(train, target_NM)
    about = "ridge regression on standardised features, its strength by leaving one out"
    return numbers(task, model.predict(held), len(rows), about)


def boosting(task: Task) -> Answer | None:
    """Answer by gradient boosting of histograms.

    Raises:
      DataError: so many features or targets that it would take hours.
    """
    rows = task.chosen()
    if not _has_features(task):
        return None
    train, held = task.features(task.train)[rows], task.features(task.held)
    if train.shape[1] > _MOST_FEATURES:
        raise DataError(f"{train.shape[1]} features; at most {_MOST_FEATURES} are taken")
    seed = task.experiment.config.seed
    if is_classes(task):
        model: Any = HistGradientBoostingClassifier(random_state=seed)
        return _classified(task, model, train, held, rows, "gradient boosting")
    target_NM = task.train.fields[task.target][rows].reshape(len(rows), -1)
    if target_NM.shape[1] > _MOST_TARGETS:
        raise DataError(f"{target_NM.shape[1]} numbers a target, a model each; at most {_MOST_TARGETS} are taken")
    model = MultiOutputRegressor(HistGradientBoostingRegressor(random_state=seed)).fit(train, target_NM)
    return numbers(task, model.predict(held), len(rows), "gradient boosting")


def words(task: Task) -> Answer | None:
    """Answer by logistic regression on the TF-IDF of words and pairs of words, its strength by a tenth of training."""
    if not is_classes(task) or task.train.words is None or task.held.words is None:
        return None
    labels, texts = task.train.fields[task.target], np.array(task.train.words, object)
    order = np.random.default_rng(task.experiment.config.seed).permutation(len(texts))
    few, many = order[: len(order) // 10], order[len(order) // 10 :]
    scores = {
        strength: _bag(strength).fit(texts[many], labels[many]).score(texts[few], labels[few])
        for strength in _STRENGTHS
    }
    best = max(scores, key=lambda strength: scores[strength])
    model = _bag(best).fit(texts, labels)
    log_NC = _log_probabilities(task, model, np.array(task.held.words, object))
    return _of_classes(task, log_NC, len(texts), f"logistic regression on TF-IDF of words and pairs, C={best:g}")


def biases(task: Task) -> Answer | None:
    """Answer the mean and what a user and an item are above it, each drawn to 0 as if by `_SHRINKAGE` more ratings."""
    fields, target = task.train.fields, task.target if is_numbers(task) else ""
    sides = [name for name in task.node.inputs if fields[name].ndim == 1 and fields[name].dtype.kind in "iu"]
    if not target or len(sides) != 2 or len(task.node.inputs) != 2 or fields[target].ndim != 1:
        return None
    rating_N = fields[target].astype(np.float64)
    middle = rating_N.mean()
    size = [1 + max(int(rows.fields[name].max()) for rows in (task.train, task.held)) for name in sides]
    bias = [np.zeros(count) for count in size]
    for _ in range(10):
        for own, other in ((0, 1), (1, 0)):
            rest_N = rating_N - middle - bias[other][fields[sides[other]]]
            total = np.bincount(fields[sides[own]], rest_N, size[own])
            bias[own] = total / (np.bincount(fields[sides[own]], minlength=size[own]) + _SHRINKAGE)
    found_N = middle + sum(part[task.held.fields[name]] for part, name in zip(bias, sides, strict=True))
    return numbers(task, found_N, len(rating_N), f"mean and shrunk biases of {sides[0]} and {sides[1]}")


def numbers(task: Task, found: np.ndarray, rows: int, about: str) -> Answer:
    """Return predicted numbers [N, ...] as the results of `jaxlab.objectives.regress`."""
    target = task.held.fields[task.target].astype(np.float32)
    prediction = np.asarray(found, np.float32).reshape(target.shape)
    columns = {"prediction": prediction, "target": target, "target_weight": _weight(task, False)}
    return Answer(columns, rows, about)


def _weight(task: Task, training: bool) -> np.ndarray:
    """Return which targets are there [N, ...], as the objective's ``target_mask`` says."""
    fields = task.train.fields if training else task.held.fields
    mask = task.node.target_mask if "target_mask" in task.node else ""
    shape = fields[task.target].shape
    if not mask:
        return np.ones(shape, np.float32)
    there = fields[mask].astype(np.float32)
    return np.broadcast_to(there.reshape(*there.shape, *(1,) * (len(shape) - there.ndim)), shape).copy()


def _has_features(task: Task) -> bool:
    """Return whether the inputs are numbers that mean something as such; ids of tokens are names."""
    if not (is_classes(task) or is_numbers(task)) or task.train.words is not None or biases(task) is not None:
        return False
    return all(task.train.fields[name].dtype.kind in "biuf" for name in task.node.inputs)


def _bag(strength: float) -> Pipeline:
    bag = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    return make_pipeline(bag, LogisticRegression(C=strength, max_iter=300))


def _classified(task: Task, model: Any, train: np.ndarray, held: np.ndarray, rows: np.ndarray, about: str) -> Answer:
    model.fit(train, task.train.fields[task.target][rows])
    return _of_classes(task, _log_probabilities(task, model, held), len(rows), about)


def _log_probabilities(task: Task, model: Any, held: np.ndarray) -> np.ndarray:
    log_NC = np.full((len(held), task.results["logits"].shape[1]), _NEVER)
    with np.errstate(divide="ignore"):
        log_NC[:, model.classes_] = np.maximum(np.log(model.predict_proba(held)), _NEVER)
    return log_NC


def _of_classes(task: Task, log_NC: np.ndarray, rows: int, about: str) -> Answer:
    target = task.held.fields[task.target].astype(np.int32)
    columns = {"logits": log_NC.astype(np.float32), "target": target}
    return Answer({**columns, "prediction": log_NC.argmax(axis=1).astype(np.int32)}, rows, about)


RUNGS: dict[str, Rung] = {
    "majority": majority, "mean": mean, "biases": biases, "linear": linear, "boosting": boosting,
    "bag of words": words,
}  # fmt: skip
