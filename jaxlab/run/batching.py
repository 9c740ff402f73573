"""What training batches are drawn from, and how: rows computed once, weights of rows, buckets of lengths.

Usage: ``weights = row_weights(config, sources)``; see ``config.data`` in `jaxlab.run.base`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from jaxlab.core.config import build, to_json
from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.core.factory import import_factory
from jaxlab.core.types import Source
from jaxlab.data.bucketing import Buckets, token_lengths
from jaxlab.data.fitting import Fit, Transformed
from jaxlab.data.order import Weights
from jaxlab.data.precomputed import Precomputed, code_of
from jaxlab.data.sampling import by_source


def row_weights(config: ConfigDict, sources: Mapping[str, Source]) -> Weights | None:
    """Return how often training draws each row: as ``config.data.sampling`` says, or else as a mixture's weights do."""
    if "train" not in sources:
        return None
    if config.data.sampling:
        sampling = build(config.data.sampling, path="config.data.sampling")
        if not callable(sampling):
            raise ConfigError(f"config.data.sampling={config.data.sampling.to_dict()}: expected a node with a factory")
        return Weights(sampling(sources["train"]))
    weights = getattr(sources["train"], "row_weights", None)
    if weights is None or np.allclose(weights, weights[0]):  # then a permutation an epoch is better than draws
        return None
    return Weights(by_source()(sources["train"]))


def precomputed(config: ConfigDict, sources: Mapping[str, Source], fit: Fit) -> Mapping[str, Source]:
    """Return the sources as the first ``config.data.precomputed`` transforms leave them."""
    count = config.data.precomputed
    if not count:
        return sources
    nodes = [ConfigDict({"transform": node}) for node in config.data.transforms[:count]]
    factories = [import_factory(node.transform.factory) for node in nodes]
    facts = [[to_json(node) for node in nodes], fit.learnt[:count], [code_of(factory) for factory in factories]]
    return {name: Precomputed(source, fit.transforms[:count], facts) for name, source in sources.items()}


def data_seed(config: ConfigDict) -> int:
    """Return the seed of data order and augmentation."""
    return config.seed if config.data.seed is None else config.data.seed


def make_buckets(config: ConfigDict, rows: Mapping[str, Source], fit: Fit, weights: Weights | None) -> Buckets | None:
    """Return how training batches are put together by length, where the config says so.

    Raises:
      ConfigError: lengths that do not rise or are too short, or together with sampling or several steps a call.
    """
    wanted = config.data.buckets
    if not wanted.lengths or "train" not in rows:
        return None
    for path, taken in (
        ("data.sampling" if config.data.sampling else "data.train: a mixture's weights", weights),
        ("train.steps_per_call", config.train.steps_per_call > 1),
    ):
        if taken:
            raise ConfigError(f"config.{path} cannot be had together with config.data.buckets; leave one out")
    train = Transformed(rows["train"], fit.transforms[config.data.precomputed :], fit.meta)
    for name in (*wanted.fields, wanted.mask):
        if name not in train.spec.example:
            raise ConfigError(
                f"config.data.buckets: the data has no field {name!r}{did_you_mean(name, train.spec.example)}"
            )
    lengths = token_lengths(train, wanted.mask)
    return Buckets(lengths, wanted.lengths, config.train.batch_size, data_seed(config), wanted.fields, wanted.mask)
