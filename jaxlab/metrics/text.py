"""Metrics of written text: BLEU, chrF, ROUGE and the word error rate of what a model writes, beside references.

Each reads the token ids that ``config.generate`` wrote and those of the objective's ``target``, and compares the texts
that they stand for (`jaxlab.metrics.written`). What a text adds is counted once; the number of any weights is made of
weighted sums. Knows no tokenizer and no model. Shape letters: N examples, S statistics, K kinds.
Usage: ``config.metrics.bleu = spec("jaxlab.metrics.text:bleu")``.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, UndefinedError, did_you_mean
from jaxlab.core.types import DataSpec, Table, TableMetric, Weighted
from jaxlab.metrics.alignment import common_lengths, edit_distances
from jaxlab.metrics.corpus import Corpus, library, total
from jaxlab.metrics.written import Written

_WORDS = {"ascii": re.compile(r"[a-z0-9]+"), "unicode": re.compile(r"[^\W_]+")}
_FINE = 2**20


def bleu(
    data: DataSpec,
    tokenize: str = "13a",
    lowercase: bool = False,
    smoothing: str = "exp",
    generated: str = "generated",
    reference: str = "target",
    weight: str = "token_weight",
) -> TableMetric:
    """Return BLEU (Papineni et al. 2002, https://doi.org/10.3115/1073083.1073135) of the whole corpus, from 0 to 100.

    By sacrebleu (Post 2018, arXiv 1804.08771): with the defaults the number is that of its ``corpus_bleu``, and
    `signature` says which one it is. A model that writes nothing has 0; without a word in any reference there is none.

    Args:
      data: tokenised; see `jaxlab.metrics.written.Written.of`.
      tokenize: how sacrebleu cuts texts into words: ``13a`` that of WMT, ``intl``, ``zh``, ``char``, ``none``, ….
      lowercase: whether capitals do not matter.
      smoothing: ``exp``, ``floor``, ``add-k`` or ``none``: what precisions of 0 become.
      generated: the column of ids that the model wrote [N, L].
      reference: the column of ids that it should have written [N, T].
      weight: the column that is 0 where the reference has no token [N, T]; empty for none.

    Raises:
      ConfigError: an option that sacrebleu does not have, or it is not installed.
      DataError: the data was not tokenised.
    """
    scores = library().BLEU
    _check("bleu", "tokenize", tokenize, scores.TOKENIZERS)
    _check("bleu", "smoothing", smoothing, scores.SMOOTH_DEFAULTS)
    scorer = scores(lowercase=lowercase, tokenize=tokenize, smooth_method=smoothing, force=True)

    def number(sums_S: np.ndarray) -> float:
        if not sums_S[1]:
            raise UndefinedError("no reference has a word")
        # sacrebleu wants whole lengths, of which only the quotient counts: weights that are no whole numbers fit too
        lengths = [round(length * _FINE) for length in sums_S[:2].tolist()]
        return float(scorer._compute_score_from_stats([*lengths, *sums_S[2:].tolist()]).score)

    written = Written.of(data, generated, reference, weight)
    return TableMetric(written.reads, Corpus(scorer, written, number))


def chrf(
    data: DataSpec,
    characters: int = 6,
    words: int = 0,
    beta: int = 2,
    lowercase: bool = False,
    generated: str = "generated",
    reference: str = "target",
    weight: str = "token_weight",
) -> TableMetric:
    """Return chrF (Popović 2015, https://doi.org/10.18653/v1/W15-3049) of the whole corpus by sacrebleu, 0 to 100.

    A model that writes nothing has 0; without a character in any reference there is none.

    Args:
      data: as in `bleu`, and so are the columns.
      characters: the longest n-grams of characters that count; spaces do not.
      words: the longest of words; 2 is chrF++.
      beta: how many times recall weighs as much as precision.
      lowercase: whether capitals do not matter.
      generated: what the model wrote.
      reference: what it should have written.
      weight: 0 where the reference has no token.

    Raises:
      ConfigError: an option out of its range, or sacrebleu is not installed.
      DataError: the data was not tokenised.
    """
    for name, value, least in (("characters", characters, 1), ("words", words, 0), ("beta", beta, 1)):
        if value < least:
            raise ConfigError(f"config.metrics: chrf with {name}={value}; expected {least} or more")
    scorer = library().CHRF(char_order=characters, word_order=words, beta=beta, lowercase=lowercase)

    def number(sums_S: np.ndarray) -> float:
        if not sums_S[1]:
            raise UndefinedError("no reference has a character")
        return float(scorer._compute_score_from_stats(sums_S.tolist()).score)

    written = Written.of(data, generated, reference, weight)
    return TableMetric(written.reads, Corpus(scorer, written, number))


def signature(metric: TableMetric) -> str:
    """Return which BLEU or chrF this is, as sacrebleu says it for others to repeat; "" for another metric."""
    return metric.prepare.signature if isinstance(metric.prepare, Corpus) else ""


def rouge(
    data: DataSpec,
    kinds: tuple[str, ...] = ("rouge1", "rouge2", "rougeL"),
    letters: str = "ascii",
    generated: str = "generated",
    reference: str = "target",
    weight: str = "token_weight",
) -> TableMetric:
    """Return ROUGE (Lin 2004, https://aclanthology.org/W04-1013): the mean over texts of each kind's F1, from 0 to 1.

    As Google's rouge-score without its stemmer: words in lower case; a text in which nothing can match has 0.

    Args:
      data: as in `bleu`, and so are the columns.
      kinds: ``rouge1`` to ``rouge9`` of n-grams, ``rougeL`` of the longest common subsequence.
      letters: ``ascii``, as rouge-score, which takes any other letter for a gap between words, or ``unicode``.
      generated: what the model wrote.
      reference: what it should have written.
      weight: 0 where the reference has no token.

    Raises:
      ConfigError: a kind or letters that are none.
      DataError: the data was not tokenised.
    """
    _check("rouge", "letters", letters, _WORDS)
    for kind in kinds or ("",):
        if not re.fullmatch(r"rouge([1-9]|L)", kind):
            raise ConfigError(f"config.metrics: rouge of the kind {kind!r}; expected rouge1 to rouge9, or rougeL")
    written = Written.of(data, generated, reference, weight)

    def prepare(table: Table, tuned: Mapping[str, Any]) -> Weighted:
        hypotheses, references = (
            [_WORDS[letters].findall(text.lower()) for text in texts] for texts in written.pairs(table)
        )
        f1_NK = np.stack([_rouge(kind, references, hypotheses) for kind in kinds], axis=1)

        def numbers(weights_N: np.ndarray) -> Mapping[str, float]:
            return dict(zip(kinds, (weights_N @ f1_NK / total(weights_N)).tolist(), strict=True))

        return numbers

    return TableMetric(written.reads, prepare)


def wer(
    data: DataSpec,
    unit: str = "word",
    lowercase: bool = False,
    generated: str = "generated",
    reference: str = "target",
    weight: str = "token_weight",
) -> TableMetric:
    """Return the word error rate: words put in, left out or replaced, over the words of the references; 0 is best.

    It can be above 1. Without a word in any reference there is none; words written where one reference is empty count.

    Args:
      data: as in `bleu`, and so are the columns.
      unit: ``word``, what stands between spaces, or ``character``, but for spaces at the ends: the error rate of these.
      lowercase: whether capitals do not matter.
      generated: what the model wrote.
      reference: what it should have written.
      weight: 0 where the reference has no token.

    Raises:
      ConfigError: another unit.
      DataError: the data was not tokenised.
    """
    units: dict[str, Callable[[str], Sequence[str]]] = {"word": str.split, "character": str.strip}
    _check("wer", "unit", unit, units)
    written = Written.of(data, generated, reference, weight)

    def prepare(table: Table, tuned: Mapping[str, Any]) -> Weighted:
        hypotheses, references = (
            [units[unit](text.lower() if lowercase else text) for text in texts] for texts in written.pairs(table)
        )
        errors_N = edit_distances(references, hypotheses)
        size_N = np.array([len(text) for text in references], np.int64)

        def numbers(weights_N: np.ndarray) -> float:
            total(weights_N)
            size = float(weights_N @ size_N)
            if not size:
                raise UndefinedError(f"no reference has a {unit}")
            return float(weights_N @ errors_N) / size

        return numbers

    return TableMetric(written.reads, prepare)


def _rouge(kind: str, references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the F1 [N] of one kind: 0 where nothing can match."""
    if kind == "rougeL":
        common_N = common_lengths(references, hypotheses)
        sizes_N = np.array([len(r) + len(h) for r, h in zip(references, hypotheses, strict=True)], np.int64)
    else:
        bags = [[_grams(text, int(kind[-1])) for text in texts] for texts in (references, hypotheses)]
        pairs = list(zip(*bags, strict=True))
        common_N = np.array([(r & h).total() for r, h in pairs], np.int64)
        sizes_N = np.array([r.total() + h.total() for r, h in pairs], np.int64)
    return 2 * common_N / np.maximum(sizes_N, 1)


def _grams(words: Sequence[str], n: int) -> collections.Counter[tuple[str, ...]]:
    return collections.Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _check(factory: str, name: str, value: str, known: Any) -> None:
    if value not in known:
        raise ConfigError(f"config.metrics: {factory} with {name}={value!r}{did_you_mean(str(value), known)}")
