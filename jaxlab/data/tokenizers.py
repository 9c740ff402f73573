"""Tokenizers as pure objects: text to ids and back, as plain JSON. Knows no data set and no model.

All of them begin with the special ids, in the order in which they are declared: they stand for no text, so a text that
says ``<pad>`` is six characters like any other. Bytes and characters are done here. BPE, WordPiece and Unigram are
trained and run by the `tokenizers` library over the UTF-8 bytes of words, with all 256 bytes in the vocabulary: nothing
is normalised, nothing is unknown, and ``decode(encode(text)) == text`` for any text.
Usage: ``spec("jaxlab.data.tokenize:byte")``, or here ``from_json(json.loads(text)).encode("a text")``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, DataError, JaxlabError, did_you_mean

SPECIALS = ("pad", "bos", "eos", "unk", "mask")
SUBWORDS = ("bpe", "wordpiece", "unigram")
KINDS = ("byte", "character", *SUBWORDS)
UNKNOWN = "\ufffd"  # what decoding shows for the id of `unk`
INSIDE = "\u22ef"  # marks WordPiece's pieces inside a word; no byte is written so, and `##` would be a text's own
# words of at most 64 characters, so that the time for a text without spaces stays linear; every character is in one
_WORDS = (
    r" ?[\p{L}\p{M}]{1,64}| ?\p{N}{1,64}| ?[^\s\p{L}\p{M}\p{N}]{1,64}"
    r"|\s{1,64}(?!\S)|\s{1,64}"
)


class Tokenizer:
    """What all tokenizers share: a table of the bytes that each id stands for."""

    kind = ""

    def __init__(self, specials: Sequence[str], pieces: Sequence[bytes]) -> None:
        """Give ids 0, 1, … to `specials` and the following to `pieces`."""
        self.specials = checked_specials(specials)
        self._pieces = [UNKNOWN.encode() if name == "unk" else b"" for name in self.specials] + list(pieces)

    @property
    def special(self) -> dict[str, int]:
        """The ids of the special tokens by name."""
        return {name: i for i, name in enumerate(self.specials)}

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """The bytes that each id stands for: none of a special one, those of U+FFFD of `unk`."""
        return tuple(self._pieces)

    @property
    def vocabulary_size(self) -> int:
        """The number of ids, the special ones included."""
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without special ones except `unk`."""
        return self.encode_batch([text])[0].tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, int32 [T] each."""
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; special ids stand for none, bytes that are not UTF-8 become U+FFFD.

        Raises:
          DataError: an id outside the vocabulary.
        """
        numbers = [int(i) for i in ids]
        wrong = next((i for i in numbers if not 0 <= i < self.vocabulary_size), None)
        if wrong is not None:
            raise DataError(f"decode: id {wrong} is not in the vocabulary of {self.vocabulary_size}")
        content = b"".join(self._pieces[i] for i in numbers)
        try:
            return content.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # ids that a model made up, or a text cut inside a character
            return content.decode("utf-8", "replace")

    def to_json(self) -> dict[str, Any]:
        """Return all that `from_json` needs, as plain JSON."""
        return {"kind": self.kind, "specials": list(self.specials), **self._learnt()}

    def _learnt(self) -> dict[str, Any]:
        return {}


class ByteTokenizer(Tokenizer):
    """One id a byte of UTF-8; a lone surrogate, which UTF-8 forbids, is written like any other code point."""

    kind = "byte"

    def __init__(self, specials: Sequence[str] = SPECIALS) -> None:
        """Give the ids after `specials` to the bytes 0 to 255."""
        super().__init__(specials, [bytes([value]) for value in range(256)])

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, int32 [T] each."""
        first = len(self.specials)
        contents = (np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8) for text in texts)
        return [content.astype(np.int32) + np.int32(first) for content in contents]


class CharacterTokenizer(Tokenizer):
    """One id a code point of the training text; any other is `unk`."""

    kind = "character"

    def __init__(self, specials: Sequence[str], code_points: Iterable[int]) -> None:
        """Give the ids after `specials`, of which one must be `unk`, to `code_points` in rising order."""
        self._points = np.array(sorted(code_points), np.uint32)
        super().__init__(specials, [chr(point).encode("utf-8", "surrogatepass") for point in self._points])
        if "unk" not in self.special:
            raise ConfigError(f"specials={tuple(specials)} must name 'unk', for characters that training never saw")

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, int32 [T] each."""
        return [self._ids(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")) for text in texts]

    def _ids(self, points_T: np.ndarray) -> np.ndarray:
        if not len(self._points):
            return np.full(len(points_T), self.special["unk"], np.int32)
        place_T = np.searchsorted(self._points, points_T).clip(max=len(self._points) - 1)
        known_T = self._points[place_T] == points_T
        return np.where(known_T, place_T + len(self.specials), self.special["unk"]).astype(np.int32)

    def _learnt(self) -> dict[str, Any]:
        return {"code_points": self._points.tolist()}  # numbers, as JSON would join two surrogates into one character


class SubwordTokenizer(Tokenizer):
    """BPE, WordPiece or Unigram over the bytes of words."""

    def __init__(self, specials: Sequence[str], kind: str, pieces: Sequence[str], numbers: Sequence[Any] = ()) -> None:
        """Give the ids after `specials` to `pieces`.

        Args:
          specials: names of special tokens.
          kind: one of SUBWORDS.
          pieces: the library's pieces, with one letter a byte.
          numbers: for BPE the merges as pairs of pieces, in order; for Unigram the score of each piece.
        """
        self.kind, self._names, self._numbers = kind, list(pieces), list(numbers)
        self._library = library_tokenizer(kind, self._names, self._numbers)
        byte_of = byte_letters()
        super().__init__(specials, [bytes(byte_of[c] for c in name.removeprefix(INSIDE)) for name in pieces])

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, int32 [T] each; a DataError for a lone surrogate."""
        try:
            encoded = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            for text in texts:
                check_unicode(text)
            raise
        return [np.array(x.ids, np.int32) + np.int32(len(self.specials)) for x in encoded]

    def _learnt(self) -> dict[str, Any]:
        return {"pieces": self._names, "numbers": self._numbers}


def from_json(learnt: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer whose `to_json` is `learnt`; a DataError if it is none."""
    try:
        kind, specials = learnt["kind"], learnt["specials"]
        if not isinstance(kind, str) or not isinstance(specials, list | tuple):
            raise TypeError("its kind is to be a text, its specials a list of texts")
        if kind == "byte":
            return ByteTokenizer(specials)
        if kind == "character":
            return CharacterTokenizer(specials, learnt["code_points"])
        if kind in SUBWORDS:
            return SubwordTokenizer(specials, kind, learnt["pieces"], learnt["numbers"])
    except JaxlabError:
        raise
    except Exception as error:  # the library's own is a bare Exception, of several lines
        said = " ".join(str(error).split())
        raise DataError(f"this is no tokenizer's JSON: {type(error).__name__}: {said}") from error
    raise DataError(f"a tokenizer's JSON has the kind {kind!r}{did_you_mean(kind, KINDS)}")


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of the tokenizer's JSON."""
    return hashlib.sha256(json.dumps(tokenizer.to_json(), sort_keys=True).encode()).hexdigest()


def check_unicode(text: str) -> str:
    """Return `text`; a DataError if it has a lone surrogate, which the library does not take."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"character {error.start} of a text is the lone surrogate U+{ord(text[error.start]):04X}, which no valid "
            "Unicode has; mend the text or use the byte or character tokenizer"
        ) from error
    return text


def ends(specials: Sequence[str], begin: bool, end: bool) -> tuple[list[int], list[int]]:
    """Return the ids before and after each text: that of ``bos`` with `begin`, that of ``eos`` with `end`.

    Raises:
      ConfigError: a special token that is not declared.
    """
    for name, wanted in (("bos", begin), ("eos", end)):
        if wanted and name not in specials:
            raise ConfigError(f"begin or end needs {name!r}; specials={tuple(specials)}")
    return [specials.index("bos")] if begin else [], [specials.index("eos")] if end else []


def checked_specials(specials: Sequence[str]) -> tuple[str, ...]:
    """Return `specials` as a tuple; a ConfigError if they are no different names with `pad` among them."""
    names = tuple(specials)
    if "pad" not in names or len(set(names)) != len(names) or not all(isinstance(n, str) and n for n in names):
        raise ConfigError(f"specials={specials!r}: expected different names of special tokens, 'pad' among them")
    return names


def import_library() -> Any:
    """Return the `tokenizers` library; a ConfigError with the command that installs it."""
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError("bpe, wordpiece and unigram tokenizers need: pip install 'jaxlab[text]'") from error
    return tokenizers


def byte_letters() -> dict[str, int]:
    """Return the byte for each of the 256 letters in which the library writes bytes: a printable one is itself."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + i): value for i, value in enumerate(hidden)}


def library_tokenizer(kind: str, pieces: Sequence[str], numbers: Sequence[Any]) -> Any:
    """Return the library's tokenizer of `pieces`, which cuts text into words of bytes; see SubwordTokenizer."""
    library = import_library()
    models, before = library.models, library.pre_tokenizers
    ids = {piece: i for i, piece in enumerate(pieces)}
    if kind == "unigram":
        model = models.Unigram(list(zip(pieces, numbers, strict=True)) if pieces else None)
    elif kind == "bpe":
        model = models.BPE(vocab=ids, merges=[tuple(pair) for pair in numbers])
    else:
        model = models.WordPiece(ids, continuing_subword_prefix=INSIDE, unk_token="", max_input_chars_per_word=2**20)
    tokenizer, words = library.Tokenizer(model), before.Split(library.Regex(_WORDS), "isolated")
    tokenizer.pre_tokenizer = before.Sequence([words, before.ByteLevel(add_prefix_space=False, use_regex=False)])
    return tokenizer
