"""Packs documents of tokens into rows of one length, so that little is padding and no document sees another.

A row holds whole documents side by side. ``segments`` says which token belongs to which, ``positions`` begin at 0 in
each: with both, a model that attends within segments gives a document what it would give the document alone.
Knows no tokenizer and no model. Shape letters: N rows, T tokens of a row, D documents.
Usage: ``pack([np.array([5, 6, 7]), np.array([8, 9])], length=8)``; as data, ``spec("jaxlab.data.packed:make")``.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.data.cache import ragged


class Pieces(NamedTuple):
    """Where documents, or pieces of them, go: each is tokens [start, start + size) of the flat tokens."""

    start: np.ndarray
    size: np.ndarray
    row: np.ndarray
    column: np.ndarray


def pack(documents: Sequence[np.ndarray], length: int, mode: str = "best_fit", pad: int = 0) -> dict[str, np.ndarray]:
    """Return rows of `documents`: tokens, segments, positions and targets [N, T] int32, target_mask [N, T] float32.

    ``segments`` is 0 at padding and 1, 2, … in a row's documents. ``targets`` is the document's next token, also
    where that stands in another row; ``target_mask`` is 0 where there is none: at a document's end and at padding.

    Args:
      documents: token ids [T_i] each; those of no token are left out.
      length: T.
      mode: ``best_fit``: the longest documents first, each into the fullest row that has room for it; one that is
        longer than a row is cut into rows. ``concatenate``: all documents end to end, cut into rows, no padding but
        at the end. A document that is cut goes on as a segment of its own that does not see what came before.
        ``stream``: as that, but all documents are taken for one, so that a row is one segment and texts run on.
      pad: the id at padding.

    Raises:
      ConfigError: no such mode, or `length` below 2.
      DataError: there are no tokens.
    """
    return pack_flat(**ragged(documents), length=length, mode=mode, pad=pad)


def pack_flat(
    flat: np.ndarray, offsets: np.ndarray, length: int, mode: str = "best_fit", pad: int = 0
) -> dict[str, np.ndarray]:
    """Return what `pack` does, of documents end to end in `flat`, of which i is ``flat[offsets[i]:offsets[i + 1]]``."""
    plans: Mapping[str, Callable[[np.ndarray, int], Pieces]] = {
        "best_fit": best_fit, "concatenate": concatenate, "stream": concatenate,
    }  # fmt: skip
    if mode not in plans:
        raise ConfigError(f"packing: no such mode {mode!r}{did_you_mean(mode, plans)}")
    if length < 2:
        raise ConfigError(f"packing: length={length}; a token and its target need at least 2")
    if not len(flat):
        raise DataError("packing: there are no tokens; all documents are empty")
    if mode == "stream":
        offsets = np.array([0, len(flat)])
    return _rows(np.asarray(flat, np.int32), offsets, plans[mode](offsets, length), length, pad)


def concatenate(offsets: np.ndarray, length: int) -> Pieces:
    """Return the plan that cuts the stream of all documents every `length` tokens."""
    cuts = np.arange(0, offsets[-1], length, dtype=np.int64)
    start = np.union1d(offsets[:-1][np.diff(offsets) > 0], cuts)
    return Pieces(start, np.diff(start, append=offsets[-1]), start // length, start % length)


def best_fit(offsets: np.ndarray, length: int) -> Pieces:
    """Return the plan of best-fit decreasing (Johnson et al. 1974): at most 11/9 of the fewest rows possible."""
    sizes = np.diff(offsets)
    parts_D = -(-sizes // length)
    part = np.arange(parts_D.sum()) - np.repeat(np.cumsum(parts_D) - parts_D, parts_D)
    start = np.repeat(offsets[:-1], parts_D) + part * length
    size = np.minimum(length, np.repeat(offsets[1:], parts_D) - start)
    order = np.argsort(-size, kind="stable")
    start, size = start[order], size[order]
    row, column = np.empty(len(size), np.int64), np.empty(len(size), np.int64)
    rows_by_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the keys of rows_by_room, sorted
    rows = 0
    for piece, needed in enumerate(size.tolist()):
        place = bisect.bisect_left(rooms, needed)
        if place == len(rooms):
            room, row[piece], rows = length, rows, rows + 1
        else:
            room = rooms[place]
            row[piece] = rows_by_room[room].pop()
            if not rows_by_room[room]:
                del rows_by_room[room], rooms[place]
        column[piece] = length - room
        left = room - needed
        if left and left not in rows_by_room:
            rows_by_room[left] = []
            bisect.insort(rooms, left)
        if left:
            rows_by_room[left].append(int(row[piece]))
    return Pieces(start, size, row, column)


def _rows(flat: np.ndarray, offsets: np.ndarray, pieces: Pieces, length: int, pad: int) -> dict[str, np.ndarray]:
    order = np.lexsort((pieces.column, pieces.row))
    start, size, row, column = (values[order] for values in pieces)
    first = np.searchsorted(row, row)  # the first piece of the same row
    within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    origin = np.repeat(start, size) + within
    place = np.repeat(row * length + column, size) + within
    followed = np.ones(len(flat), bool)
    followed[offsets[1:][np.diff(offsets) > 0] - 1] = False  # a document's last token has no target
    following = np.where(followed, np.append(flat[1:], pad), pad)
    shape = (int(row[-1]) + 1, length)

    def spread(values: np.ndarray, background: int = 0, dtype: type = np.int32) -> np.ndarray:
        result = np.full(shape[0] * length, background, dtype)
        result[place] = values
        return result.reshape(shape)

    return {
        "tokens": spread(flat[origin], pad),
        "segments": spread(np.repeat(np.arange(len(row)) - first + 1, size)),
        "positions": spread(within),
        "targets": spread(following[origin], pad),
        "target_mask": spread(followed[origin], dtype=np.float32),
    }
