"""Scores of sacrebleu as weighted numbers: what each text adds is counted once, and the score is one of sums.

This is how sacrebleu itself draws its bootstrap samples; the two methods that it uses there begin with an underscore.
Shape letters: N examples, S statistics.
Usage: ``TableMetric(written.reads, Corpus(library().CHRF(), written, number))``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxlab.core.errors import ConfigError, UndefinedError
from jaxlab.core.types import Table, Weighted
from jaxlab.metrics.written import Written


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Prepares a score of sacrebleu: the statistics of each text once, and the number of weighted sums of them."""

    scorer: Any
    written: Written
    number: Callable[[np.ndarray], float]

    @property
    def signature(self) -> str:
        """The score's name, options and version."""
        self.scorer.num_refs = 1
        return f"{self.scorer.get_signature()}"

    def __call__(self, table: Table, tuned: Mapping[str, Any]) -> Weighted:
        """Return the weighted number of the table's texts."""
        hypotheses, references = self.written.pairs(table)
        counted = self.scorer._extract_corpus_statistics(hypotheses, [references]) if hypotheses else []
        counts_NS = np.array(counted, np.float64)

        def numbers(weights_N: np.ndarray) -> float:
            total(weights_N)
            return self.number(weights_N @ counts_NS)

        return numbers


def total(weights_N: np.ndarray) -> float:
    """Return how often examples count altogether; an UndefinedError where none does."""
    count = float(weights_N.sum())
    if not count:
        raise UndefinedError("no example counts")
    return count


def library() -> Any:
    """Return sacrebleu's metrics; a ConfigError with the command that installs it."""
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise ConfigError("config.metrics: bleu and chrf need: pip install 'jaxlab[translation]'") from error
    return sacrebleu.metrics
