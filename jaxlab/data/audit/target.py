"""What is wrong with a target: missing, outside the classes, unseen in training, out of balance, or contradictory.

Knows no input but by its hash. Usage: ``labels_of(survey)``, ``conflicts([train, valid])``.

Shape letters: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.data.audit.rows import hash_objects, hash_rows, mix
from jaxlab.data.audit.survey import Survey
from jaxlab.data.audit.table import missing

_MOST_CLASSES = 100  # different whole numbers up to which a target without class names is a class


class Labels(NamedTuple):
    """A split's targets as classes: names [N] of dtype object, and which rows [N] hold none or none of the classes."""

    names: np.ndarray
    missing: np.ndarray
    outside: np.ndarray


def is_classes(survey: Survey) -> bool:
    """Return whether the target is a class: one text, boolean or whole number a row, of few different ones."""
    values = survey.target
    if values is None or values.ndim != 1:
        return False
    if values.dtype.kind == "O":
        texts = [value for value in values if value is not None]
        short = all(isinstance(value, str) for value in texts)
        return short and (bool(survey.classes) or 2 * len(set(texts)) <= len(texts))
    if survey.classes or values.dtype.kind == "b":
        return True
    finite = values[np.isfinite(values)]
    return len(np.unique(finite)) <= _MOST_CLASSES and bool(np.all(finite == np.floor(finite)))


def labels_of(survey: Survey) -> Labels | None:
    """Return a split's classes, or None if its target is no class or was not read."""
    if not is_classes(survey):
        return None
    values = np.asarray(survey.target)
    absent = missing(values)
    names = np.full(len(values), "", object)
    if values.dtype.kind == "O":
        names[~absent] = values[~absent]
        outside = (
            ~absent & ~np.isin(names.astype(str), survey.classes) if survey.classes else np.zeros(len(names), bool)
        )
        return Labels(names, absent, outside)
    outside = np.zeros(len(values), bool)
    numbered: Mapping[float, str] = dict(enumerate(survey.classes))
    for value in np.unique(values[~absent]):
        here = values == value
        whole = int(value) if np.isfinite(value) and value == int(value) else value
        names[here] = numbered.get(float(value), str(whole))
        outside |= here & bool(numbered and float(value) not in numbered)
    return Labels(names, absent, outside)


def target_missing(survey: Survey) -> np.ndarray:
    """Return which rows [N] have a target that is missing or not finite, in any of its parts."""
    values = survey.target
    if values is None:
        return np.zeros(len(survey.rows), bool)
    if values.dtype.kind == "O":
        return missing(values)
    return ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)


def target_hash(survey: Survey) -> np.ndarray | None:
    """Return a hash [N] of each row's target; None where it was not read."""
    if survey.target is None:
        return None
    return hash_objects(list(survey.target)) if survey.target.dtype.kind == "O" else hash_rows(survey.target)


def conflicts(surveys: Sequence[Survey]) -> dict[str, np.ndarray]:
    """Return by split the positions of rows whose inputs stand elsewhere, in any of the splits, with another class."""
    read = [(survey, labels) for survey in surveys if (labels := labels_of(survey)) is not None]
    if not read:
        return {}
    sound = [~(labels.missing | labels.outside) for _, labels in read]
    keys = np.concatenate([survey.key[rows] for (survey, _), rows in zip(read, sound, strict=True)])
    names = np.concatenate([hash_objects(labels.names[rows]) for (_, labels), rows in zip(read, sound, strict=True)])
    _, one_of_each = np.unique(mix(keys) ^ mix(names + np.uint64(1)), return_index=True)
    different, counts = np.unique(keys[one_of_each], return_counts=True)
    torn = different[counts > 1]
    found = {}
    for (survey, _), rows in zip(read, sound, strict=True):
        found[survey.split] = np.flatnonzero(np.isin(survey.key, torn) & rows)
    return {split: rows for split, rows in found.items() if len(rows)}


def unlike(counts: Mapping[str, int], others: Mapping[str, int]) -> bool:
    """Return whether two splits' shares of classes differ by more than chance would have it, and by 5 % in all."""
    from scipy.stats import chi2_contingency

    names = sorted({*counts, *others})
    table = np.array([[split.get(name, 0) for name in names] for split in (counts, others)], float)
    if len(names) < 2 or not table.sum(axis=1).all():
        return False
    shares = table / table.sum(axis=1, keepdims=True)
    return np.abs(shares[0] - shares[1]).sum() / 2 > 0.05 and chi2_contingency(table).pvalue < 1e-4
