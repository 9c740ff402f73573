"""Texts of the prediction store: token ids as the strings that they stand for, what was written beside its reference.

Knows tokenizers only by two facts of the data: ``pieces``, the bytes of each token id, a letter of Latin-1 a byte, and
``specials``.
Shape letters: N examples, T tokens of the reference, L tokens written.
Usage: ``generated, references = Written.of(data).pairs(table)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxlab.core.errors import DataError, did_you_mean
from jaxlab.core.types import DataSpec, Table

_UNKNOWN = "\ufffd".encode().decode("latin-1")


class Written(NamedTuple):
    """Where the texts of an example are, and what their ids stand for."""

    pieces: tuple[str, ...]  # a letter a byte
    end: int  # the id that ends a text; -1 for none
    generated: str
    reference: str
    weight: str

    @classmethod
    def of(
        cls, data: DataSpec, generated: str = "generated", reference: str = "target", weight: str = "token_weight"
    ) -> Written:
        """Return how the texts of this data are read.

        Args:
          data: tokenised, with the facts ``pieces`` and ``specials``.
          generated: the column of ids that a model wrote [N, L].
          reference: the column of ids that it should have written [N, T].
          weight: the column that is 0 where the reference has no token [N, T]; empty for none.

        Raises:
          DataError: the data was not tokenised.
        """
        pieces = data.meta.get("pieces")
        if not pieces:
            raise DataError(
                "the data has no fact 'pieces', the bytes that each token id stands for, which metrics of text need; "
                f"tokenise it, as by jaxlab.data.tokenize:byte (it has {', '.join(data.meta) or 'no facts'})"
            )
        end = data.meta.get("specials", {}).get("eos", -1)
        return cls(tuple(pieces), int(end), generated, reference, weight)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the table that are needed."""
        return tuple(name for name in (self.generated, self.reference, self.weight) if name)

    def pairs(self, table: Table) -> tuple[list[str], list[str]]:
        """Return what was written and the references, a text an example.

        A text is over before the first ``eos``. Special ids stand for nothing, ids beyond the vocabulary and ``unk``
        for U+FFFD, and so do bytes that are not UTF-8: a reference is what is left of it in its tokens.

        Raises:
          DataError: a column is not there or is no [N, T] of integers.
        """
        written_NL, reference_NT = self._ids(table, self.generated), self._ids(table, self.reference)
        real_NT = np.ones(reference_NT.shape, bool)
        if self.weight:
            if table[self.weight].shape != reference_NT.shape:
                raise DataError(f"the column {self.weight!r} is {table[self.weight].shape}, not {reference_NT.shape}")
            real_NT = table[self.weight] > 0
        return (
            [self.text(ids_L) for ids_L in written_NL],
            [self.text(ids_T[real_T]) for ids_T, real_T in zip(reference_NT, real_NT, strict=True)],
        )

    def text(self, ids_T: np.ndarray) -> str:
        """Return the text that ids [T] stand for, up to the first ``eos``."""
        ends = np.flatnonzero(ids_T == self.end)
        ids = ids_T[: ends[0]].tolist() if len(ends) else ids_T.tolist()
        letters = "".join(self.pieces[i] if 0 <= i < len(self.pieces) else _UNKNOWN for i in ids)
        content = letters.encode("latin-1")
        try:
            return content.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # bytes that a model made up, or a text cut inside a character
            return content.decode("utf-8", "replace")

    def _ids(self, table: Table, name: str) -> np.ndarray:
        if name not in table:
            raise DataError(
                f"the prediction store has no {name!r}{did_you_mean(name, table)} (config.generate makes what is "
                "written, as jaxlab.models.write:translate does)"
            )
        ids = np.asarray(table[name])
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise DataError(f"the column {name!r} is {ids.dtype}{list(ids.shape)}; expected token ids [N, T]")
        return ids
