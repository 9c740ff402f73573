"""Trains tokenizers from texts; the same texts give the same tokenizer. Knows no data set.

Usage: ``train(texts, "bpe", 8000)``; a config names ``spec("jaxlab.data.tokenize:bpe", vocabulary_size=8000)``.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jaxlab.core.errors import ConfigError, DataError, did_you_mean
from jaxlab.data.tokenizers import (
    INSIDE,
    KINDS,
    SPECIALS,
    ByteTokenizer,
    CharacterTokenizer,
    SubwordTokenizer,
    Tokenizer,
    byte_letters,
    check_unicode,
    checked_specials,
    import_library,
    library_tokenizer,
)

_FILLER = 256 * 1e-4  # how far above the lowest score the library puts bytes that it has not seen, in random order


def train(
    texts: Iterable[str],
    kind: str,
    vocabulary_size: int = 8000,
    specials: Sequence[str] = SPECIALS,
    minimum_count: int = 1,
) -> Tokenizer:
    """Return a tokenizer of `kind`, trained on `texts` if it is of a kind that learns.

    Args:
      texts: the training texts.
      kind: one of KINDS.
      vocabulary_size: for BPE, WordPiece and Unigram the number of ids, special ones included; a short text may fill
        fewer.
      specials: names of special tokens, which take the first ids.
      minimum_count: for characters, how often one must occur; the others are `unk`.

    Raises:
      ConfigError: no such kind, the library is missing, or `vocabulary_size` is less than the bytes need.
      DataError: no text; a text with a lone surrogate, for BPE, WordPiece and Unigram.
    """
    if kind == "byte":
        return ByteTokenizer(specials)
    if kind not in KINDS:
        raise ConfigError(f"no such kind of tokenizer: {kind!r}{did_you_mean(kind, KINDS)}")
    if kind == "character":
        return _train_character(_not_empty(texts), specials, minimum_count)
    return _train_subword(_not_empty(texts), kind, vocabulary_size, specials)


def _not_empty(texts: Iterable[str]) -> Iterator[str]:
    characters = 0
    for text in texts:
        characters += len(text)
        yield text
    if not characters:
        raise DataError("there is no text to train a tokenizer on: all texts are empty")


def _train_character(texts: Iterable[str], specials: Sequence[str], minimum_count: int) -> Tokenizer:
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(text)
    return CharacterTokenizer(specials, (ord(c) for c, count in counts.items() if count >= minimum_count))


def _train_subword(texts: Iterable[str], kind: str, vocabulary_size: int, specials: Sequence[str]) -> Tokenizer:
    least = len(checked_specials(specials)) + (512 if kind == "wordpiece" else 256)
    if vocabulary_size < least:
        raise ConfigError(f"{kind}: vocabulary_size={vocabulary_size}; the special tokens and all bytes need {least}")
    library = library_tokenizer(kind, (), ())
    library.train_from_iterator(map(check_unicode, texts), _trainer(kind, vocabulary_size - len(specials)))
    model = json.loads(library.to_str())["model"]
    if kind == "unigram":
        return SubwordTokenizer(specials, kind, *_settled(model["vocab"]))
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return SubwordTokenizer(specials, kind, pieces, model.get("merges", ()))


def _trainer(kind: str, pieces: int) -> Any:
    trainers, letters = import_library().trainers, sorted(byte_letters())
    common = {"vocab_size": pieces, "initial_alphabet": letters, "show_progress": False}
    if kind == "bpe":
        return trainers.BpeTrainer(special_tokens=[], **common)
    if kind == "unigram":
        return trainers.UnigramTrainer(special_tokens=[], **common)
    inside = [INSIDE + letter for letter in letters]  # named, as the trainer adds only those that it has seen
    return trainers.WordPieceTrainer(special_tokens=inside, continuing_subword_prefix=INSIDE, **common)


def _settled(scored: Sequence[tuple[str, float]]) -> tuple[list[str], list[float]]:
    """Return pieces and scores without what differs between two trainings: float noise and the order of filler."""
    lowest = min(score for _, score in scored)
    final = {p: lowest if len(p) == 1 and score < lowest + _FILLER * 1.01 else score for p, score in scored}
    ordered = sorted((-round(score, 6), piece) for piece, score in final.items())
    return [piece for _, piece in ordered], [-score for score, _ in ordered]
