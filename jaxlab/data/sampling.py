"""How often each row is drawn in training: weights by class or by source, and an order drawn by weights.

A rule is a function of the training source that returns weights [N] float64 of mean 1: the draws of each row that an
epoch of N draws is expected to make. Knows no batch.
Usage: ``data.sampling = spec("jaxlab.data.sampling:balanced", power=0.5)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlab.core import rng
from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.core.types import Fittable, Sampling, Source, Transform
from jaxlab.data.table_columns import chunks, missing, read


def balanced(power: float = 1.0, field: str = "label") -> Sampling:
    """Return the rule that draws a class of n rows in proportion to ``n ** (1 - power)``.

    Args:
      power: 0 draws rows alike, 1 draws classes alike.
      field: the class of each row [N].

    Raises:
      ConfigError: a power that is not from 0 to 1.
    """
    if not 0 <= power <= 1:
        raise ConfigError(f"balanced: power={power}: expected 0 (rows alike) to 1 (classes alike)")

    def weigh(source: Source) -> np.ndarray:
        _, codes_N, counts = _classes(source, field)
        return _normalised(counts.astype(np.float64)[codes_N] ** -power)

    return weigh


def square_root(field: str = "label") -> Sampling:
    """Return the rule that draws a class in proportion to the square root of its number of rows."""
    return balanced(0.5, field)


def by_source() -> Sampling:
    """Return the rule that draws rows by the weights that a mixture of sources gives them, its ``row_weights`` [N]."""

    def weigh(source: Source) -> np.ndarray:
        weights_N = getattr(source, "row_weights", None)
        if weights_N is None:
            raise DataError("by_source: the training source has no row_weights; expected a mixture of sources")
        if np.shape(weights_N) != (len(source),):
            raise DataError(f"by_source: row_weights of shape {np.shape(weights_N)} for {len(source)} rows")
        return _normalised(np.asarray(weights_N, np.float64))

    return weigh


def count_classes(field: str = "label") -> Fittable:
    """Return the transform that changes nothing, and learns the rows of each class of the training split.

    The spec's meta gets them as ``class_counts``: what logit adjustment takes its priors from.

    Args:
      field: the class of each row [N].
    """
    return _counting("class_counts", lambda source: _classes(source, field)[2])


def count_codes(field: str = "item", mask: str = "", codes: int = 0) -> Fittable:
    """Return the transform that changes nothing, and learns how often the training split has each code of a field.

    The spec's meta gets it as ``counts:FIELD``: what corrections for the popularity of items take their shares from.

    Args:
      field: codes from 0, [N] or [N, T].
      mask: the field, of the same shape, that is 0 where there is none; empty counts all.
      codes: their number; 0 takes it from the data's fact ``categories:FIELD``.
    """
    return _counting(f"counts:{field}", lambda source: code_counts(source, field, mask, codes))


def _counting(fact: str, count: Callable[[Source], np.ndarray]) -> Fittable:
    def bind(_: Mapping[str, Any]) -> Transform:
        return lambda fields, randomness: fields

    return Fittable(lambda source: {fact: count(source).tolist()}, bind, lambda learnt: {fact: tuple(learnt[fact])})


def code_counts(source: Source, field: str, mask: str = "", codes: int = 0) -> np.ndarray:
    """Return how often a source has each code of `field` [C] int64; arguments as in `count_codes`.

    Raises:
      ConfigError: no such field, or no number of codes.
      DataError: a field that holds no whole numbers, or one beyond the codes; a mask of another shape.
    """
    number = codes_of(source, field, codes, "codes")
    if mask and mask not in source.spec.example:
        raise ConfigError(f"mask={mask!r}: the data has no such field{did_you_mean(mask, source.spec.example)}")
    counts_C = np.zeros(number, np.int64)
    for piece in chunks(source, (field, mask) if mask else (field,)):
        code = piece[field]
        if mask and piece[mask].shape != code.shape:
            raise DataError(f"field {mask!r} has the shape {piece[mask].shape}; expected {field!r}'s, {code.shape}")
        real = code[piece[mask] > 0] if mask else code.reshape(-1)
        wrong = real[(real < 0) | (real >= number)]
        if len(wrong):
            raise DataError(f"field {field!r} holds the code {wrong[0]}; expected 0 to {number - 1}")
        counts_C += np.bincount(real, minlength=number)
    return counts_C


def codes_of(source: Source, field: str, given: int, option: str) -> int:
    """Return how many codes `field` has: as `given` by the config's `option`, or as many as the data names."""
    if field not in source.spec.example:
        raise ConfigError(f"the data has no field {field!r}{did_you_mean(field, source.spec.example)}")
    if np.dtype(source.spec.example[field].dtype).kind not in "iu":
        raise DataError(f"field {field!r} holds {source.spec.example[field].dtype}; expected codes from 0")
    named = len(source.spec.meta.get(f"categories:{field}", ()))
    if 0 < given < named:
        raise ConfigError(f"{option}={given}: the data names {named} codes of {field!r}; expected as many or more")
    if not given and not named:
        raise ConfigError(f"{option}=0: expected their number, as the data has no fact 'categories:{field}'")
    return given or named


def weighted_order(weights: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the rows [N] int32 of an epoch: row i is there ``floor`` or ``ceil`` of N times its share of the weights.

    Systematic resampling (Kitagawa 1996, appendix): N evenly spaced points with one random offset are looked up in the
    cumulated weights, which has the least variance of the draws that have the right expectation; then the rows are
    shuffled.

    Args:
      weights: [N], not negative.
      seed: of the run.
      epoch: from 0.

    Raises:
      DataError: weights that are negative, not finite or all 0.
    """
    size = len(weights)
    cumulated_N = np.cumsum(_normalised(weights))
    cumulated_N *= size / cumulated_N[-1]
    generator = rng.host(seed, "order", epoch)
    points_N = np.arange(size) + generator.uniform()
    rows_N = np.searchsorted(cumulated_N, points_N, side="right")
    rows_N = np.minimum(rows_N, np.flatnonzero(np.asarray(weights))[-1])  # the last point, rounded up
    return generator.permutation(rows_N).astype(np.int32)


def class_counts(
    source: Source, weights: np.ndarray | None = None, field: str = "label"
) -> dict[str, tuple[int, float]]:
    """Return each class's number of rows and of draws that an epoch is expected to make, for the log.

    Args:
      source: the training split.
      weights: [N] of a rule; None draws each row once.
      field: the class of each row [N].
    """
    names, codes_N, counts = _classes(source, field)
    weights_N = np.ones(len(source)) if weights is None else _normalised(weights)
    drawn = np.bincount(codes_N, weights_N, minlength=len(names))
    return {name: (int(n), float(draws)) for name, n, draws in zip(names, counts, drawn, strict=True)}


def class_weights(counts: Sequence[int], power: float = 1.0) -> tuple[float, ...]:
    """Return a weight in the loss for each class, in proportion to ``n ** -power``, of mean 1 over the rows.

    Args:
      counts: rows of each class.
      power: 1 gives all classes the same sum of weights, 0 all rows the same weight.

    Raises:
      DataError: a class without rows.
    """
    counts_C = np.asarray(counts, np.float64)
    if not len(counts_C) or (counts_C <= 0).any():
        raise DataError(f"class_weights: counts={tuple(counts)!r}: expected rows of every class")
    weights_C = counts_C**-power
    return tuple((weights_C * counts_C.sum() / (weights_C @ counts_C)).tolist())


def _normalised(weights: np.ndarray) -> np.ndarray:
    weights_N = np.asarray(weights, np.float64)
    if weights_N.ndim != 1 or not np.isfinite(weights_N).all() or (weights_N < 0).any() or not weights_N.any():
        raise DataError("sampling weights must be finite, not negative and not all 0, one a row")
    return weights_N / weights_N.mean()


def _classes(source: Source, field: str) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return the classes' names [C], each row's class [N] and the rows of each class [C], 0 for those named only."""
    labels_N = read(source, (field,))[field]
    if labels_N.ndim != 1 or labels_N.dtype.kind == "f" or missing(labels_N).any():
        raise DataError(f"field {field!r} holds {labels_N.dtype} {labels_N.shape}; expected one class a row")
    names = source.spec.meta.get("classes") or ()
    if field == "label" and names and labels_N.dtype.kind in "iu":
        wrong = np.flatnonzero((labels_N < 0) | (labels_N >= len(names)))
        if len(wrong):
            raise DataError(f"row {wrong[0]}: label {labels_N[wrong[0]]} is outside the {len(names)} classes")
        return tuple(names), labels_N, np.bincount(labels_N, minlength=len(names))
    plain = labels_N if labels_N.dtype != object else np.asarray([str(value) for value in labels_N])
    values, codes_N, counts = np.unique(plain, return_inverse=True, return_counts=True)
    return tuple(str(value) for value in values), codes_N.reshape(-1), counts
