"""Checks of a model's options, made by its factory before anything is compiled; each failure is a ConfigError.

Usage: ``divisor("heads", heads, "width", width)``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import DataSpec


def within(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Refuse a number outside ``low <= value <= high``."""
    if not low <= value <= high:
        bound = f"{low} or more" if high == float("inf") else f"{low} to {high}"
        raise ConfigError(f"config.model.{name}={value}: expected {bound}")


def rate(name: str, value: float) -> None:
    """Refuse what is no probability below 1."""
    if not 0 <= value < 1:
        raise ConfigError(f"config.model.{name}={value}: expected a rate from 0 to below 1")


def word(name: str, value: str, words: Sequence[str]) -> None:
    """Refuse a word that is none of `words`."""
    if value not in words:
        raise ConfigError(
            f"config.model.{name}={value!r}: expected one of {', '.join(words)}{did_you_mean(str(value), words)}"
        )


def divisor(name: str, value: int, of: str, whole: int) -> None:
    """Refuse a number that does not divide `whole`, and name the nearest that does."""
    if whole % value:
        nearest = min((n for n in range(1, whole + 1) if whole % n == 0), key=lambda n: abs(n - value))
        raise ConfigError(f"config.model.{name}={value}: expected a divisor of {of}={whole}; did you mean {nearest}?")


def vocabulary(data: DataSpec, size: int) -> int:
    """Return the number of token ids: the data's where `size` is 0, and never less."""
    if size and size < data.vocabulary_size:
        raise ConfigError(
            f"config.model.vocabulary_size={size}: vocabulary too small; expected {data.vocabulary_size} or more, the "
            "data's, or 0 for just that"
        )
    return size or data.vocabulary_size


def fits(length: int, max_length: int) -> None:
    """Refuse rows of more tokens than a model has positions."""
    if length > max_length:
        raise ConfigError(f"config.model.max_length={max_length}: a row has {length} tokens; expected {length} or more")


def rows_fit(data: DataSpec, fields: str, max_length: int) -> None:
    """Refuse a `max_length` below the length of a field of the data whose name matches the expression `fields`."""
    within("max_length", max_length, 1)
    for name, shape in data.example.items():
        if re.fullmatch(fields, name) and len(shape.shape) == 1:
            fits(shape.shape[0], max_length)
