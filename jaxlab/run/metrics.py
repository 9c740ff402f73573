"""The metrics that a config names: additive ones for every step, and those of whole prediction tables.

Usage: ``metrics, tables = make_metrics(config, data=data, total_steps=1000)``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxlab.core.config import build
from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.types import Array, Batch, Metric, Outputs, PyTree, TableMetric


class _Fields(dict[str, Array]):
    """Fields by name that remember which were read; one that is not there is the config's fault."""

    def __init__(self, fields: Mapping[str, Array], metric: str, others: Mapping[str, Array]) -> None:
        super().__init__(fields)
        self.read: set[str] = set()
        self._metric, self._others = metric, others

    def __getitem__(self, name: str) -> Array:
        self.read.add(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Array:
        raise ConfigError(_missing(self._metric, name, {*self, *self._others}))


def make_metrics(config: ConfigDict, **context: Any) -> tuple[dict[str, Metric], dict[str, TableMetric]]:
    """Return the additive metrics and the others, by name.

    Raises:
      ConfigError: a factory makes no metric, or ``config.train.best`` names one that training does not compute.
    """
    built = build(config.metrics, path="config.metrics", **context)
    for name, metric in built.items():
        if not isinstance(metric, Metric | TableMetric):
            raise ConfigError(
                f"config.metrics.{name}: its factory makes a {type(metric).__name__}; expected a Metric or TableMetric"
            )
    additive = {name: _explaining(name, metric) for name, metric in built.items() if isinstance(metric, Metric)}
    tables = {name: metric for name, metric in built.items() if isinstance(metric, TableMetric)}
    chosen = config.train.best.removeprefix("valid/").split("/")[0]
    if chosen in tables:
        known = [f"valid/{name}" for name in ("loss", *additive)]
        raise ConfigError(
            f"config.train.best={config.train.best!r}: {chosen} is computed by evaluate alone, from the whole table of "
            f"predictions; expected one that adds up: {', '.join(known)}"
        )
    return additive, tables


def _explaining(name: str, metric: Metric) -> Metric:
    """Return the metric with an update that says which result or field is missing."""

    def update(outputs: Outputs, batch: Batch) -> PyTree:
        fields = batch if isinstance(batch, _Fields) else _Fields(batch, name, outputs)
        return metric.update(_Fields(outputs, name, batch), fields)

    return Metric(update, metric.compute)


def check_reads(tables: Mapping[str, TableMetric], outputs: Outputs, fields: Mapping[str, Any]) -> None:
    """Raise ConfigError for a table metric that reads what is neither a result nor a field of the data."""
    known = {*outputs, *fields}
    for name, metric in tables.items():
        for column in metric.reads:
            if column not in known:
                raise ConfigError(_missing(name, column, known))


def _missing(metric: str, name: str, known: Collection[str]) -> str:
    return (
        f"config.metrics.{metric} reads {name!r}, which neither the objective's results nor the data have; is it a "
        f"metric of another task?{did_you_mean(name, known)}"
    )


def fields_read(metrics: Mapping[str, Metric], outputs: Outputs, batch: Batch) -> set[str]:
    """Return the batch's fields that metrics read, besides the mask; of `outputs` and `batch` shapes are enough."""
    read: set[str] = set()
    for name, metric in metrics.items():

        def trace(outputs: Outputs, batch: Batch, name: str = name, metric: Metric = metric) -> PyTree:
            fields = _Fields(batch, name, outputs)
            statistics = metric.update(outputs, fields)
            read.update(fields.read)
            return statistics

        jax.eval_shape(trace, dict(outputs), dict(batch))
    return read - {"mask"}


def result_is_read(
    name: str, metrics: Mapping[str, Metric], tables: Mapping[str, TableMetric], outputs: Outputs, batch: Batch
) -> bool:
    """Return whether a metric needs the result `name`; of `outputs` and `batch` shapes are enough."""
    others = {other: x for other, x in outputs.items() if other != name}
    return any(name in metric.reads for metric in tables.values()) or any(
        _fails(metric, others, batch) for metric in metrics.values()
    )


def _fails(metric: Metric, outputs: Outputs, batch: Batch) -> bool:
    try:
        jax.eval_shape(metric.update, dict(outputs), dict(batch))
    except (KeyError, ConfigError):
        return True
    return False
