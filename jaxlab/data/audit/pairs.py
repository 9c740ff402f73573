"""Rows that two splits share: equal ones by their hash, near duplicates of images and texts by what is nearly equal.

Reads rows again only to confirm a candidate. Usage: ``overlaps((train, test), {"train": ..., "test": ...})``.

Shape letters: P pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.core.types import Source
from jaxlab.data.audit import images as audit_images
from jaxlab.data.audit import text as audit_text
from jaxlab.data.audit.fields import plain
from jaxlab.data.audit.rows import equal_pairs, unique_pairs
from jaxlab.data.audit.survey import BLOCK, Survey

_MOST = 200_000  # candidates that are confirmed


class Overlap(NamedTuple):
    """Pairs of rows of two splits that are equal (`field` None) or near duplicates in a field."""

    left: str
    right: str
    field: str | None
    pairs: np.ndarray  # [P, 2] indices into the two sources
    similarity: np.ndarray  # [P]


def overlaps(surveys: Sequence[Survey], sources: Mapping[str, Source]) -> list[Overlap]:
    """Return what each two splits share; a row equal to several others is paired with one of them."""
    found = []
    for left, right in itertools.combinations(surveys, 2):
        equal = unique_pairs(list(equal_pairs(left.key, right.key, most=1)))
        found.append(_overlap(left, right, None, equal, np.ones(len(equal))))
        for field in left.inputs:
            if left.kinds[field] in ("image", "text") and field in right.fields:
                pairs = _near(left, right, field)
                pairs = pairs[left.key[pairs[:, 0]] != right.key[pairs[:, 1]]][:_MOST]
                rows = _overlap(left, right, field, pairs, np.ones(len(pairs)))
                similarity = _confirm(rows, left.kinds[field], sources)
                kept = similarity >= (audit_images if left.kinds[field] == "image" else audit_text).SIMILAR
                found.append(rows._replace(pairs=rows.pairs[kept], similarity=similarity[kept]))
    return [overlap for overlap in found if len(overlap.pairs)]


def read_field(source: Source, rows: np.ndarray, field: str) -> np.ndarray:
    """Return one field's plain values at `rows` [n]."""
    return plain(source.__getitems__(np.asarray(rows))[field])


def _overlap(left: Survey, right: Survey, field: str | None, places: np.ndarray, similarity: np.ndarray) -> Overlap:
    pairs = np.stack([left.rows[places[:, 0]], right.rows[places[:, 1]]], axis=1)
    return Overlap(left.split, right.split, field, pairs, similarity)


def _near(left: Survey, right: Survey, field: str) -> np.ndarray:
    one, other = left.fields[field], right.fields[field]
    if left.kinds[field] == "text":
        return audit_text.near_pairs(one["signature"], other["signature"])
    marks = (audit_images.Fingerprint(kept["near"], kept["small"]) for kept in (one, other))
    return audit_images.near_pairs(*marks)


def _confirm(candidates: Overlap, kind: str, sources: Mapping[str, Source]) -> np.ndarray:
    """Return the similarity [P] of candidate pairs: Jaccard of texts, correlation of images' pixels."""
    similarity = np.ones(len(candidates.pairs))
    for start in range(0, len(candidates.pairs), BLOCK):
        pairs = candidates.pairs[start : start + BLOCK]
        sides = []
        for side, split in enumerate((candidates.left, candidates.right)):
            rows, place = np.unique(pairs[:, side], return_inverse=True)
            values = read_field(sources[split], rows, str(candidates.field))
            if kind == "text":
                values = audit_text.window_sets(["" if value is None else str(value) for value in values])
            sides.append([values[i] for i in place])
        compare = audit_text.jaccard if kind == "text" else _image_similarity
        similarity[start : start + BLOCK] = [compare(one, other) for one, other in zip(*sides, strict=True)]
    return similarity


def _image_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of the pixels; images of different sizes have passed as small greys, which is all."""
    return float(audit_images.correlation(one[None], other[None])[0]) if one.shape == other.shape else 1.0
