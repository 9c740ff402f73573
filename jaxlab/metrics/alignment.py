"""How alike sequences of words are: the fewest edits between them, and the longest subsequence common to both.

Both fill the table of all beginnings of the two, a row of it at once for many pairs side by side.
Shape letters: N pairs, R words of the longest reference, H words of the longest hypothesis.
Usage: ``edits_N = edit_distances([["a", "b"]], [["a"]])``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Words = Sequence[str]
_PAIRS = 1024  # side by side


def edit_distances(references: Sequence[Words], hypotheses: Sequence[Words]) -> np.ndarray:
    """Return [N] the fewest words to put in, leave out or replace so that each hypothesis is its reference.

    Levenshtein 1966; the recurrence is that of Wagner and Fischer 1974, https://doi.org/10.1145/321796.321811.
    """

    def row(above_NH: np.ndarray, same_NH: np.ndarray, place: int) -> np.ndarray:
        steps_H = np.arange(above_NH.shape[1])
        row_NH = np.empty_like(above_NH)
        row_NH[:, 0] = place + 1
        row_NH[:, 1:] = np.minimum(above_NH[:, 1:] + 1, above_NH[:, :-1] + ~same_NH)
        # a word more costs 1 each: the least of all places to the left, plus the way from there
        return np.minimum.accumulate(row_NH - steps_H, axis=1) + steps_H

    return _filled(references, hypotheses, np.arange, row)


def common_lengths(references: Sequence[Words], hypotheses: Sequence[Words]) -> np.ndarray:
    """Return [N] how many words the longest subsequence has that both texts of a pair have."""

    def row(above_NH: np.ndarray, same_NH: np.ndarray, place: int) -> np.ndarray:
        row_NH = above_NH.copy()
        row_NH[:, 1:] = np.where(same_NH, above_NH[:, :-1] + 1, above_NH[:, 1:])
        return np.maximum.accumulate(row_NH, axis=1)

    return _filled(references, hypotheses, np.zeros, row)


def _filled(
    references: Sequence[Words], hypotheses: Sequence[Words], first: Callable[[int], np.ndarray],
    row: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
) -> np.ndarray:  # fmt: skip
    """Return [N] the last number of each pair's table, which begins with the row `first` of H + 1 numbers."""
    found = np.zeros(len(references), np.int64)
    # pairs of about the same length side by side, so that little is computed for nothing
    order = sorted(range(len(references)), key=lambda n: (len(references[n]), len(hypotheses[n])))
    for start in range(0, len(order), _PAIRS):
        part = order[start : start + _PAIRS]
        codes: dict[str, int] = {}
        reference_NR, lengths_N = _coded([references[n] for n in part], codes, -1)
        hypothesis_NH, ends_N = _coded([hypotheses[n] for n in part], codes, -2)
        last_NH = np.tile(first(hypothesis_NH.shape[1] + 1).astype(np.int64), (len(part), 1))
        for place in range(reference_NR.shape[1]):
            below_NH = row(last_NH, hypothesis_NH == reference_NR[:, place, None], place)
            last_NH = np.where((place < lengths_N)[:, None], below_NH, last_NH)
        found[part] = last_NH[np.arange(len(part)), ends_N]
    return found


def _coded(texts: Sequence[Words], codes: dict[str, int], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the words as numbers [N, T], padded, and how many there are [N]; `codes` learns new words."""
    lengths_N = np.array([len(text) for text in texts], np.int64)
    coded_NT = np.full((len(texts), int(lengths_N.max(initial=0))), pad, np.int64)
    numbers = [codes.setdefault(word, len(codes)) for text in texts for word in text]
    coded_NT[np.arange(coded_NT.shape[1]) < lengths_N[:, None]] = numbers
    return coded_NT, lengths_N
