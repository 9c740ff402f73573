"""The commands about many runs: ``study`` and ``report``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError, UsageError, did_you_mean
from jaxlab.core.override import override

COMMANDS = ("study", "report")


def study(parsed: argparse.Namespace, options: Mapping[str, str]) -> dict[str, Any]:
    """Do what is missing of a study and write its report."""
    from jaxlab.run.stopping import stop_requests

    with stop_requests():  # from here on: imports and checks take seconds
        from jaxlab.study.runner import run_study

        result = run_study(parsed.study, parsed.workdir, _executor(parsed.executor, options))
    for each in result["not_finished"]:
        print(f"not finished: {each['run']} ({each['status']}) {each['problem']}", file=sys.stderr)
    if parsed.no_report or not result["finished"]:
        return result
    return {**result, **report(parsed, options)}


def report(parsed: argparse.Namespace, options: Mapping[str, str]) -> dict[str, Any]:
    """Write the report of a study or a run."""
    from jaxlab.study.report import report as write

    result = write(parsed.workdir)
    for sentence in result["sentences"]:
        print(sentence, file=sys.stderr)
    print(f"written: {result['report']}", file=sys.stderr)
    return result


def _executor(name: str, options: Mapping[str, str]) -> Any:
    """Return the executor of that name, which is a module of `jaxlab.study.executors`, or of that import path."""
    import jaxlab.study.executors as package

    path = name if ":" in name else f"{package.__name__}.{name}:make"
    ours = [file.stem for file in Path(package.__path__[0]).glob("*.py") if file.stem != "__init__"]
    if ":" not in name and name not in ours:
        raise UsageError(f"--executor={name}: no such executor{did_you_mean(name, ours)}")
    try:
        return configs.build(override(configs.spec(path), options), path="executor")
    except ConfigError as error:
        raise ConfigError(f"--executor={name}: {str(error).replace('config.', '--executor.')}") from error
