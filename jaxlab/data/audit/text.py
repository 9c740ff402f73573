"""Near duplicates among texts by MinHash with banding (Broder 1997; Leskovec et al., Mining of Massive Datasets).

A text is the set of its windows of `SHINGLE` characters, case and runs of white space ignored. The Jaccard similarity
of two sets is the share of hash functions under which their minima agree; texts whose minima agree in a whole band of
`BAND` functions become candidates, and candidates are compared by their sets. A pair at similarity s is found with
probability ``1 - (1 - s**BAND)**(FUNCTIONS / BAND)``: 0.99 at 0.8. Knows no source.
Usage: ``near_pairs(signatures(train_texts), signatures(test_texts))``, then `jaccard` of the pairs' `window_sets`.

Shape letters: N texts, F hash functions, S windows of all texts, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxlab.data.audit.rows import combine, equal_pairs, mix, unique_pairs

SHINGLE = 5
FUNCTIONS = 60
BAND = 5
SIMILAR = 0.8  # Jaccard similarity from which two texts are near duplicates
SHORTEST = 20  # characters below which a text has no near duplicates, only equals
LONGEST = 20_000  # characters of a text that are looked at
_MARGIN = 0.2  # four standard deviations of the estimate from F minima
_PARTNERS = 100  # candidates a text has in one band at most: boilerplate must not make it quadratic


def normalise(text: str) -> str:
    """Return the text as it is compared: case folded, each run of white space one space, cut at `LONGEST`."""
    return " ".join(text[:LONGEST].casefold().split())


def signatures(texts: Sequence[str]) -> np.ndarray:
    """Return the minima [N, F] uint32 of each text's windows; a text too short to compare has the largest ones."""
    normal = [normalise(text) for text in texts]
    window_S, start_N = _windows(normal)
    generator = np.random.default_rng(20_240_601)  # the functions are part of the method: the same in every audit
    factors = generator.integers(0, 2**32, FUNCTIONS, np.uint32) | np.uint32(1)
    offsets = generator.integers(0, 2**32, FUNCTIONS, np.uint32)
    minima_NF = np.empty((len(texts), FUNCTIONS), np.uint32)
    for function, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
        if len(texts):
            minima_NF[:, function] = np.minimum.reduceat(window_S * factor + offset, start_N)
    minima_NF[[len(text) < SHORTEST for text in normal]] = np.iinfo(np.uint32).max
    return minima_NF


def near_pairs(left_NF: np.ndarray, right_MF: np.ndarray) -> np.ndarray:
    """Return candidate pairs [P, 2] of rows of two signatures whose similarity may be `SIMILAR` or more."""
    largest = np.iinfo(np.uint32).max
    i_all = np.flatnonzero((left_NF != largest).any(axis=1))
    j_all = np.flatnonzero((right_MF != largest).any(axis=1))
    found = []
    for band in range(0, FUNCTIONS, BAND):
        left, right = (
            combine([rows[:, band + k].astype(np.uint64) for k in range(BAND)])
            for rows in (left_NF[i_all], right_MF[j_all])
        )
        for i, j in equal_pairs(left, right, most=_PARTNERS):
            alike = (left_NF[i_all[i]] == right_MF[j_all[j]]).mean(axis=1) >= SIMILAR - _MARGIN
            found.append((i_all[i[alike]], j_all[j[alike]]))
    return unique_pairs(found)


def window_sets(texts: Sequence[str]) -> list[set[int]]:
    """Return each text as the set of its windows."""
    return [set(_windows([normalise(text)])[0].tolist()) for text in texts]


def jaccard(one: set[int], other: set[int]) -> float:
    """Return the share of the windows of two texts that they have in common."""
    return len(one & other) / len(one | other)


def _windows(normal: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes [S] uint32 of all texts' windows, and where each text's begin [N]; every text has one."""
    padded = [text.ljust(SHINGLE, "\0") for text in normal]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32)
    lengths = np.array([len(text) for text in padded], np.int64)
    total = max(len(codes) - SHINGLE + 1, 0)
    hashed = np.zeros(total, np.uint64)
    for place in range(SHINGLE):
        hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + codes[place : place + total] + np.uint64(1)
    whole = np.ones(len(codes), bool)  # windows that cross into the next text are left out
    ends = np.cumsum(lengths)
    for back in range(1, SHINGLE):
        whole[ends - back] = False
    counts = lengths - SHINGLE + 1
    mixed = (mix(hashed) >> np.uint64(32)).astype(np.uint32)
    return mixed[whole[:total]], np.cumsum(counts) - counts
