"""Small tables with which the tests of the contracts try table metrics: one line a factory, or one a module.

A new factory that returns a `TableMetric` needs a line in `TABLES`, by its path (``jaxlab.metrics.scores:roc_auc``) or
by its module's (``jaxlab.metrics.scores``); `test_contracts` finds the factory by its annotation and fails without.
Arguments that neither a default nor the context gives stand in `contract_cases.CASES`, as for any other factory.

What a good table is: some 12 rows, each a real example; ties and every class among them; a number that is defined for
most draws of the rows with replacement; columns exactly as the objective's results and the data's fields are.
Shape letters: N = 12 rows, C = 3 classes or labels.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlab.core.types import DataSpec
from jaxlab.data.tokenize import tokens_meta
from jaxlab.data.tokenizers import ByteTokenizer

N, C = 12, 3
_random = np.random.default_rng(2)


class Tried(NamedTuple):
    """With what a table metric is tried: columns [N, ...] without ``id``, and the facts of the data."""

    columns: dict[str, np.ndarray]
    facts: Mapping[str, Any] = MappingProxyType({})

    @property
    def table(self) -> dict[str, np.ndarray]:
        """The prediction store of these rows."""
        size = len(next(iter(self.columns.values())))
        return {**self.columns, "id": np.arange(size, dtype=np.int32)}

    @property
    def data(self) -> DataSpec:
        """The spec of the data that these rows are of; the columns stand for its fields."""
        example = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in self.columns.items()}
        return DataSpec(example, len(next(iter(self.columns.values()))), self.facts)


_FACTS = {"classes": ("a", "b", "c")}
_target = (np.arange(N) % C).astype(np.int32)
_logits = np.round(_random.normal(size=(N, C)) + 1.5 * np.eye(C)[_target]).astype(np.float32)  # rounded: ties
_labels = np.stack([np.arange(N) % 2, np.arange(N) // 2 % 2, np.arange(N) // 4 % 2], axis=1).astype(np.int32)

CLASSIFIED = Tried(
    {"logits": _logits, "target": _target, "prediction": _logits.argmax(axis=1).astype(np.int32)}, _FACTS
)
"""Of `jaxlab.objectives.classify:make` with three classes."""
BINARY = Tried(
    {
        "logits": _logits[:, :2],
        "target": (np.arange(N) % 2).astype(np.int32),
        "prediction": _logits[:, :2].argmax(axis=1).astype(np.int32),
    },
    {"classes": ("no", "yes")},
)
"""Of the same with two classes."""
_labelled_logits = np.round(_random.normal(size=(N, C)) + 2 * _labels - 1).astype(np.float32)
LABELLED = Tried(
    {"logits": _labelled_logits, "target": _labels, "prediction": (_labelled_logits > 0).astype(np.int32)}, _FACTS
)
"""Of `jaxlab.objectives.classify:multi_label` with three labels."""
SERIES = Tried(
    {
        "score": np.round(_random.normal(size=N) + np.repeat([0, 1, 0, 2], 3)).astype(np.float32),
        "label": np.repeat([0, 1, 0, 1], 3).astype(np.int32),
        "group": np.repeat([0, 1], 6).astype(np.int32),
        "time": np.arange(N),
    }
)
"""Of `jaxlab.objectives.reconstruct`, with the data's fields: two series, an event in each."""
_bytes = ByteTokenizer()
_texts = [
    "the cat sat on the mat.",
    "a dog ran far away",
    "Three birds, two of them blue",
    "no",
    "",
    "in the end it is so",
]


def _ids(texts: list[str]) -> np.ndarray:
    rows = [[*_bytes.encode(text), _bytes.special["eos"]] for text in texts]
    return np.array([row + [_bytes.special["pad"]] * (32 - len(row)) for row in rows], np.int32)


WRITTEN = Tried(
    {
        "generated": _ids([text.replace("the", "a").removesuffix(" blue") for text in [*_texts, *_texts[::-1]]]),
        "target": _ids([*_texts, *_texts]),
        "token_weight": (_ids([*_texts, *_texts]) != _bytes.special["pad"]).astype(np.float32),
    },
    tokens_meta(_bytes),
)
"""Of `jaxlab.objectives.seq2seq` and `jaxlab.models.write:translate`: texts that are alike, others and an empty one."""
TAGGED = Tried(
    {
        "target": _random.integers(0, 3, (N, 6)).astype(np.int32),
        "prediction": _random.integers(0, 3, (N, 6)).astype(np.int32),
        "token_weight": (np.arange(6) < 1 + np.arange(N)[:, None] % 6).astype(np.float32),
    },
    {"classes": ("O", "B-name", "I-name")},
)
"""Of an objective a token, whose classes are tags of spans."""

RANKED = Tried({"rank": np.array([1, 3, 12, 2, 0, 1, 700, 3, 10, 11, 5, 1], np.int32)})
"""Of `jaxlab.models.catalogue`: places of items, of which one row has none."""

TABLES: dict[str, tuple[Tried, ...]] = {
    # each of a factory's tables is tried with each of its arguments; add a line for your factory here
    "jaxlab.metrics.anomaly": (SERIES,),
    "jaxlab.metrics.scores": (BINARY, CLASSIFIED, LABELLED),
    "jaxlab.metrics.agreement": (BINARY, CLASSIFIED),
    "jaxlab.metrics.thresholds": (BINARY, CLASSIFIED, LABELLED),
    "jaxlab.metrics.spans": (TAGGED,),
    "jaxlab.metrics.text": (WRITTEN,),
    "jaxlab.metrics.ranked": (RANKED,),
}
