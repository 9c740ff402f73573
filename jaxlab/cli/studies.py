"""The commands about many runs: ``study``, ``report`` and ``runs``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from jaxlab.cli.flags import names

COMMANDS = ("study", "report", "runs")


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
    return {**result, **_written(parsed.workdir, None)}


def report(parsed: argparse.Namespace, options: Mapping[str, str]) -> dict[str, Any]:
    """Write the report of a study or a run."""
    return _written(parsed.workdir, parsed.output)


def _written(workdir: str, output: str | None) -> dict[str, Any]:
    from jaxlab.study.report import report as write

    result = write(workdir, output)
    for sentence in result["sentences"]:
        print(sentence, file=sys.stderr)
    print(f"written: {result['report']}", file=sys.stderr)
    return result


def runs(parsed: argparse.Namespace, options: Mapping[str, str]) -> dict[str, Any]:
    """List runs."""
    from jaxlab.study.index import runs as find
    from jaxlab.study.runs_table import columns_of, print_runs

    found = find(parsed.root, parsed.where, parsed.sort, parsed.rebuild)
    columns = columns_of(found, list(names(parsed.columns)))
    print_runs(found[: parsed.limit], columns, len(found))
    shown = [{name: facts[name] for name in columns if name in facts} for facts in found[: parsed.limit]]
    return {"root": parsed.root, "total": len(found), "runs": shown}
