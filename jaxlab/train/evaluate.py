"""Evaluation of a state on all batches of a split: statistics added up, per-example outputs gathered where wanted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import jax
import numpy as np

from jaxlab.core.types import HostBatch, Metric, PyTree, Statistics, TrainState
from jaxlab.train.parallel import Measure, Strategy


def evaluate(state: TrainState, chunks: Iterable[PyTree], measure: Measure, strategy: Strategy) -> Statistics:
    """Return the host-side statistics of `state` over chunks of one batch that are already on the devices."""
    collected = [measure(state, chunk)[0] for chunk in chunks]
    return _sum([strategy.fetch(statistics) for statistics in collected])


def predict(
    state: TrainState,
    batches: Iterable[tuple[HostBatch, PyTree]],
    measure: Measure,
    strategy: Strategy,
    fields: Collection[str] = (),
) -> tuple[Statistics, dict[str, np.ndarray]]:
    """Return the statistics, and the outputs of the real examples, each [N, ...] with its ``id`` [N].

    Args:
      state: whose parameters are used.
      batches: (host chunk, device chunk) pairs of one batch each, in order.
      measure: the compiled evaluation step; of several processes, its outputs hold ``id``, ``mask`` and `fields` too,
        of which each has only its own rows on the host.
      strategy: which compiled it.
      fields: of the batches, to be kept beside the outputs where there is none of that name.
    """
    collected: list[Statistics] = []
    tables: list[Mapping[str, np.ndarray]] = []
    for host, device in batches:
        statistics, outputs = measure(state, device)
        collected.append(strategy.fetch(statistics))
        kept = {name: host[name][0] for name in ("id", "mask", *fields) if name in host}
        rows = {**kept, **strategy.fetch_rows(dict(outputs))}
        real, wanted = rows["mask"] > 0, rows.keys() - ({"mask"} - set(fields))
        tables.append({name: np.asarray(value)[real] for name, value in rows.items() if name in wanted})
    return _sum(collected), {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def summarise(statistics: Statistics, metrics: Mapping[str, Metric], prefix: str) -> dict[str, float]:
    """Return the numbers that host-side `statistics` amount to, by ``prefix/name``."""
    values: dict[str, float] = {}
    for name, sums in statistics.items():
        if name not in metrics:
            values[f"{prefix}/{name}"] = float(sums["sum"] / sums["weight"]) if sums["weight"] else float("nan")
            continue
        values |= named(f"{prefix}/{name}", metrics[name].compute(sums))
    return values


def named(name: str, value: float | Mapping[str, float]) -> dict[str, float]:
    """Return a metric's number, or its several numbers as ``name/part``."""
    parts = {f"/{part}": number for part, number in value.items()} if isinstance(value, Mapping) else {"": value}
    return {f"{name}{part}": float(number) for part, number in parts.items()}


def _sum(parts: list[Statistics]) -> Statistics:
    """Add in float64, so that the number of batches does not show in the last digits."""
    return jax.tree.map(lambda *leaves: np.sum(leaves, axis=0, dtype=np.float64), *parts)
