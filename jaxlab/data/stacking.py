"""The batches of several seeds side by side: each has its own order and augmentation, gathered in one go.

Shape letters: C batches of a chunk, S seeds, B batch. Usage: ``SeedBatches.of([batches, ...]).chunk(0, 8)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxlab.core.types import HostBatch
from jaxlab.data.feeding import chunk_steps
from jaxlab.data.pipeline import Batches


@dataclasses.dataclass(frozen=True)
class SeedBatches(Batches):
    """Batches whose chunks are [C, S, B, ...]; all else is as of the first of `lanes`."""

    lanes: tuple[Batches, ...] = ()

    @property
    def steps(self) -> int:
        """How many batches travel in one transfer: as many as of one seed alone, since each transfer has its price."""
        return chunk_steps(self.lanes[0])

    @classmethod
    def of(cls, lanes: Sequence[Batches]) -> SeedBatches:
        """Return the batches of several seeds, which differ by the seed alone and have no buckets."""
        first = {field.name: getattr(lanes[0], field.name) for field in dataclasses.fields(Batches)}
        return cls(**first, lanes=tuple(lanes))

    def chunk(self, first: int, count: int) -> HostBatch:
        """Return the batches of `count` steps, each field [count, S, rows, ...]."""
        if self.transforms:
            chunks = [lane.chunk(first, count) for lane in self.lanes]
            return {name: np.stack([chunk[name] for chunk in chunks], axis=1) for name in chunks[0]}
        pairs = [lane.indices(first, count) for lane in self.lanes]
        ids_CSB, mask_CSB = (np.stack(each, axis=1) for each in zip(*pairs, strict=True))
        gathered = self.source.__getitems__(ids_CSB.reshape(-1))
        fields = {name: value.reshape(*ids_CSB.shape, *value.shape[1:]) for name, value in gathered.items()}
        return {**fields, "id": ids_CSB, "mask": mask_CSB}
