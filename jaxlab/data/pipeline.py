"""Host batches by number, gathered from a source and transformed as whole arrays.

`Batches` maps a step to a host batch and holds no position, so that who reads it (see `jaxlab.data.feeding`) changes
nothing but speed. Usage: ``Batches(source, (), 128, seed, training=True)[7]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jaxlab.core import rng
from jaxlab.core.types import DataSpec, HostBatch, Source, Transform
from jaxlab.data import order
from jaxlab.data.bucketing import Buckets


@dataclasses.dataclass(frozen=True)
class RowRandomness:
    """The random numbers of one transform on one batch: drawn for the global batch, of which `rows` are kept."""

    generator: np.random.Generator
    batch_size: int
    rows: slice

    def uniform(self, low: float, high: float, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return float32 numbers [rows, *shape] in [low, high)."""
        return self.generator.uniform(low, high, (self.batch_size, *shape)).astype(np.float32)[self.rows]

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return integers [rows, *shape] in [low, high)."""
        return self.generator.integers(low, high, (self.batch_size, *shape))[self.rows]

    def normal(self, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Return standard normal float32 numbers [rows, *shape]."""
        return self.generator.standard_normal((self.batch_size, *shape), np.float32)[self.rows]


@dataclasses.dataclass(frozen=True)
class Batches:
    """Host batches by number. `rows` are those of each global batch that this process reads.

    With `training` the order is a permutation an epoch, or draws by `weights`, and any number is valid; without, the
    source's own order, the last batch padded. `jumps` leave data out: pairs (from this step on, batches further).
    """

    source: Source
    transforms: tuple[Transform, ...]
    batch_size: int
    seed: int
    training: bool
    rows: slice = dataclasses.field(default_factory=lambda: slice(None))
    weights: order.Weights | None = None
    buckets: Buckets | None = None
    jumps: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        """Return the number of batches that cover the source once."""
        return order.eval_batch_count(len(self.source), self.batch_size)

    def number(self, step: int) -> int:
        """Return the number, in the data's order, of the batch for the step after `step` steps."""
        return step + max((far for at, far in self.jumps if at <= step), default=0)

    def indices(self, first: int, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return the global indices and mask, each [count, batch_size], of the batches of consecutive steps."""
        if self.jumps:
            straight = dataclasses.replace(self, jumps=())
            pairs = [straight.indices(self.number(first + i)) for i in range(count)]
            return np.concatenate([ids for ids, _ in pairs]), np.concatenate([mask for _, mask in pairs])
        shape = (count, self.batch_size)
        if self.training and self.buckets is not None:
            return np.stack([self.buckets.batch(first + i)[0] for i in range(count)]), np.ones(shape, np.float32)
        if self.training:
            ids = order.train_indices(len(self.source), self.batch_size, self.seed, first, count, self.weights)
            return ids.reshape(shape), np.ones(shape, np.float32)
        ids, mask = order.eval_indices(len(self.source), self.batch_size, first, count)
        return ids.reshape(shape), mask.reshape(shape)

    def __getitem__(self, number: int) -> HostBatch:
        """Return this process's rows of the batch numbered `number`."""
        return {name: value[0] for name, value in self.chunk(number, 1).items()}

    def chunk(self, first: int, count: int) -> HostBatch:
        """Return the batches of `count` steps stacked, each field [count, rows, ...]; gathered in one go."""
        if self.jumps:
            straight = dataclasses.replace(self, jumps=())
            batches = [straight[self.number(first + i)] for i in range(count)]
            return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        ids, mask = (whole[:, self.rows] for whole in self.indices(first, count))
        gathered = self.source.__getitems__(ids.reshape(-1))
        fields = {name: value.reshape(*ids.shape, *value.shape[1:]) for name, value in gathered.items()}
        if self.transforms or self.buckets is not None:
            batches = [self._transform({n: v[i] for n, v in fields.items()}, first + i) for i in range(count)]
            fields = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        return {**fields, "id": ids, "mask": mask}

    def _transform(self, fields: Mapping[str, np.ndarray], number: int) -> Mapping[str, np.ndarray]:
        stream = "transform" if self.training else "transform-eval"
        counters = (self.seed, stream, number)
        fields = transformed(fields, self.transforms, counters, self.batch_size, self.rows)
        if self.training and self.buckets is not None:
            return self.buckets.trim(fields, number)
        return fields


def transformed(
    fields: Mapping[str, np.ndarray],
    transforms: Sequence[Transform],
    counters: tuple[int | str, ...],
    batch_size: int,
    rows: slice,
) -> Mapping[str, np.ndarray]:
    """Return the `rows` of a batch as `transforms` leave them; `counters` (seed, stream, ...) and place seed each."""
    for place, transform in enumerate(transforms):
        fields = transform(fields, RowRandomness(rng.host(*counters, place), batch_size, rows))
    return fields


def transformed_spec(source: Source, transforms: Sequence[Transform]) -> DataSpec:
    """Return the source's spec as the transforms leave it, found by transforming its first row."""
    if not transforms:
        return source.spec
    row = Batches(source, tuple(transforms), 1, 0, training=False)[0]
    example = {n: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for n, v in row.items() if n not in ("id", "mask")}
    return source.spec._replace(example=example)
