"""The commands that several processes give together: ``train`` and ``evaluate``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlab.cli import joint, places, show
from jaxlab.cli.flags import names
from jaxlab.cli.loading import load
from jaxlab.core.errors import UsageError
from jaxlab.core.paths import folder_of

if TYPE_CHECKING:
    from ml_collections import ConfigDict

COMMANDS = ("train", "evaluate")


def train(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    """Train, go on, or cross-validate."""
    from jaxlab.run.stopping import stop_requests

    with stop_requests():  # from here on: imports take seconds, and who is stopped during them may be started again
        _check_folds(parsed)
        config = load(parsed, overrides)
        origin = {"config": str(Path(parsed.config).resolve()), "overrides": overrides}
        if parsed.cv is not None:
            return places.in_folders(parsed, lambda: _cross_validated(parsed, config, origin))
        joint.join(parsed)
        result = places.in_folders(parsed, lambda: _trained(parsed, config, origin))
    if joint.is_first():
        print(f"finished: {result['workdir']}", file=sys.stderr)
    return result


def _check_folds(parsed: argparse.Namespace) -> None:
    if parsed.cv is None and (parsed.cv_by or parsed.cv_field):
        raise UsageError("--cv_by and --cv_field say how --cv=K splits; give --cv as well")
    if parsed.cv is not None and (parsed.fork_from or parsed.fallback):
        raise UsageError("--cv trains new runs: it goes without --fork-from and --fallback")
    if parsed.cv is not None and (parsed.coordinator or parsed.processes or parsed.process):
        raise UsageError("--cv trains on one process: it goes without --coordinator, --processes and --process")


def _cross_validated(parsed: argparse.Namespace, config: ConfigDict, origin: dict[str, Any]) -> dict[str, Any]:
    from jaxlab.run.cross_validate import cross_validate

    result = cross_validate(config, parsed.workdir, parsed.cv, parsed.cv_by or "auto", parsed.cv_field, origin)
    show.cross_validation(result)
    return result


def _trained(parsed: argparse.Namespace, config: ConfigDict, origin: dict[str, Any]) -> dict[str, Any]:
    from jaxlab.run.train import train as train_at

    run = train_at(config, parsed.workdir, origin, fork_from=parsed.fork_from, fallback=parsed.fallback)
    return {"workdir": str(run.workdir), **run.summary}


def evaluate(parsed: argparse.Namespace, overrides: dict[str, str]) -> dict[str, Any]:
    """Measure checkpoints."""
    if parsed.watch and parsed.step:
        raise UsageError(f"--watch measures every checkpoint; --step={parsed.step} goes without it")
    if parsed.watch and "://" in parsed.workdir:
        raise UsageError(f"--workdir={parsed.workdir}: --watch expects the folder that a training writes")
    joint.join(parsed)
    return places.in_folders(parsed, lambda: _measured(parsed))


def _measured(parsed: argparse.Namespace) -> dict[str, Any]:
    from jaxlab.run.evaluate import evaluate_each, watch

    options = {"batch_size": parsed.batch_size, "parameters": parsed.parameters.split(","), "by": names(parsed.by)}
    options["plots"] = not parsed.no_plots
    found = watch(parsed.workdir, parsed.split, **options) if parsed.watch else None
    if found is None:
        found = evaluate_each(parsed.workdir, parsed.split, names(parsed.step or "best"), **options)
    results = []
    for result in found:
        if joint.is_first():
            show.evaluation(result)
        results.append(result)
    if len(results) == 1 and not parsed.watch:
        return results[0]
    return {"workdir": str(folder_of(parsed.workdir)), "evaluations": results}
