"""All contracts of jaxlab: the one page to read before writing a plug-in.

Everything here is a plain type. A model, source, transform, objective, metric, hook or sink of your own
fulfils one of these and is named in a config by its import path; nothing has to be registered or subclassed.

Shape letters: B examples in a batch, C classes; a leading K is a number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from flax import struct

from jaxlab.core.errors import DataError

Array = jax.Array
PyTree = Any

Batch = Mapping[str, Array]
"""Fields of B stacked examples. Always holds ``mask`` [B] float32 (1 a real example, 0 padding) and
``id`` [B] int32 (the example's index in its source)."""

HostBatch = dict[str, np.ndarray]
"""A batch before it is put on devices."""

Outputs = Mapping[str, Array]
"""Per-example results, each with leading axis B: logits, predictions, scores, embeddings."""


class DataSpec(NamedTuple):
    """What a source yields: one example's fields without the batch axis, the number of examples, and facts."""

    example: Mapping[str, jax.ShapeDtypeStruct]
    size: int
    meta: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; a DataError where the data has none."""
        if not self.meta.get("classes"):
            raise DataError(
                "the data names no classes, which the config's model or objective needs; give the source "
                f"meta={{'classes': (name, ...)}} (it has {', '.join(self.meta) or 'no facts'})"
            )
        return tuple(self.meta["classes"])

    @property
    def vocabulary_size(self) -> int:
        """The number of token ids; a DataError where the data has no tokens."""
        if not self.meta.get("vocabulary_size"):
            raise DataError(
                "the data states no vocabulary_size, which the config's model needs; tokenise it, as by "
                f"jaxlab.data.tokenize:byte (it has {', '.join(self.meta) or 'no facts'})"
            )
        return int(self.meta["vocabulary_size"])


class Source(Protocol):
    """Random access to examples; ``__getitems__`` returns the rows stacked, one array a field."""

    @property
    def spec(self) -> DataSpec: ...

    def __len__(self) -> int: ...

    def __getitems__(self, indices: np.ndarray) -> Mapping[str, np.ndarray]: ...


class Randomness(Protocol):
    """Random numbers of this process's rows of one batch: a function of seed, step and row, of nothing else."""

    def uniform(self, low: float, high: float, shape: tuple[int, ...] = ()) -> np.ndarray: ...

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> np.ndarray: ...

    def normal(self, shape: tuple[int, ...] = ()) -> np.ndarray: ...


Transform = Callable[[Mapping[str, np.ndarray], Randomness], Mapping[str, np.ndarray]]
"""A pure function of a whole batch and its randomness, vectorised over the rows."""


DeviceTransform = Callable[[Batch, Array], Batch]
"""A pure function of a batch on devices and a random key, part of the compiled training step."""

Sampling = Callable[[Source], np.ndarray]
"""Gives each row of the training split a weight [N]: how often it is drawn, relative to the mean."""


class Fittable(NamedTuple):
    """A transform with numbers or words learnt from the training split, and from nothing else.

    `fit` sees the training split as the transforms before it leave it, and returns what it learnt as plain JSON, which
    is saved with the run. `bind` turns that into the transform, the same for every split; `meta` into facts for the
    data's spec, such as ``vocabulary_size``.
    """

    fit: Callable[[Source], Mapping[str, Any]]
    bind: Callable[[Mapping[str, Any]], Transform]
    meta: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda learnt: {}


Initialiser = Callable[[PyTree], Mapping[str, np.ndarray]]
"""Gives values to begin from, by name (``params/Dense_0/kernel``), for some leaves of a new model's variables, whose
shapes it is told: ``params`` and other collections. The rest keep their random beginning."""


class Loss(NamedTuple):
    """An objective's result. Sums, never means: the step divides once, by the weight of the whole batch."""

    total: Array
    weight: Array
    outputs: Outputs
    model_state: PyTree


class Apply(Protocol):
    """The model with parameters, collections, random streams and the train flag bound; call it with batch fields.

    ``params`` are the parameters themselves, for what is added to a loss about them; in `init_state` they exist once
    the model has been called.
    """

    @property
    def params(self) -> PyTree: ...

    def __call__(self, *inputs: Array, **options: Any) -> tuple[Outputs, PyTree]: ...


Objective = Callable[[Apply, Batch], Loss]
"""Decides how, and how often, the model is called, and what is minimised."""


class Metric(NamedTuple):
    """An additive statistic: `update` runs inside jit, merging is ``tree.map(add)``, `compute` runs on the host."""

    update: Callable[[Outputs, Batch], PyTree]
    compute: Callable[[PyTree], float | Mapping[str, float]]


Table = Mapping[str, np.ndarray]
"""The prediction store, a column [N, ...] each: the objective's results, the data's fields that metrics ask for, and
``id`` [N]. Real examples only, in the split's order."""

Weighted = Callable[[np.ndarray], float | Mapping[str, float]]
"""From how often each example counts [N], float64, to the number, or to several by name. Ones give the number itself,
the counts of a resample that of the resample; an `UndefinedError` says why there is none."""


class Interval(NamedTuple):
    """A number with the bounds that hold the true one in 95 of 100 such samples, from `n` independent units."""

    point: float
    low: float
    high: float
    n: int
    method: str


class TableMetric(NamedTuple):
    """A statistic of all examples together, which does not add up: computed by `evaluate`, from the prediction store.

    Fields:
      reads: the columns that it needs: results of the objective, or fields of the data.
      prepare: from the table and what `tune` returned (or nothing) to the weighted number; what is slow, such as
        sorting, is done here, once for all resamples.
      tune: what it takes from the validation split's table, such as a threshold, as plain JSON; None for nothing.
      interval: the interval where a formula has one for independent examples; None draws resamples.
    """

    reads: tuple[str, ...]
    prepare: Callable[[Table, Mapping[str, Any]], Weighted]
    tune: Callable[[Table], Mapping[str, Any]] | None = None
    interval: Callable[[Table], Interval] | None = None


Generate = Callable[[Any, PyTree, Batch], Outputs]
"""What `evaluate` alone asks of a model, beside its objective's results: from the module, its variables and a batch to
results a row, such as the tokens that it writes. Pure, called within jit."""


class TrainState(struct.PyTreeNode):
    """All that training carries from step to step: arrays only; no functions, no config, no random key."""

    step: Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    ema: PyTree
    skipped: PyTree = None
    """How many steps in a row were left out because they were not finite, int32; None where that is not allowed."""


Statistics = Mapping[str, PyTree]
"""Sums over examples by metric name; ``loss`` holds ``(total, weight)``."""

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Statistics]]
"""Pure and un-jitted; `jaxlab.train.parallel` compiles it."""

EvalStep = Callable[[TrainState, Batch], tuple[Statistics, Outputs]]

Hook = Callable[[int, TrainState], Mapping[str, float] | None]
"""Called with the step just finished and the state; what it returns becomes a row of metrics."""


class Periodic(NamedTuple):
    """A hook and how often it runs, in steps."""

    every: int
    hook: Hook


class Sink(Protocol):
    """Receives rows of metrics, off the step's path and on process 0 only."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


Rules = Sequence[tuple[str, Any]]
"""Ordered (regular expression, value) pairs over parameter names; the first full match wins."""
