"""Rows as the objective sees them: what it calls the model with, and what it compares the answer with.

The objective itself is asked, with a stand-in for the model: so a baseline gets what a model gets, whatever the
objective is and wraps, and its targets and weights are the objective's own.
Shape letters: N rows. Usage: ``rows = Reader(experiment).read("train")``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab.core import rng
from jaxlab.core.types import Array, Batch
from jaxlab.data.subset import Subset
from jaxlab.data.table_columns import is_text, read, texts
from jaxlab.models.catalogue import Ranking
from jaxlab.run.assemble import Experiment
from jaxlab.run.metrics import fields_read, result_is_read
from jaxlab.run.sanity_stand_ins import Given

ANSWERS = ("target", "target_weight", "token_weight")  # results that do not depend on the model
_BATCH = 512  # rows at once
_CALLS = 8  # of the model by one objective, at most


@dataclasses.dataclass(frozen=True)
class Rows:
    """N rows of a split; each array is [N, ...]."""

    inputs: Mapping[str, np.ndarray]  # of the model, by the batch's field or else their place
    answers: Mapping[str, np.ndarray]  # those of `ANSWERS` that the objective has
    fields: Mapping[str, np.ndarray]  # ``id``, and the data's fields that metrics and rankings read
    texts: tuple[str, ...] = ()  # before they became tokens, where that is what the model reads

    def __len__(self) -> int:
        """Return N."""
        return len(self.fields["id"])

    def take(self, rows: np.ndarray) -> Rows:
        """Return some of the rows."""
        parts = (self.inputs, self.answers, self.fields)
        inputs, answers, fields = ({name: x[rows] for name, x in part.items()} for part in parts)
        return Rows(inputs, answers, fields, tuple(self.texts[row] for row in rows) if self.texts else ())


def drawn(size: int, most: int, seed: int) -> np.ndarray:
    """Return which of `size` rows are kept if at most `most` may be: drawn at random by the seed, in order."""
    if size <= most:
        return np.arange(size)
    return np.sort(rng.host(seed, "baseline").permutation(size)[: max(1, most)])


class Reader:
    """Reads rows of an experiment's splits."""

    def __init__(self, experiment: Experiment) -> None:
        """Find out what the objective's results are."""
        self.experiment = experiment
        state = jax.eval_shape(experiment.init)
        self.shapes = experiment.abstract_results(state)
        batch = experiment.abstract_batch()
        self._stored = fields_read(experiment.metrics, self.shapes, batch)
        self._stored |= {column for metric in experiment.tables.values() for column in metric.reads}
        if isinstance(experiment.generate, Ranking):
            self._stored |= set(experiment.generate.fields)
        self._stored -= {*self.shapes, "id"}
        self._texts = _text_fields(experiment)
        self.reads_logits = result_is_read("logits", experiment.metrics, experiment.tables, self.shapes, batch)

    def read(self, split: str, most: int | None = None) -> Rows:
        """Return the rows of a split, in its order and not augmented; `most` of them if there are more."""
        experiment = self.experiment
        size, seed = len(experiment.rows[split]), experiment.config.seed
        kept = np.arange(size) if most is None else drawn(size, most, seed)
        batches = experiment.batches(split, _BATCH)
        if len(kept) < size:
            batches = dataclasses.replace(batches, source=Subset(experiment.rows[split], kept, {"part": "baseline"}))
        asked, parts = jax.jit(self._ask), []
        for number in range(len(batches)):
            batch = batches[number]
            real = batch["mask"] > 0
            inputs, answers = jax.tree.map(lambda x, real=real: np.asarray(x)[real], asked(batch))
            parts.append((inputs, answers, {name: batch[name][real] for name in self._stored if name in batch}))
        joined = (jax.tree.map(lambda *pieces: np.concatenate(pieces), *group) for group in zip(*parts, strict=True))
        inputs, answers, fields = joined
        source = experiment.sources[split]
        for name in self._stored - set(fields):
            if name in source.spec.example:
                fields[name] = read(source, (name,))[name][kept]
        return Rows(inputs, answers, {**fields, "id": kept.astype(np.int32)}, self._raw(split, kept))

    def _ask(self, batch: Batch) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return what the objective calls the model with first, and its answers."""
        rows = len(batch["mask"])
        silent = {name: jnp.zeros((rows, *x.shape[1:]), x.dtype) for name, x in self.shapes.items()}
        apply = Given([silent] * _CALLS, {})
        results = self.experiment.objective(apply, batch).outputs
        inputs = {_name(x, batch, place): x for place, x in enumerate(apply.inputs[0])}
        return inputs, {name: results[name] for name in ANSWERS if name in results}

    def _raw(self, split: str, kept: np.ndarray) -> tuple[str, ...]:
        if not self._texts:
            return ()
        columns = read(self.experiment.sources[split], self._texts)
        parts = [texts(name, column[kept]) for name, column in columns.items()]
        return tuple("\n".join(row) for row in zip(*parts, strict=True))


def _name(value: Array, batch: Batch, place: int) -> str:
    """Return the batch's field that a value is, or else its place among the inputs."""
    return next((name for name, field in batch.items() if field is value), f"input {place}")


def _text_fields(experiment: Experiment) -> tuple[str, ...]:
    """Return the texts that transforms turn into tokens; not those that they drop, which may hold the answer."""
    if not experiment.data.meta.get("vocabulary_size"):
        return ()
    named: dict[str, None] = {}
    for node in experiment.config.data.transforms:
        options: Mapping[str, Any] = node.to_dict()
        plural = tuple(options["fields"]) if "fields" in options else ()
        named |= dict.fromkeys(plural or ((options["field"],) if "field" in options else ()))
    example = experiment.fields
    return tuple(name for name in named if name in example and is_text(np.dtype(example[name].dtype)))
