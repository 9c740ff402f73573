"""What an audit finds wrong with the inputs of splits, each a sentence that ends with what to do.

Knows no target. Usage: ``[*of_inputs(train), *of_columns(train), *of_overlaps(shared, surveys)]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.data.audit.pairs import Overlap
from jaxlab.data.audit.survey import Survey, column, names_of
from jaxlab.data.audit.table import equal_columns, missing

LEVELS = ("error", "warning", "note")


class Finding(NamedTuple):
    """One thing that is wrong, or to be known; `count` is of rows, for columns and fields of these."""

    level: str
    code: str
    split: str
    field: str | None
    count: int
    message: str


def of_inputs(survey: Survey) -> Iterator[Finding]:
    """Yield what is wrong with single rows of a split: missing and infinite values, blank images and texts."""
    if len(survey.rows) < survey.size:
        message = f"only {len(survey.rows):,} of {survey.size:,} rows, drawn at random, were looked at. "
        message += "Raise --max_rows to see all."
        yield Finding("note", "sampled", survey.split, None, len(survey.rows), message)
    for name, kept in survey.fields.items():
        kind = survey.kinds[name]
        found = {"missing": (kept["missing"] > 0, "lack a value (NaN or None)", "Impute it, or leave the rows out.")}
        if kind == "columns":
            infinite = np.isinf(kept["values"]).any(axis=1)
            found["infinite"] = infinite, "hold an infinite value", "Clip it, or mend the data."
        elif kind == "image":
            advice = "Look at them; they may be broken."
            found["blank"] = kept["low"] == kept["high"], "are an image of one colour", advice
        elif kind == "text":
            empty = (kept["words"] == 0) & (kept["missing"] == 0)
            found["blank"] = empty, "are an empty text", "Leave the rows out."
        for code, (wrong, what, advice) in found.items():
            if wrong.any():
                message = f"{share(int(wrong.sum()), survey)} {what} in {name!r}. {advice}"
                yield Finding("warning", code, survey.split, name, int(wrong.sum()), message)


def of_columns(train: Survey) -> Iterator[Finding]:
    """Yield the columns of numbers and categories that are constant, and those equal to another."""
    if len(train.rows) < 2:
        return
    columns = {name: column(train, place) for name, place in names_of(train).items()}
    constant = [name for name, values in columns.items() if is_constant(values)]
    if constant:
        message = f"{listed(constant)}: the same value in all rows. Leave out what says nothing."
        yield Finding("warning", "constant", train.split, constant[0], len(constant), message)
    for names in equal_columns(columns):
        message = f"{listed(names)}: equal in all rows. Keep one of them."
        yield Finding("warning", "equal_columns", train.split, names[1], len(names) - 1, message)


def of_fields(surveys: Sequence[Survey]) -> Iterator[Finding]:
    """Yield the splits whose fields are not those of the first."""
    first = surveys[0]
    for survey in surveys[1:]:
        differing = sorted(set(first.fields) ^ set(survey.fields))
        if differing:
            where = f"in only one of {first.split} and {survey.split}"
            message = f"{listed(differing)}: {where}. Give both the same fields."
            yield Finding("error", "fields", survey.split, differing[0], len(differing), message)


def of_sizes(surveys: Sequence[Survey]) -> Iterator[Finding]:
    """Yield the splits that are larger than the first, which is to be learnt from."""
    first = surveys[0]
    for survey in surveys[1:]:
        if survey.size > first.size:
            message = f"{survey.size:,} rows, where {first.split} has {first.size:,}. Have the two been swapped?"
            yield Finding("warning", "larger", survey.split, None, survey.size, message)


def of_overlaps(shared: Sequence[Overlap], surveys: Sequence[Survey]) -> Iterator[Finding]:
    """Yield what splits share: an error where inputs are equal, a warning where they nearly are."""
    by_split = {survey.split: survey for survey in surveys}
    for overlap in shared:
        left, right = by_split[overlap.left], by_split[overlap.right]
        rows, others = (len(np.unique(overlap.pairs[:, side])) for side in (0, 1))
        if overlap.field is None:  # each row of the left is paired once: the right's are counted anew
            others = int(np.isin(right.key, left.key).sum())
        where = f"{share(rows, left)} of {overlap.left} and {share(others, right)} of {overlap.right}"
        advice = f"The filter leaves them out of {overlap.left}."
        if overlap.field is None:
            message = f"{where} have the same inputs. {advice}"
            yield Finding("error", "overlap", overlap.right, None, others, message)
        else:
            message = f"{where} are near duplicates in {overlap.field!r}. Look at them. {advice}"
            yield Finding("warning", "near_overlap", overlap.right, overlap.field, others, message)


def is_constant(values: np.ndarray) -> bool:
    """Return whether a column [N] holds one value, and no missing ones."""
    return not missing(values).any() and bool(np.all(values == values[0]))


def share(rows: int, survey: Survey) -> str:
    """Return a number of rows as words: how many of how many, and per cent."""
    return f"{rows:,} of {len(survey.rows):,} rows ({rows / len(survey.rows):.2%})"


def listed(names: Sequence[str]) -> str:
    """Return the first ten names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
