"""Metrics of labelled spans, such as names in a text: a span is found where its beginning, end and type all are.

Spans are written as a tag a token: ``B-PER`` begins one of the type PER, ``I-PER`` goes on with it, ``O`` is in none
(IOB2; Ramshaw and Marcus 1995, https://aclanthology.org/W95-0107). Counts are of all types together (micro).
Shape letters: N examples, T tokens, M tokens of all examples, G tags.
Usage: ``config.metrics.f1 = spec("jaxlab.metrics.spans:span_f1")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, UndefinedError
from jaxlab.core.types import DataSpec, Table, TableMetric, Weighted

_OUTSIDE, _BEGINS, _INSIDE = range(3)


def span_f1(
    data: DataSpec,
    tags: tuple[str, ...] = (),
    strict: bool = False,
    target: str = "target",
    prediction: str = "prediction",
    weight: str = "token_weight",
) -> TableMetric:
    """Return the F1 of spans: twice the spans found over those that there are and those that are said to be.

    Without a span among either there is none.

    Args:
      data: its classes are the names of the tags, where `tags` does not name them.
      tags: ``O``, ``B-type`` and ``I-type`` by id; ``B`` and ``I`` where there is one type.
      strict: whether an ``I`` that follows no tag of its type begins no span, as in seqeval's strict mode; else it
        begins one, as in seqeval's default and in conlleval.
      target: the column of true tags [N, T].
      prediction: the column of predicted ones [N, T].
      weight: the column that is 0 at tokens that do not count, which are as if not there; empty for none.

    Raises:
      ConfigError: a name that is no tag.
      DataError: neither `tags` nor the data names any.
    """

    def number(found: float, true: float, said: float) -> float:
        if not true + said:
            raise UndefinedError("there is no span, true or predicted")
        return 2 * found / (true + said)

    return _spans(number, data, tags, strict, (target, prediction, weight))


def span_precision(
    data: DataSpec,
    tags: tuple[str, ...] = (),
    strict: bool = False,
    target: str = "target",
    prediction: str = "prediction",
    weight: str = "token_weight",
) -> TableMetric:
    """Return the share of predicted spans that are true; without a predicted one there is none. Else as `span_f1`."""

    def number(found: float, true: float, said: float) -> float:
        if not said:
            raise UndefinedError("no span is predicted")
        return found / said

    return _spans(number, data, tags, strict, (target, prediction, weight))


def span_recall(
    data: DataSpec,
    tags: tuple[str, ...] = (),
    strict: bool = False,
    target: str = "target",
    prediction: str = "prediction",
    weight: str = "token_weight",
) -> TableMetric:
    """Return the share of true spans that are predicted; without a true one there is none. Else as `span_f1`."""

    def number(found: float, true: float, said: float) -> float:
        if not true:
            raise UndefinedError("there is no true span")
        return found / true

    return _spans(number, data, tags, strict, (target, prediction, weight))


class _Tags(NamedTuple):
    """What each tag id means: outside, begins or inside [G], and of which type [G], -1 for none."""

    prefix: np.ndarray
    kind: np.ndarray

    @classmethod
    def of(cls, names: tuple[str, ...]) -> _Tags:
        prefixes = {"O": _OUTSIDE, "B": _BEGINS, "I": _INSIDE}
        kinds: dict[str, int] = {}
        parts = [(*name.partition("-")[::2], name) for name in map(str, names)]
        for prefix, kind, name in parts:
            if prefix not in prefixes or (prefix == "O" and kind):
                raise ConfigError(
                    f"config.metrics: the tag {name!r} of spans; expected 'O', 'B-type' or 'I-type', by classes or tags"
                )
        return cls(
            np.array([prefixes[prefix] for prefix, _, _ in parts]),
            np.array([-1 if prefix == "O" else kinds.setdefault(kind, len(kinds)) for prefix, kind, _ in parts]),
        )


def _spans(
    number: Callable[[float, float, float], float], data: DataSpec, tags: tuple[str, ...], strict: bool,
    columns: tuple[str, str, str],
) -> TableMetric:  # fmt: skip
    """Return the metric of how many spans were found, are true, and are predicted."""
    meaning = _Tags.of(tags or data.classes)
    target, prediction, weight = columns

    def prepare(table: Table, tuned: Mapping[str, Any]) -> Weighted:
        true_NT = _checked(table[target], target, len(meaning.kind))
        said_NT = _checked(table[prediction], prediction, len(meaning.kind))
        counts_NT = table[weight] > 0 if weight else np.ones(true_NT.shape, bool)
        if not true_NT.shape == said_NT.shape == counts_NT.shape:
            raise DataError(
                f"{target!r} is {true_NT.shape}, {prediction!r} {said_NT.shape} and what counts {counts_NT.shape}; "
                "expected tags [N, T] of the same shape"
            )
        row_M = np.nonzero(counts_NT)[0]
        true_M, said_M = (_last_of_spans(ids_NT[counts_NT], row_M, meaning, strict) for ids_NT in (true_NT, said_NT))
        kind_M = meaning.kind[true_NT[counts_NT]] == meaning.kind[said_NT[counts_NT]]
        kinds = [(true_M == said_M) & (true_M >= 0) & kind_M, true_M >= 0, said_M >= 0]
        found_N, true_N, said_N = (np.bincount(row_M[is_M], minlength=len(true_NT)).astype(float) for is_M in kinds)

        def numbers(weights_N: np.ndarray) -> float:
            return number(float(weights_N @ found_N), float(weights_N @ true_N), float(weights_N @ said_N))

        return numbers

    return TableMetric(tuple(name for name in columns if name), prepare)


def _last_of_spans(tag_M: np.ndarray, row_M: np.ndarray, meaning: _Tags, strict: bool) -> np.ndarray:
    """Return at the first token of each span the place of its last one, and -1 at all other tokens [M]."""
    prefix_M, kind_M = meaning.prefix[tag_M], meaning.kind[tag_M]
    goes_on_M = np.zeros(len(tag_M), bool)  # whether a token is in the same span as the one before
    goes_on_M[1:] = (prefix_M[1:] == _INSIDE) & (kind_M[1:] == kind_M[:-1]) & (row_M[1:] == row_M[:-1])
    first_M = (prefix_M != _OUTSIDE) & ~goes_on_M
    ends = np.flatnonzero((prefix_M != _OUTSIDE) & ~np.append(goes_on_M[1:], False))
    last_M = np.full(len(tag_M), -1)
    last_M[first_M] = ends
    return np.where(prefix_M == _BEGINS, last_M, -1) if strict else last_M


def _checked(ids_NT: np.ndarray, name: str, size: int) -> np.ndarray:
    if ids_NT.ndim != 2 or ids_NT.dtype.kind not in "iu":
        raise DataError(f"the column {name!r} is {ids_NT.dtype}{list(ids_NT.shape)}; expected tags [N, T]")
    if ids_NT.size and not 0 <= ids_NT.min() <= ids_NT.max() < size:
        raise DataError(f"the column {name!r} has ids from {ids_NT.min()} to {ids_NT.max()}; there are {size} tags")
    return ids_NT
