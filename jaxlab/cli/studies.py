"""The commands about many runs: ``study`` and ``report``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

COMMANDS = ("study", "report")


def study(parsed: argparse.Namespace, options: Mapping[str, str]) -> dict[str, Any]:
    """Do what is missing of a study and write its report."""
    from jaxlab.run.stopping import stop_requests

    with stop_requests():  # from here on: imports and checks take seconds
        from jaxlab.study.executors import named
        from jaxlab.study.runner import run_study

        result = run_study(parsed.study, parsed.workdir, named(parsed.executor, options))
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
