"""One pass over a split: what an audit keeps of each row, and which rows are equal. Reads blocks; judges nothing.

Usage: ``survey(source, "train", target="label")``.

Shape letters: N rows looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.core.types import Source
from jaxlab.data.audit.fields import Kept, keep, kind_of, plain
from jaxlab.data.audit.rows import combine
from jaxlab.data.table_columns import RESERVED

BLOCK = 1024  # rows that are read at once


class Survey(NamedTuple):
    """What is kept of one split."""

    split: str
    size: int
    rows: np.ndarray  # indices [N] into the source, ascending; all of them unless there are too many
    kinds: Mapping[str, str]
    fields: Mapping[str, Kept]
    inputs: tuple[str, ...]  # fields by which rows are equal
    key: np.ndarray  # one hash [N] of all inputs
    target: np.ndarray | None  # [N, ...]; None where there is none, or where it was not to be read
    classes: tuple[str, ...]  # names of the target's classes, if it has any


def survey(
    source: Source,
    split: str,
    *,
    target: str | None,
    read_target: bool = True,
    ignore: tuple[str, ...] = (),
    kinds: Mapping[str, str] | None = None,
    max_rows: int = 100_000,
) -> Survey:
    """Return what is kept of a split's rows.

    Args:
      source: before any transform.
      split: its name.
      target: the field to predict, which is no input; None if there is none.
      read_target: whether the target may be looked at.
      ignore: fields that are no inputs, besides the roles id, group and time.
      kinds: of the fields, as another split has them; found from the first block if None.
      max_rows: of a larger split, so many rows are drawn at random (always the same ones).
    """
    rows = sampled_rows(len(source), max_rows)
    pieces: dict[str, list[Kept]] = {}
    targets: list[np.ndarray] = []
    known = dict(kinds or {})
    for start in range(0, len(rows), BLOCK):
        block = dict(source.__getitems__(rows[start : start + BLOCK]))
        answer = block.pop(target, None) if target else None
        if answer is not None and read_target:
            targets.append(np.asarray(answer))
        block = {name: plain(values) for name, values in block.items()}
        for name, values in block.items():
            kind = known.setdefault(name, kind_of(values))
            pieces.setdefault(name, []).append(keep(kind, values))
    fields = {name: _joined(blocks) for name, blocks in pieces.items()}
    others = [name for name in fields if name not in ignore]
    inputs = tuple(name for name in others if name not in RESERVED) or tuple(others)
    key = combine([fields[name]["hash"] for name in inputs]) if inputs else np.arange(len(rows), dtype=np.uint64)
    of_target = target == "label" or "label" not in source.spec.example  # the classes are those of ``label``
    classes = tuple(map(str, source.spec.meta.get("classes") or ())) if of_target else ()
    answers = plain(np.concatenate(targets)) if targets else None
    return Survey(
        split, len(source), rows, {name: known[name] for name in fields}, fields, inputs, key, answers, classes
    )


def sampled_rows(size: int, most: int) -> np.ndarray:
    """Return all indices below `size`, or `most` of them at random, ascending."""
    if size <= most:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, most, replace=False))


def names_of(found: Survey) -> dict[str, tuple[str, int]]:
    """Return the names of all single columns, each with its field and place: ``size``, ``past[3]``."""
    names = {}
    for name, kind in found.kinds.items():
        width = found.fields[name]["values"].shape[1] if kind == "columns" else 1
        if kind in ("columns", "category"):
            single = found.fields[name]["values"].ndim == 1 or found.fields[name]["scalar"].all()
            names |= {name: (name, 0)} if single else {f"{name}[{i}]": (name, i) for i in range(width)}
    return names


def column(found: Survey, place: tuple[str, int]) -> np.ndarray:
    """Return one column's values [N]."""
    values = found.fields[place[0]]["values"]
    return values if values.ndim == 1 else values[:, place[1]]


def _joined(blocks: Sequence[Kept]) -> Kept:
    return {part: np.concatenate([block[part] for block in blocks]) for part in blocks[0]}
