"""Which part each row belongs to: arithmetic on labels, groups or times and a seed. Knows no source.

Every rule returns the part's number for each row [N], -1 for none.
Usage: ``assign(labels_N, "stratified", (0.8, 0.1, 0.1), size=len(labels_N), seed=0)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from jaxlab.core import rng
from jaxlab.core.errors import DataError


def assign(keys: np.ndarray | None, by: str, shares: Sequence[float], size: int, seed: int) -> np.ndarray:
    """Return the part of each row [N] for parts of the given shares; `keys` [N] are labels, groups or times."""
    if by == "time":
        cuts = np.round(np.cumsum([0.0, *shares]) * size, 6)
        return _spans(_codes(keys, size), [min(round(cut), size) for cut in cuts])
    codes = _codes(keys, size)
    return (_grouped if by == "grouped" else _stratified)(codes, shares, rng.host(seed, "split"))


def folds_of(keys: np.ndarray | None, by: str, folds: int, size: int, seed: int) -> np.ndarray:
    """Return the fold of each row [N], for equal folds; not for a split by time."""
    return assign(keys, by, (1 / folds,) * folds, size, seed)


def expanding(keys: np.ndarray | None, folds: int) -> np.ndarray:
    """Return the span of each row [N], of ``folds + 1`` equally long consecutive ones."""
    size = 0 if keys is None else len(keys)
    return _spans(_codes(keys, size), [number * size // (folds + 1) for number in range(folds + 2)])


def _codes(keys: np.ndarray | None, size: int) -> np.ndarray:
    """Return the place [N] of each key among the sorted distinct keys; all 0 where there are none."""
    if keys is None:
        return np.zeros(size, np.int64)
    plain = np.asarray([str(key) for key in keys]) if keys.dtype == object and not _are_numbers(keys) else keys
    return np.unique(plain.astype(np.float64) if plain.dtype == object else plain, return_inverse=True)[1].reshape(-1)


def _are_numbers(keys: np.ndarray) -> bool:
    return all(isinstance(key, int | float | np.number) for key in keys)


def _stratified(codes: np.ndarray, shares: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """Give each part of each class the floor or the ceiling of its share, such that the parts' totals fit as well."""
    wanted = np.asarray([*shares, max(0.0, 1 - sum(shares))])  # the last is for the rows of no part
    owed = np.zeros(len(wanted))
    owner = np.full(len(codes), -1)
    for code, count in enumerate(np.bincount(codes)):
        exact = np.round(wanted * count, 9)  # 0.29 * 100 is not 29
        given = np.floor(exact).astype(int)
        owed += exact - given
        # only who is owed a fraction here may be given a row more; a class has more of them than rows left over
        order = np.argsort(-np.where(exact > given, owed, -np.inf), kind="stable")[: count - given.sum()]
        given[order] += 1
        owed[order] -= 1
        members = generator.permutation(np.flatnonzero(codes == code))
        numbers = np.append(np.arange(len(shares)), -1)
        owner[members] = np.repeat(numbers, given)
    return owner


def _grouped(codes: np.ndarray, shares: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """Give the groups, the largest first, each to the part that is then fullest least; no part is left without one."""
    sizes = np.bincount(codes)
    rest = max(0.0, 1 - sum(shares))
    wanted = np.asarray([*shares, rest] if rest > 1e-9 else shares) * len(codes)
    if len(sizes) < len(shares):
        raise DataError(f"a split by='grouped' into {len(shares)} parts: there are only {len(sizes)} groups")
    tie = generator.permutation(len(sizes))
    order = np.lexsort((tie, -sizes))
    filled = np.zeros(len(wanted))
    part_of = np.full(len(sizes), -1)
    for place, group in enumerate(order):
        load = (filled + sizes[group]) / wanted
        empty = filled[: len(shares)] == 0
        if len(order) - place <= empty.sum():  # as many groups are left as parts without one
            load[: len(shares)][~empty] = np.inf
            load[len(shares) :] = np.inf
        chosen = int(np.argmin(load))
        filled[chosen] += sizes[group]
        part_of[group] = chosen if chosen < len(shares) else -1
    return part_of[codes]


def _spans(codes: np.ndarray, cuts: Sequence[int]) -> np.ndarray:
    """Return the span of each row, cut in order of time near the positions `cuts`, never between equal times."""
    order = np.argsort(codes, kind="stable")
    sorted_codes = codes[order]
    # a cut goes back to the first row of its time, so that whole times stay in the later span
    moved = [int(np.searchsorted(sorted_codes, sorted_codes[cut])) if cut < len(codes) else cut for cut in cuts]
    owner = np.full(len(codes), -1)
    for number, (first, last) in enumerate(itertools.pairwise(moved)):
        owner[order[first:last]] = number
    return owner
