"""Transforms that turn text fields into padded tokens, with a tokenizer learnt from the training split.

Each factory is a `Fittable`: what it learns is the tokenizer's JSON, saved with the run. The text field is replaced by
``tokens`` int32 [B, T] and ``token_mask`` float32 [B, T] (1 a token, 0 padding); the fields ``("en", "de")`` by
``en_tokens``, ``en_mask``, ``de_tokens``, ``de_mask`` of one shared vocabulary. The data's spec gains the facts
vocabulary_size, pad_id, specials (ids by name), tokenizer (its hash) and pieces: the bytes of UTF-8 that each id stands
for, as letters of Latin-1, one a byte. Knows no model.
Usage: ``data.transforms = (spec("jaxlab.data.tokenize:bpe", field="text", length=128, vocabulary_size=8000),)``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlab.core import limits
from jaxlab.core.errors import ConfigError, DataError
from jaxlab.core.types import Fittable, Randomness, Source, Transform
from jaxlab.data.text_fields import as_texts, padded, text_column, texts_of
from jaxlab.data.tokenizer_training import train
from jaxlab.data.tokenizers import SPECIALS, Tokenizer, ends, fingerprint, from_json


def byte(
    field: str = "text",
    length: int = 128,
    specials: tuple[str, ...] = SPECIALS,
    fields: tuple[str, ...] = (),
    begin: bool = False,
    end: bool = False,
    output: str = "tokens",
) -> Fittable:
    """Return the transform of texts into bytes of UTF-8; it learns nothing.

    Args:
      field: the text field; its tokens become the field `output`.
      length: T; longer texts are cut, shorter ones padded.
      specials: names of the special tokens, which take the first ids; ``pad`` must be among them.
      fields: several text fields instead of one; their tokens are named after them.
      begin: whether ``bos`` stands before each text.
      end: whether ``eos`` stands after each text; one that is cut has none, as it does not end.
      output: name of the tokens of `field`.
    """
    return _fittable({"kind": "byte", "specials": specials}, fields or (field,), length, begin, end, output)


def character(
    field: str = "text",
    length: int = 128,
    minimum_count: int = 1,
    specials: tuple[str, ...] = SPECIALS,
    fields: tuple[str, ...] = (),
    begin: bool = False,
    end: bool = False,
    output: str = "tokens",
) -> Fittable:
    """Return the transform of texts into characters: those that training shows `minimum_count` times, else ``unk``.

    The other arguments are those of `byte`.
    """
    kind = {"kind": "character", "specials": specials, "minimum_count": minimum_count}
    return _fittable(kind, fields or (field,), length, begin, end, output)


def bpe(
    field: str = "text",
    length: int = 128,
    vocabulary_size: int = 8000,
    specials: tuple[str, ...] = SPECIALS,
    fields: tuple[str, ...] = (),
    begin: bool = False,
    end: bool = False,
    output: str = "tokens",
) -> Fittable:
    """Return the transform of texts into byte-pair encodings (Sennrich et al. 2016, arXiv 1508.07909) over bytes.

    `vocabulary_size` counts the special tokens; a short training text may fill less. Others: see `byte`.
    """
    kind = {"kind": "bpe", "specials": specials, "vocabulary_size": vocabulary_size}
    return _fittable(kind, fields or (field,), length, begin, end, output)


def wordpiece(
    field: str = "text",
    length: int = 128,
    vocabulary_size: int = 8000,
    specials: tuple[str, ...] = SPECIALS,
    fields: tuple[str, ...] = (),
    begin: bool = False,
    end: bool = False,
    output: str = "tokens",
) -> Fittable:
    """Return the transform of texts into WordPieces (the longest match; arXiv 1810.04805) over bytes; see `bpe`."""
    kind = {"kind": "wordpiece", "specials": specials, "vocabulary_size": vocabulary_size}
    return _fittable(kind, fields or (field,), length, begin, end, output)


def unigram(
    field: str = "text",
    length: int = 128,
    vocabulary_size: int = 8000,
    specials: tuple[str, ...] = SPECIALS,
    fields: tuple[str, ...] = (),
    begin: bool = False,
    end: bool = False,
    output: str = "tokens",
) -> Fittable:
    """Return the transform of texts into pieces of a unigram model (Kudo 2018, arXiv 1804.10959); see `bpe`."""
    kind = {"kind": "unigram", "specials": specials, "vocabulary_size": vocabulary_size}
    return _fittable(kind, fields or (field,), length, begin, end, output)


def train_tokenizer(
    source: Source,
    kind: str,
    vocabulary_size: int,
    path: str | os.PathLike[str],
    field: str = "text",
    specials: Sequence[str] = SPECIALS,
) -> Tokenizer:
    """Train a tokenizer on the texts of `source`, which should be the training split, and write its JSON to `path`."""
    tokenizer = train(texts_of(source, (field,)), kind, vocabulary_size, specials)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.incomplete")
    unfinished.write_text(json.dumps(tokenizer.to_json()) + "\n")
    unfinished.replace(target)
    return tokenizer


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Return the tokenizer that `train_tokenizer` wrote to `path`; a DataError if there is none."""
    try:
        return from_json(limits.read_json(Path(path), limits.LIST_BYTES))
    except (ConfigError, DataError) as error:
        raise DataError(f"{path} holds no tokenizer: {error}; `train_tokenizer` writes one") from error


def tokens_meta(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the facts about a tokenizer that a data's spec holds."""
    return {
        "vocabulary_size": tokenizer.vocabulary_size,
        "pad_id": tokenizer.special["pad"],
        "specials": tokenizer.special,
        "tokenizer": fingerprint(tokenizer),
        "pieces": tuple(piece.decode("latin-1") for piece in tokenizer.pieces),
    }


def _fittable(
    kind: Mapping[str, Any], fields: tuple[str, ...], length: int, begin: bool, end: bool, output: str
) -> Fittable:
    name = kind["kind"]
    if length < 1:
        raise ConfigError(f"{name}: length={length}; expected at least 1 token")
    before, after = ends(kind["specials"], begin, end)
    names = {f: (f"{f}_tokens", f"{f}_mask") for f in fields}
    if len(fields) == 1:
        names = {fields[0]: (output, "token_mask" if output == "tokens" else f"{output.removesuffix('_tokens')}_mask")}

    def bind(learnt: Mapping[str, Any]) -> Transform:
        tokenizer = from_json(learnt)

        def transform(rows: Mapping[str, np.ndarray], randomness: Randomness) -> Mapping[str, np.ndarray]:
            result = {field: value for field, value in rows.items() if field not in names}
            for field, (tokens, mask) in names.items():
                documents = tokenizer.encode_batch(as_texts(text_column(rows, field), field))
                wrapped = [np.concatenate([before, ids, after]).astype(np.int32) for ids in documents]
                result[tokens], result[mask] = padded(wrapped, length, tokenizer.special["pad"])
            return result

        return transform

    def fit(source: Source) -> Mapping[str, Any]:
        return train(texts_of(source, fields), **kind).to_json()

    return Fittable(fit, bind, lambda learnt: tokens_meta(from_json(learnt)))
