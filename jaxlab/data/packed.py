"""A source of packed rows for language models: the texts of another source, tokenised once, cached and packed.

The fields are those of `jaxlab.data.packing.pack`. Knows no model.
Usage: ``spec("jaxlab.data.packed:make", source=spec("jaxlab.data.text_source:lines", path="a.txt"), length=1024)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Source
from jaxlab.data.arrays import ArraySource
from jaxlab.data.cache import Kept, cached, home, key_of, ragged
from jaxlab.data.packing import pack_flat
from jaxlab.data.text_fields import as_texts, text_column, texts_of
from jaxlab.data.tokenize import load_tokenizer, tokens_meta
from jaxlab.data.tokenizers import ByteTokenizer, Tokenizer, ends, fingerprint

_PROBES = 256  # rows that are compared with the cache, beside the source's fingerprint
_ENCODE_TEXTS = 1024


def make(
    source: Source,
    tokenizer: str = "byte",
    length: int = 1024,
    field: str = "text",
    mode: str = "best_fit",
    begin: bool = False,
    end: bool = True,
    cache: str | None = None,
) -> ArraySource:
    """Return the texts of `source`, a document each, packed into rows of tokens.

    ``meta`` is the source's, without ``classes``, and vocabulary_size, pad_id, specials, tokenizer (its hash),
    tokenizer_file, documents, tokens, fill (the share of the rows that is not padding) and a fingerprint of all this.

    Args:
      source: with a text field.
      tokenizer: ``byte``, or the path of a JSON file that `jaxlab.data.tokenize.train_tokenizer` wrote.
      length: T, tokens of a row.
      field: the text field.
      mode: ``best_fit`` or ``concatenate``; see `jaxlab.data.packing.pack`.
      begin: whether ``bos`` stands before each document.
      end: whether ``eos`` stands after each document, so that a model learns where texts end.
      cache: folder for the tokens; None is jaxlab/tokens in $XDG_CACHE_HOME or ~/.cache; "" keeps none.

    Raises:
      ConfigError: no such field, mode or tokenizer, or the tokenizer lacks ``bos`` or ``eos``.
      DataError: the file holds no tokenizer, a text is none, or all are empty.
    """
    chosen = _chosen(tokenizer)
    before, after = ends(chosen.specials, begin, end)

    def tokenise() -> Kept:
        return encoded(texts_of(source, (field,)), chosen, before, after), {}

    content = _content(source, field)
    key = key_of("tokens", content, fingerprint(chosen), begin, end)
    folder = home() / "tokens" if cache is None else Path(cache).expanduser()
    tokens, _ = tokenise() if cache == "" else cached([folder / key], tokenise)
    rows = pack_flat(tokens["flat"], tokens["offsets"], length, mode, chosen.special["pad"])
    facts = {name: value for name, value in source.spec.meta.items() if name not in ("classes", "fingerprint")}
    facts |= {
        **tokens_meta(chosen),
        "documents": int(np.count_nonzero(np.diff(tokens["offsets"]))),
        "tokens": len(tokens["flat"]),
        "fill": len(tokens["flat"]) / rows["tokens"].size,
        "tokenizer_file": tokenizer if tokenizer != "byte" else "",
        "fingerprint": f"packed:{key_of(key, length, mode)}",
    }
    return ArraySource(rows, facts)


def encoded(texts: Iterable[str], tokenizer: Tokenizer, before: list[int], after: list[int]) -> dict[str, np.ndarray]:
    """Return the tokens of texts end to end and where each begins; an empty text has none, not even special ones.

    Returns:
      ``flat``, of the smallest dtype that holds the vocabulary, and ``offsets`` [D + 1]; see `cache.ragged`.
    """
    dtype = np.uint16 if tokenizer.vocabulary_size <= 2**16 else np.int32
    parts: list[Mapping[str, np.ndarray]] = []
    waiting: list[str] = []

    def flush() -> None:
        documents = tokenizer.encode_batch(waiting)
        wrapped = [np.concatenate([before, ids, after]).astype(dtype) if len(ids) else ids for ids in documents]
        parts.append(ragged([ids.astype(dtype) for ids in wrapped], dtype))
        waiting.clear()

    for text in texts:
        waiting.append(text)
        if len(waiting) == _ENCODE_TEXTS:
            flush()
    flush()
    sizes = np.concatenate([np.diff(part["offsets"]) for part in parts])
    flat = np.concatenate([part["flat"] for part in parts])
    return {"flat": flat, "offsets": np.cumsum([0, *sizes], dtype=np.int64)}


def _chosen(tokenizer: str) -> Tokenizer:
    if tokenizer == "byte":
        return ByteTokenizer()
    if not Path(tokenizer).is_file():
        raise ConfigError(f"packed: tokenizer={tokenizer!r}; expected 'byte' or a file that `train_tokenizer` wrote")
    return load_tokenizer(tokenizer)


def _content(source: Source, field: str) -> list[str | int]:
    """Return facts that change with the texts: the fingerprint and some rows of a source that has one, else all.

    A source that chooses rows of another may have taken over its fingerprint, which the rows then tell apart.
    """
    known = source.spec.meta.get("fingerprint")
    digest = hashlib.sha256()
    if known is None:
        texts: Iterable[str] = texts_of(source, (field,))
    else:
        probes = np.unique(np.linspace(0, len(source) - 1, _PROBES).astype(np.int64))
        texts = as_texts(text_column(source.__getitems__(probes), field), field)
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return [str(known), field, len(source), digest.hexdigest()]
