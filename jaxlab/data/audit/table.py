"""What is wrong with columns of numbers and categories: ranges, constant and equal ones, and those that give the
target away. Knows no source.

Usage: ``describe(values_N)``; ``leaks({"age": age_N}, label_N, classes=True)``.

Shape letters: N rows, F columns, K folds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlab.data.audit.rows import hash_objects, hash_rows

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SUSPICIOUS = 0.98  # held-out score from which a single column predicts the target too well to be true
LEAK_ROWS = 5000  # rows on which a column is tried
_FOLDS = 3
_FEWEST = 30  # rows, and `_FOLDS` times as many as classes, below which a score says nothing
_LEAVES = 64  # steps of the staircase that stands for a function of one column


def missing(values: np.ndarray) -> np.ndarray:
    """Return where values [N] of numbers or objects are missing: NaN or None."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind == "O":
        return np.fromiter(
            (value is None or (isinstance(value, float) and np.isnan(value)) for value in values), bool, len(values)
        )
    return np.zeros(len(values), bool)


def describe(values: np.ndarray) -> dict[str, Any]:
    """Return the counts, range, moments and quantiles of numbers [N] as plain JSON; of the finite ones, if any."""
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    result: dict[str, Any] = {
        "missing": int(np.isnan(numbers).sum()), "infinite": int(np.isinf(numbers).sum()),
        "constant": bool(len(finite) == len(numbers) and len(np.unique(finite)) == 1),
    }  # fmt: skip
    if len(finite):
        low, high, mean, std = (float(f(finite)) for f in (np.min, np.max, np.mean, np.std))
        result |= {"min": low, "max": high, "mean": mean, "std": std}
        result["quantiles"] = {str(q): float(value) for q, value in _quantiles(finite)}
    return result


def describe_categories(values: np.ndarray, most: int = 50) -> dict[str, Any]:
    """Return how often each text of [N] stands there, the `most` most frequent ones, as plain JSON."""
    absent = missing(values)
    names, counts = np.unique(values[~absent].astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return {
        "missing": int(absent.sum()), "distinct": len(names), "constant": bool(len(names) == 1 and not absent.any()),
        "counts": {str(names[i]): int(counts[i]) for i in order},
    }  # fmt: skip


def equal_columns(columns: Mapping[str, np.ndarray]) -> list[list[str]]:
    """Return the groups of names whose columns [N] hold the same values in all rows; constant ones are left out."""
    groups: dict[bytes, list[str]] = {}
    for name, values in columns.items():
        hashed = hash_objects(values) if values.dtype.kind == "O" else hash_rows(values.astype(np.float64))
        if len(np.unique(hashed)) > 1:
            groups.setdefault(hashed.tobytes() if len(hashed) < 64 else _digest(hashed), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def leaks(columns: Mapping[str, np.ndarray], target: np.ndarray, *, classes: bool) -> dict[str, float]:
    """Return the columns that predict the target almost perfectly, each with its held-out score.

    The predictor sees one column: numbers through a decision tree of as many leaves as twice the classes (64 for a
    number), categories through the commonest class (the mean) of each. The score, over `_FOLDS` folds of at most
    `LEAK_ROWS` rows, is balanced accuracy, rescaled so that chance is 0; for a number, R² of its rank. From
    `SUSPICIOUS` on, a column is reported.

    Args:
      columns: numbers or objects [N] by name.
      target: classes or numbers [N], none missing.
      classes: whether the target is a class.
    """
    from scipy.stats import rankdata

    rows = np.random.default_rng(0).permutation(len(target))
    if classes:
        target = np.unique(target.astype(str), return_inverse=True)[1]
        frequent = np.bincount(target) >= 2 * _FOLDS
        rows = _first_of_each(rows[frequent[target[rows]]], target)
    rows = rows[:LEAK_ROWS]
    different = len(np.unique(target[rows]))
    if different < 2 or len(rows) < max(_FEWEST, _FOLDS * different if classes else 0):
        return {}
    answer = target[rows] if classes else rankdata(target[rows]) / len(rows)
    scores = {name: _score(values[rows], answer, classes=classes) for name, values in columns.items()}
    return {name: score for name, score in scores.items() if score >= SUSPICIOUS}


def _score(values: np.ndarray, answer: np.ndarray, *, classes: bool) -> float:
    fold_of = _folds(answer, classes=classes)
    predicted = np.zeros(len(answer), answer.dtype)
    for fold in range(_FOLDS):
        seen, held = fold_of != fold, fold_of == fold
        learn = _by_category if values.dtype.kind == "O" else _by_tree
        predicted[held] = learn(values[seen], answer[seen], values[held], classes)
    if not classes:
        return float(1 - np.mean((answer - predicted) ** 2) / np.var(answer))
    right = [np.mean(predicted[answer == label] == label) for label in np.unique(answer)]
    return float((np.mean(right) - 1 / len(right)) / (1 - 1 / len(right)))


def _folds(answer: np.ndarray, *, classes: bool) -> np.ndarray:
    """Return each row's fold [N]; the rows of a class are dealt out in turn."""
    order = np.argsort(answer, kind="stable") if classes else np.arange(len(answer))
    fold = np.empty(len(answer), int)
    fold[order] = np.arange(len(answer)) % _FOLDS
    return fold


def _by_tree(seen: np.ndarray, answer: np.ndarray, held: np.ndarray, classes: bool) -> np.ndarray:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    largest = np.finfo(np.float32).max / 2
    first, second = (np.clip(values.astype(np.float64), -largest, largest)[:, None] for values in (seen, held))
    if classes:
        leaves = max(4, 2 * len(np.unique(answer)))
        tree = DecisionTreeClassifier(max_leaf_nodes=leaves, class_weight="balanced", random_state=0)
    else:
        tree = DecisionTreeRegressor(max_leaf_nodes=_LEAVES, random_state=0)
    return tree.fit(first, answer).predict(second)


def _by_category(seen: np.ndarray, answer: np.ndarray, held: np.ndarray, classes: bool) -> np.ndarray:
    names, place = np.unique(seen.astype(str), return_inverse=True)
    if classes:
        counts = np.zeros((len(names), int(answer.max()) + 1))
        np.add.at(counts, (place, answer), 1 / np.bincount(answer)[answer])  # balanced, as the score is
        best, otherwise = counts.argmax(axis=1), np.bincount(answer).argmax()
    else:
        best, otherwise = np.bincount(place, answer) / np.bincount(place), answer.mean()
    at = np.searchsorted(names, held.astype(str)).clip(max=len(names) - 1)
    return np.where(names[at] == held.astype(str), best[at], otherwise)


def _first_of_each(rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the rows such that those of every class stand evenly spread: a rare class is not lost by a cut."""
    order = np.argsort(target[rows], kind="stable")
    counts = np.bincount(target[rows])
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows[order[np.argsort(within, kind="stable")]]


def _quantiles(finite: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(QUANTILES, np.quantile(finite, QUANTILES), strict=True))


def _digest(hashed: np.ndarray) -> bytes:
    import hashlib

    return hashlib.blake2b(hashed.tobytes(), digest_size=16).digest()
