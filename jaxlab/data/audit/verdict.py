"""What an audit concludes: all findings, those on the target among them, and the rows that a filter would leave out.

Deletes nothing; of the test split, no row is ever left out.
Usage: ``judge(surveys, overlaps(surveys, sources), "label")``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.data.audit.findings import (
    LEVELS,
    Finding,
    listed,
    of_columns,
    of_fields,
    of_inputs,
    of_overlaps,
    of_sizes,
    share,
)
from jaxlab.data.audit.pairs import Overlap
from jaxlab.data.audit.rows import combine, repeated
from jaxlab.data.audit.survey import Survey, column, names_of
from jaxlab.data.audit.table import leaks
from jaxlab.data.audit.target import conflicts, labels_of, target_hash, target_missing, unlike

IMBALANCE = 10  # times that the commonest class may outnumber the rarest
COPY = 0.9999  # held-out score from which a column is the target itself

Drops = dict[str, dict[str, np.ndarray]]
"""Indices to leave out, by split and reason."""


class Verdict(NamedTuple):
    """All that was concluded; `leaks` are columns with the held-out score by which they predict the target."""

    findings: tuple[Finding, ...]
    drops: Drops
    leaks: Mapping[str, float]


def judge(surveys: Sequence[Survey], shared: Sequence[Overlap], target: str | None) -> Verdict:
    """Return what is concluded from splits in the order train, valid, test; the gravest findings come first."""
    suspects = find_leaks(surveys[0])
    found = [*of_fields(surveys), *of_sizes(surveys), *of_overlaps(shared, surveys)]
    for name, score in suspects.items():
        level = "error" if score >= COPY else "warning"
        message = f"{name!r} alone predicts {target!r} with a held-out score of {score:.4f}, where 1 is perfect. "
        message += "Is it known before the target is? If not, leave it out."
        found.append(Finding(level, "leak", surveys[0].split, name, 1, message))
    for survey in surveys:
        found += [*of_inputs(survey), *_of_repeats(survey), *_of_target(survey, target)]
    found += [*of_columns(surveys[0]), *_of_classes(surveys)]
    for split, rows in conflicts(surveys).items():
        message = f"{len(rows):,} rows have inputs that stand there with another class too. "
        message += "Look at them; correct them, or leave them out with the filter."
        found.append(Finding("warning", "conflict", split, target, len(rows), message))
    found.sort(key=lambda finding: LEVELS.index(finding.level))
    return Verdict(tuple(found), find_drops(surveys, shared), suspects)


def find_leaks(train: Survey) -> dict[str, float]:
    """Return the input columns of training that give its target away, with their scores.

    Rows that contradict each other are left out: a few wrong labels must not hide a leak.
    """
    labels = labels_of(train)
    if train.target is None or train.target.ndim != 1 or (labels is None and train.target.dtype.kind == "O"):
        return {}
    values = train.target if labels is None else labels.names
    sound = ~(target_missing(train) if labels is None else labels.missing | labels.outside)
    sound[conflicts([train]).get(train.split, np.empty(0, int))] = False
    places = {name: place for name, place in names_of(train).items() if place[0] in train.inputs}
    columns = {name: column(train, place)[sound] for name, place in places.items()}
    return leaks(columns, values[sound], classes=labels is not None)


def find_drops(surveys: Sequence[Survey], shared: Sequence[Overlap]) -> Drops:
    """Return what to leave out: later ones of equal rows, bad targets, and rows that a later split has too."""
    torn, none = conflicts(surveys), np.empty(0, int)
    drops: Drops = {}
    for survey in surveys:
        drops[survey.split] = {}
        if survey.split == "test":
            continue
        labels = labels_of(survey)
        places = {
            "duplicate": repeats(survey), "conflict": torn.get(survey.split, none),
            "outside": none if labels is None else np.flatnonzero(labels.outside),
            "target_missing": np.flatnonzero(target_missing(survey)),
        }  # fmt: skip
        reasons = {reason: survey.rows[rows] for reason, rows in places.items()}
        for overlap in shared:
            if overlap.left == survey.split:
                name = f"{'overlap' if overlap.field is None else 'near_overlap'}_{overlap.right}"
                reasons[name] = np.union1d(reasons.get(name, none), overlap.pairs[:, 0]).astype(int)
        drops[survey.split] = {reason: rows for reason, rows in reasons.items() if len(rows)}
    return drops


def repeats(survey: Survey) -> np.ndarray:
    """Return the positions of rows of which inputs, and target where it was read, equal those of an earlier row."""
    answer = target_hash(survey)
    return repeated(survey.key if answer is None else combine([survey.key, answer]))


def _of_repeats(survey: Survey) -> Iterator[Finding]:
    count = len(repeats(survey))
    if count:
        what = "inputs" if survey.target is None else "inputs and target"
        message = f"{share(count, survey)} have the same {what} as an earlier row. "
        message += "Weight them knowingly." if survey.split == "test" else "Leave them out with the filter."
        yield Finding("warning", "duplicates", survey.split, None, count, message)


def _of_target(survey: Survey, target: str | None) -> Iterator[Finding]:
    absent, labels = int(target_missing(survey).sum()), labels_of(survey)
    if absent:
        message = f"{share(absent, survey)} have no {target!r}. Leave them out with the filter, or mend the data."
        yield Finding("error", "target_missing", survey.split, target, absent, message)
    if labels is not None and labels.outside.any():
        strange = listed(sorted({str(name) for name in labels.names[labels.outside]}))
        rows = int(labels.outside.sum())
        message = f"{strange}: no such class, in {share(rows, survey)}; the classes are {listed(survey.classes)}. "
        message += "Mend the labels, or leave the rows out with the filter."
        yield Finding("error", "outside", survey.split, target, rows, message)


def _of_classes(surveys: Sequence[Survey]) -> Iterator[Finding]:
    train = surveys[0]
    counts = class_counts(train)
    lacking = [name for name in train.classes if name not in counts]
    if counts and lacking:
        message = f"{listed(lacking)}: no row in training. Take the classes out, or find examples."
        yield Finding("warning", "class_empty", train.split, None, len(lacking), message)
    if counts and max(counts.values()) > IMBALANCE * min(counts.values()):
        rare, common = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        message = f"class {common} has {counts[common]:,} rows, {rare} has {counts[rare]:,}. "
        message += "Accuracy will mislead: measure each class, and weight or sample them."
        yield Finding("warning", "imbalance", train.split, None, counts[rare], message)
    for survey in surveys[1:]:
        others = class_counts(survey)
        unseen = sorted(set(others) - set(counts))
        if counts and unseen:
            rows = sum(others[name] for name in unseen)
            message = f"{listed(unseen)}: in {share(rows, survey)}, but never in training. Split anew, by class."
            yield Finding("error", "unseen_class", survey.split, None, rows, message)
        elif others and unlike(counts, others):
            message = f"the classes' shares differ from training's. Split {survey.split} anew, unless it is meant."
            yield Finding("warning", "unlike_classes", survey.split, None, len(survey.rows), message)


def class_counts(survey: Survey) -> dict[str, int]:
    """Return the rows of each class that a split has, by name; empty where the target is no class or was not read."""
    labels = labels_of(survey)
    if labels is None:
        return {}
    names, counts = np.unique(labels.names[~(labels.missing | labels.outside)].astype(str), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}
