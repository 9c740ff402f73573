"""The ``find-rate`` command: a short training whose learning rate rises, and which rate that recommends.

The range test of Smith 2017 (arXiv 1506.01186, section 3.3), over several seeds: the rate rises geometrically, the loss
falls, levels and explodes. Where it falls fastest is a rate to train with; a tenth of where it is least is the
cautious one. Usage: ``find_rate(config)["recommended"]``.
"""

from __future__ import annotations

import logging
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.config import spec
from jaxlab.core.errors import ConfigError, DivergedError, UsageError
from jaxlab.core.override import override
from jaxlab.run.train import train

_RATE = "optimizer.learning_rate"
_SMOOTH = 0.9  # of the moving average over steps
_EXPLODED = 4.0  # times the least smoothed loss, where the rest says nothing

_log = logging.getLogger("jaxlab")


def find_rate(
    config: ConfigDict, low: float = 1e-6, high: float = 1.0, steps: int = 150, seeds: Sequence[int] = (0, 1, 2)
) -> dict[str, Any]:
    """Return the rates that a rising one recommends: ``recommended`` and ``cautious``, each a median over seeds.

    Args:
      config: complete; its optimizer has a ``learning_rate`` of its own.
      low: the first rate.
      high: the last rate.
      steps: of each short training.
      seeds: one training each; ``by_seed`` says how far they agree.

    Raises:
      ConfigError: the optimizer has no such field.
      UsageError: bounds or steps that make no sense, or a loss that never falls.
    """
    if "learning_rate" not in config.optimizer:
        raise ConfigError(f"config.{_RATE}: there is none to vary; the optimizer has {', '.join(config.optimizer)}")
    if not 0 < low < high or steps < 20 or not seeds:
        raise UsageError(f"rates from {low:g} to {high:g} in {steps} steps; expected 0 < low < high and 20 or more")
    rising = _short(config, steps)
    with rising.unlocked(), rising.optimizer.ignore_type():
        rising.optimizer.learning_rate = spec("jaxlab.optim.rising:geometric", low=low, high=high)
    curves = [_losses(override(rising, {"seed": seed}), steps) for seed in seeds]
    rates = low * (high / low) ** (np.arange(steps) / max(1, steps - 1))
    found = [recommended(rates[: len(curve)], curve) for curve in curves]
    return {
        "recommended": float(np.median([each[0] for each in found])),
        "cautious": float(np.median([each[1] for each in found])),
        "by_seed": [{"seed": s, "recommended": a, "cautious": b} for s, (a, b) in zip(seeds, found, strict=True)],
        "rates": rates.tolist(),
        "losses": [curve.tolist() for curve in curves],
    }


def recommended(rates_T: np.ndarray, losses_T: np.ndarray) -> tuple[float, float]:
    """Return the rate at which the smoothed loss falls fastest by its logarithm, and a tenth of that of the least loss.

    Raises:
      UsageError: the loss never falls.
    """
    smooth_T = smoothed(losses_T)
    exploded = np.flatnonzero(smooth_T > smooth_T[0] + _EXPLODED * (smooth_T[0] - smooth_T.min()) + 1e-12)
    end = int(exploded[0]) if len(exploded) and exploded[0] > np.argmin(smooth_T) else len(smooth_T)
    least = int(np.argmin(smooth_T[:end]))
    if least < 2:
        raise UsageError("the loss never falls: the lowest rate is too high already, or nothing is learnt at any")
    slope_T = np.gradient(smooth_T[: least + 1], np.log(rates_T[: least + 1]))
    return float(rates_T[int(np.argmin(slope_T))]), float(rates_T[least] / 10)


def smoothed(losses_T: np.ndarray) -> np.ndarray:
    """Return the moving average, without its bias towards zero at the beginning."""
    average, found = 0.0, []
    for t, loss in enumerate(losses_T, 1):
        average = _SMOOTH * average + (1 - _SMOOTH) * float(loss)
        found.append(average / (1 - _SMOOTH**t))
    return np.array(found)


def print_rates(result: dict[str, Any]) -> None:
    """Say what was found."""
    for each in result["by_seed"]:
        print(f"seed {each['seed']}: {each['recommended']:.3g}, cautious {each['cautious']:.3g}", file=sys.stderr)
    print(f"recommended: --config.{_RATE}={result['recommended']:.3g}", file=sys.stderr)


def _short(config: ConfigDict, steps: int) -> ConfigDict:
    """Return the config with a row a step, and nothing else that takes time."""
    quiet = {"train.steps": steps, "train.log_every": 1, "train.eval_every": steps, "train.checkpoint_every": steps}
    short = override(config, {**quiet, "train.spike": 0.0, "train.non_finite": "abort", "train.steps_per_call": 1})
    with short.unlocked():
        short.sinks, short.hooks = ConfigDict(), ConfigDict()
    return short


def _losses(config: ConfigDict, steps: int) -> np.ndarray:
    """Return the loss of each step until it is not finite."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder, "run")
        try:
            train(config, workdir)
        except DivergedError:  # is what the last rates are for
            _log.info("diverged before step %d", steps)
        losses = [row["train/loss"] for row in record.read_metrics(workdir) if "train/loss" in row]
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < 3:
        raise UsageError("the loss is not finite from the first steps on; a lower rate is where to begin")
    return np.array(finite[: len(losses)])
