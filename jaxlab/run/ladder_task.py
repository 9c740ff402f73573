"""What simple baselines are made of: the rows that they see, and how their answers become a prediction table.

Knows no estimator. Shape letters: N examples, C classes, M numbers a target, K features.
Usage: ``task = open_task(config, "valid")``; ``task.train``, ``task.held``, ``task.table(answers)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxlab.core.errors import ConfigError
from jaxlab.core.types import Source, Table
from jaxlab.data.fitting import Transformed
from jaxlab.data.table_columns import is_text, read, texts
from jaxlab.run.assemble import Experiment, assemble
from jaxlab.run.evaluator import stored_fields

MOST_ROWS = 20_000
"""More training rows than that are drawn from, for estimators whose time grows faster than the rows."""


class Rows(NamedTuple):
    """A split as baselines see it."""

    source: Source
    fields: Mapping[str, np.ndarray]  # after the config's transforms, [N, ...] each
    words: list[str] | None  # the raw texts, where there are some


class Answer(NamedTuple):
    """What a baseline predicts: columns of the objective's results, and how it came by them."""

    columns: Mapping[str, np.ndarray]
    rows: int  # that it was fitted on
    about: str


class Task(NamedTuple):
    """What is to be predicted, from what, and where."""

    experiment: Experiment
    node: ConfigDict  # of the objective that names the fields
    results: Mapping[str, jax.ShapeDtypeStruct]  # the objective's, of a batch
    train: Rows
    held: Rows
    split: str

    @property
    def target(self) -> str:
        """The field that is predicted."""
        return str(self.node.target)

    def features(self, rows: Rows) -> np.ndarray:
        """Return the numbers of the objective's inputs side by side [N, K]; missing ones are nan."""
        wide = [rows.fields[name] for name in self.node.inputs if rows.fields[name].dtype.kind in "biuf"]
        return np.concatenate([x.reshape(len(x), -1).astype(np.float32) for x in wide], axis=1)

    def chosen(self, most: int = MOST_ROWS) -> np.ndarray:
        """Return the training rows to fit on, all or some at random by the config's seed."""
        count = len(next(iter(self.train.fields.values())))
        if count <= most:
            return np.arange(count)
        return np.sort(np.random.default_rng(self.experiment.config.seed).permutation(count)[:most])

    def table(self, answer: Answer) -> Table:
        """Return the answer as a prediction table, with the fields of the data that metrics read."""
        count, source = len(next(iter(self.held.fields.values()))), self.held.source
        wanted = stored_fields(self.experiment, jax.eval_shape(self.experiment.init)) - set(answer.columns)
        kept = {name: self.held.fields[name] for name in wanted if name in self.held.fields}
        raw = [name for name in wanted if name not in kept and name in source.spec.example]
        return {**kept, **(read(source, raw) if raw else {}), **answer.columns, "id": np.arange(count)}


Rung = Callable[[Task], Answer | None]
"""A baseline: its answer, or None where it does not fit the task."""


def open_task(config: ConfigDict, split: str) -> Task:
    """Return the task of a config, its training rows and those of `split`.

    Raises:
      ConfigError: no such split, or an objective whose inputs are not known.
      DataError: data that is not there.
    """
    if split not in config.data or split not in ("train", "valid", "test"):
        known = [name for name in ("train", "valid", "test") if name in config.data]
        raise ConfigError(f"--split={split}: config.data has no such split; valid names: {', '.join(known)}")
    experiment = assemble(config, tuple(dict.fromkeys(("train", split))))
    node = config.objective
    while "inputs" not in node and "objective" in node:
        node = node.objective
    if "inputs" not in node:
        raise ConfigError(f"config.objective: {node.factory} names no inputs, which baselines are fitted on")
    results = experiment.abstract_results(jax.eval_shape(experiment.init))
    train, held = (_rows(experiment, name) for name in ("train", split))
    return Task(experiment, node, results, train, held, split)


def _rows(experiment: Experiment, split: str) -> Rows:
    source = experiment.sources[split]
    view = Transformed(source, experiment.transforms, {})
    plain = [name for name, x in view.spec.example.items() if not is_text(np.dtype(x.dtype))]
    return Rows(source, read(view, plain), _words(experiment, source))


def _words(experiment: Experiment, source: Source) -> list[str] | None:
    """Return the raw text of each row: of the fields that transforms name, or else of all that hold texts."""
    example = source.spec.example
    found = [name for name, x in example.items() if is_text(np.dtype(x.dtype)) and not x.shape]
    named = [node.field for node in experiment.config.data.transforms if "field" in node and node.field in found]
    chosen = list(dict.fromkeys(named)) or found
    if not chosen:
        return None
    columns = read(source, chosen)
    return [" ".join(parts) for parts in zip(*(texts(name, columns[name]) for name in chosen), strict=True)]


def log_shares(count_C: np.ndarray) -> np.ndarray:
    """Return the logs of shares, of none as if there were half an example."""
    smooth_C = np.maximum(np.asarray(count_C, np.float64), 0.5)
    return np.log(smooth_C / smooth_C.sum())
