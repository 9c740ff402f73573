"""The values of a config's own fields that no run can use. Looks at no data and builds nothing."""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxlab.core.errors import ConfigError, did_you_mean
from jaxlab.run.fields import check_fields

POLICIES = ("abort", "skip", "rollback")


def check_values(config: ConfigDict) -> None:
    """Raise ConfigError for a value that no run can use, before any device work."""
    check_fields(config)
    for name in (
        "steps",
        "batch_size",
        "grad_accumulation",
        "steps_per_call",
        "log_every",
        "eval_every",
        "checkpoint_every",
        "keep",
        "non_finite_limit",
    ):
        if config.train[name] < 1:
            raise ConfigError(f"config.train.{name}={config.train[name]}: expected 1 or more")
    for name in ("spike", "watchdog"):
        if not config.train[name] >= 0:
            raise ConfigError(f"config.train.{name}={config.train[name]}: expected 0 or more")
    policy = config.train.non_finite
    if policy not in POLICIES:
        raise ConfigError(f"config.train.non_finite={policy!r}: no such policy{did_you_mean(policy, POLICIES)}")
    if config.train.batch_size % config.train.grad_accumulation:
        raise ConfigError(
            f"config.train.grad_accumulation={config.train.grad_accumulation}: expected a divisor of "
            f"config.train.batch_size={config.train.batch_size}"
        )
    if config.data.workers < 0:
        raise ConfigError(f"config.data.workers={config.data.workers}: expected 0 or more")
    count = len(config.data.transforms)
    if not 0 <= config.data.precomputed <= count:
        raise ConfigError(
            f"config.data.precomputed={config.data.precomputed}: expected 0 to {count}, the number of "
            "config.data.transforms"
        )
    if config.train.ema is not None and not 0 <= config.train.ema < 1:
        raise ConfigError(f"config.train.ema={config.train.ema}: expected a decay of at least 0 and below 1")
    if config.train.best_mode not in ("min", "max"):
        raise ConfigError(f"config.train.best_mode={config.train.best_mode!r}: expected min or max")
    prefix, _, metric = config.train.best.partition("/")
    names = {"loss", *config.metrics}
    if prefix != "valid" or metric.split("/")[0] not in names:
        best = {f"valid/{name}" for name in names}
        raise ConfigError(
            f"config.train.best={config.train.best!r}: no such metric{did_you_mean(config.train.best, best)}"
        )
